//! Many clients at once: of those who want the same, one makes it, and everybody is told what is so.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::server::{Answer, Api, Server, artifact, attachment, bytes, id, names, until};

/// The same request many times at once.
async fn at_once(ask: impl AsyncFn() -> Answer) -> Vec<Answer> {
    join_all((0..8).map(|_| ask())).await
}

/// One is told this, all others that they came too late.
#[track_caller]
fn one_of(answers: &[Answer], status: u16, too_late: (u16, &str)) -> Value {
    let (first, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == status);
    assert_eq!(first.len(), 1, "{answers:?}");
    others.iter().for_each(|answer| drop(answer.problem(too_late.0, too_late.1)));
    if first[0].body.is_empty() { Value::Null } else { first[0].json() }
}

async fn sent(api: &Api, whole: &[u8]) -> (String, Value) {
    let upload = id(&api.begin(whole).await);
    let part = api.put_part(&upload, 1, whole.to_vec()).await.ok();
    (upload, part)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_make_the_same_one_does() {
    let server = Server::start();
    let api = server.writer().await;
    let taken = (409, "already-exists");
    one_of(&at_once(async || api.post("/v1/images", json!({"name": "debian"})).await).await, 201, taken);
    let versions = "/v1/images/debian/versions";
    one_of(&at_once(async || api.post(versions, json!({"version": "1.0"})).await).await, 201, taken);
    let path = format!("{versions}/1.0/artifacts");
    let disk = artifact(b"disk", json!({}));
    let one =
        format!("{path}/{}", id(&one_of(&at_once(async || api.post(&path, disk.clone()).await).await, 201, taken)));
    let (path, notes) = (format!("{one}/attachments"), attachment("notes", "text/plain", b"disk"));
    let attached = id(&one_of(&at_once(async || api.post(&path, notes.clone()).await).await, 201, taken));
    let gone = (404, "not-found");
    for path in [format!("{path}/{attached}"), one, format!("{versions}/1.0"), "/v1/images/debian".to_owned()] {
        one_of(&at_once(async || api.delete(&path).await).await, 204, gone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_for_one_thing_get_one_thing() {
    let server = Server::start();
    let api = server.writer().await;
    api.draft("debian", "1.0", b"one").await;
    let jobs = at_once(async || api.act("/v1/images/debian/versions/1.0/publish").await).await;
    let job = id(&jobs[0].accepted());
    assert!(jobs.iter().all(|answer| id(&answer.accepted()) == job), "one job");
    assert_eq!(api.wait_for_job(&job).await["state"], "succeeded");
    let latest = "/v1/images/debian/aliases/latest";
    let aliases = at_once(async || api.put(latest, json!({"version": "1.0"})).await).await;
    assert!(aliases.iter().all(|answer| id(&answer.ok()) == id(&aliases[0].ok())), "one alias");
    one_of(&at_once(async || api.delete(latest).await).await, 204, (404, "not-found"));

    let (upload, part) = sent(&api, &bytes(1, 1000)).await;
    for answer in at_once(async || api.complete(&upload, &[part.clone()]).await).await {
        assert_eq!(answer.ok()["state"], "ready");
    }
    let (upload, _) = sent(&api, &bytes(2, 1000)).await;
    for answer in at_once(async || api.act(&format!("/v1/uploads/{upload}/abort")).await).await {
        assert_eq!(answer.ok()["state"], "aborted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_for_one_digest_run_side_by_side() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(3, 1 << 20);
    let sessions = join_all((0..8).map(|_| sent(&api, &whole))).await;
    let completed =
        join_all(sessions.iter().map(|(upload, part)| api.complete(upload, std::slice::from_ref(part)))).await;
    for ((upload, _), answer) in sessions.iter().zip(&completed) {
        let session = answer.ok();
        assert_eq!((&session["id"], &session["state"]), (&json!(upload), &json!("ready")));
    }
    // One of them made the blob; what the others sent is not needed.
    let objects = || std::fs::read_dir(server.folder.objects_of(&whole)).expect("objects").count();
    until("the other objects are gone", async || objects() == 1).await;
    let artifact = api.release("debian", "1.0", &whole).await;
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    assert!(server.anonymous().get(&path).await.body == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_late_is_told_so() {
    let server = Server::start();
    let api = server.writer().await;
    for round in 0..8_u64 {
        let (upload, part) = sent(&api, &bytes(100 + round, 1000)).await;
        let parts = [part];
        let abort = format!("/v1/uploads/{upload}/abort");
        let (completed, aborted) = tokio::join!(api.complete(&upload, &parts), api.act(&abort));
        let state = api.get(&format!("/v1/uploads/{upload}")).await.ok()["state"].clone();
        let (first, second) = if state == "ready" { (completed, aborted) } else { (aborted, completed) };
        assert_eq!(first.ok()["state"], state);
        second.problem(412, "wrong-state");
    }
    for round in 0..8 {
        // What is added to a version in the moment in which it is frozen is in it, or is not.
        let version = format!("{round}.0");
        api.draft("debian", &version, b"one").await;
        let base = format!("/v1/images/debian/versions/{version}");
        let (publish, path) = (format!("{base}/publish"), format!("{base}/artifacts"));
        let (job, added) = tokio::join!(
            api.act(&publish),
            api.post(&path, artifact(b"one", json!({"variant": "cloud", "format": "raw"})))
        );
        assert_eq!(api.wait_for_job(&id(&job.accepted())).await["state"], "succeeded");
        let variants = api.get(&path).await.ok();
        let is_in_it = names(&variants, "artifacts", "variant").contains(&"cloud");
        if is_in_it {
            added.created();
        } else {
            added.problem(412, "wrong-state");
        }
    }
}
