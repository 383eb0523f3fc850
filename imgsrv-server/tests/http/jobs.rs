//! Publish jobs: how they fail, how they go on, and how they are given up.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Folder, Server, bytes, digest, id, members, names, raw, request, send, until};

fn path_of(job: &Value) -> String {
    format!("/v1/publish-jobs/{}", id(job))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_wakes_the_worker_at_once() {
    let server = Server::start_in(Folder::new(), &["--cas-promotion-poll-interval", "1h"]);
    let writer = server.writer().await;
    writer.release("debian", "1.0", b"one").await;
    writer.release("debian", "2.0", b"two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nobody_runs_can_be_abandoned() {
    let server = Server::start_in(Folder::new(), &["--cas-promotion-enabled", "false"]);
    let writer = server.writer().await;
    writer.draft("debian", "1.0", b"one").await;
    let publish = "/v1/images/debian/versions/1.0/publish";
    let job = writer.act(publish).await.accepted();
    assert_eq!(job["state"], "queued");
    for _ in 0..2 {
        let abandoned = writer.act(&format!("{}/abandon", path_of(&job))).await.ok();
        assert_eq!((&abandoned["state"], &abandoned["failure_message"]), (&json!("failed"), &json!("abandoned")));
    }
    writer.act(&format!("{}/retry", path_of(&job))).await.problem(412, "wrong-state");
    assert_eq!(writer.get("/v1/images/debian/versions/1.0").await.ok()["version"]["state"], "draft");
    assert_ne!(writer.act(publish).await.accepted()["id"], job["id"], "publishing again makes a new job");
    let server = Server::start_in(server.stop(), &[]);
    let writer = server.client(writer.token);
    assert_eq!(writer.publish("debian", "1.0").await["state"], "succeeded", "what was queued goes on after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_for_lost_bytes_goes_on_when_they_are_there_again() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(3, 10_000);
    api.draft("debian", "1.0", &whole).await;
    server.folder.lose(&whole);
    let failed = api.publish("debian", "1.0").await;
    assert_eq!((&failed["state"], &failed["failed_step"]), (&json!("failed"), &json!("validate_catalog")));
    let step = &failed["steps"][0];
    assert_eq!((&step["state"], &step["attempt_count"]), (&json!("failed"), &json!(1)));
    for message in [&failed["failure_message"], &step["failure_message"]] {
        assert!(message.as_str().is_some_and(|message| message.contains(&digest(&whole))), "{failed}");
        assert!(!message.to_string().contains("blobs/sha256"), "no key of an object: {message}");
    }
    assert!(failed["finished_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{failed}");
    assert_eq!(
        members(&failed),
        [
            "created_at",
            "failed_step",
            "failure_message",
            "finished_at",
            "id",
            "image_name",
            "job_id",
            "started_at",
            "state",
            "steps",
            "updated_at",
            "version",
            "version_id"
        ]
    );
    assert_eq!(names(&failed, "steps", "state"), ["failed", "queued", "queued"]);
    let version = "/v1/images/debian/versions/1.0";
    assert_eq!(api.get(version).await.ok()["version"]["state"], "publishing");
    server.anonymous().get(version).await.problem(404, "not-found");
    assert_eq!(api.act(&format!("{version}/publish")).await.accepted()["id"], failed["id"]);

    // Retrying does not help as long as the bytes are lost.
    let retry = format!("{}/retry", path_of(&failed));
    let retried = api.act(&retry).await.accepted();
    assert_eq!(retried["id"], failed["id"]);
    assert!(retried.get("failed_step").is_none() && retried.get("failure_message").is_none(), "{retried}");
    assert_eq!(api.wait_for_job(&id(&failed)).await["state"], "failed");
    assert_eq!(api.begin(&whole).await["state"], "created", "the bytes are asked for again");
    api.upload(&whole).await;
    api.act(&retry).await.accepted();
    let done = api.wait_for_job(&id(&failed)).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert!(done.get("failed_step").is_none() && done.get("failure_message").is_none(), "{done}");
    let attempts: Vec<_> = done["steps"].as_array().expect("steps").iter().map(|step| &step["attempt_count"]).collect();
    assert_eq!(attempts, [3, 1, 1], "{done}");
    assert!(
        done["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .all(|step| step["blocking"] == true && step["job_id"] == done["id"])
    );
    assert_eq!(server.anonymous().get(version).await.ok()["version"]["state"], "published");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_a_while_fails_no_job() {
    let backoff = ["--cas-promotion-error-backoff=10ms", "--cas-promotion-error-backoff-max=10ms"];
    let server = Server::start_in(Folder::new(), &backoff);
    let api = server.writer().await;
    api.draft("debian", "1.0", b"one").await;
    api.draft("debian", "2.0", b"two").await;
    let (objects, away) = (server.folder.data().join("objects"), server.folder.path().join("away"));
    std::fs::rename(&objects, &away).expect("the store");
    std::fs::write(&objects, "in the way").expect("a file");
    let job = api.act("/v1/images/debian/versions/1.0/publish").await.accepted();
    let given_up = api.act("/v1/images/debian/versions/2.0/publish").await.accepted();
    let tried = async |job: &Value| {
        let waiting = api.get(&path_of(job)).await.ok();
        assert!(["queued", "running"].contains(&waiting["state"].as_str().expect("a state")), "{waiting}");
        assert!(waiting.get("failed_step").is_none() && waiting.get("failure_message").is_none(), "{waiting}");
        waiting["steps"][0]["attempt_count"].as_i64() > Some(0)
    };
    // The other one may never be begun: while the store is away nobody claims it.
    until("one was tried", async || tried(&job).await || tried(&given_up).await).await;
    // Whoever does not want to wait gives it up, whether it runs just now or not.
    let abandoned = api.act(&format!("{}/abandon", path_of(&given_up))).await.ok();
    assert_eq!((&abandoned["state"], &abandoned["failure_message"]), (&json!("failed"), &json!("abandoned")));
    std::fs::remove_file(&objects).expect("the file");
    std::fs::rename(&away, &objects).expect("the store");
    assert_eq!(api.wait_for_job(&id(&job)).await["state"], "succeeded");
    assert_eq!(api.get(&path_of(&given_up)).await.ok()["failure_message"], "abandoned");
    assert_eq!(api.get("/v1/images/debian/versions/2.0").await.ok()["version"]["state"], "draft");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_with_an_action_is_ignored() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(5, 1000);
    api.draft("debian", "1.0", &whole).await;
    server.folder.lose(&whole);
    let failed = api.publish("debian", "1.0").await;
    let act = async |path: &str, media_type: &str, body: &str| {
        send(api.request(Method::POST, path).header("content-type", media_type).body(body.to_owned())).await
    };
    for (media_type, body) in [
        ("application/json", "{not json"),
        ("application/json", "{\"parts\": []}"),
        ("text/plain", "please"),
        ("nonsense", "\u{0}"),
    ] {
        act("/v1/images/debian/versions/1.0/publish", media_type, body).await.accepted();
        act(&format!("{}/retry", path_of(&failed)), media_type, body).await.accepted();
        assert_eq!(api.wait_for_job(&id(&failed)).await["state"], "failed");
        let upload = id(&api.begin(b"never sent").await);
        assert_eq!(act(&format!("/v1/uploads/{upload}/abort"), media_type, body).await.ok()["state"], "aborted");
    }
    // Nobody waits for it either, or minds that it is more than JSON may have.
    let lines = ["content-type: application/json", "content-length: 1048577", "connection: close"];
    let announced = request(&api, "POST", "/v1/images/debian/versions/1.0/publish", &lines);
    assert!(raw(&server, announced.as_bytes()).starts_with("HTTP/1.1 202 "));
    let given_up = act(&format!("{}/abandon", path_of(&failed)), "application/json", "[").await.ok();
    assert_eq!(given_up["failure_message"], "abandoned");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_can_be_given_up_and_published_anew() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(4, 10_000);
    api.draft("debian", "1.0", &whole).await;
    server.folder.lose(&whole);
    let failed = api.publish("debian", "1.0").await;
    assert_eq!(failed["state"], "failed", "{failed}");
    let abandoned = api.act(&format!("{}/abandon", path_of(&failed))).await.ok();
    assert_eq!(abandoned["failure_message"], "abandoned");
    assert_eq!(api.act(&format!("{}/abandon", path_of(&failed))).await.ok(), abandoned, "unchanged");
    let publish = "/v1/images/debian/versions/1.0/publish";
    api.act(publish).await.problem(412, "not-publishable");
    api.upload(&whole).await;
    let done = api.publish("debian", "1.0").await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_ne!(done["id"], failed["id"]);
    assert_eq!(api.get(&path_of(&failed)).await.ok()["state"], "failed", "the old job stays what it is");
    assert_eq!(api.act(publish).await.accepted()["id"], done["id"]);
}
