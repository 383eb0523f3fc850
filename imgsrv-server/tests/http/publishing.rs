//! Publishing: what is refused, what fails, and how it goes on from there.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Folder, Server, artifact, attachment, bytes, digest, members, send, with};

fn path_of(job: &Value) -> String {
    format!("/v1/publish-jobs/{}", job["job_id"].as_str().expect("an id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_every_file_and_leaves_a_draft() {
    let server = Server::start();
    let api = server.writer().await;
    let (disk, metadata) = (bytes(1, 1000), bytes(2, 100));
    api.upload(&disk).await;
    api.upload(&metadata).await;
    api.post("/v1/images", json!({"name": "debian"})).await.created();
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.created();
    let base = "/v1/images/debian/versions/1.0";
    let add = async |architecture: &str, size: usize, metadata_size: usize| {
        let one = artifact(&disk, json!({"architecture": architecture, "primary_blob_size_bytes": size}));
        let one = api.add(&format!("{base}/artifacts"), one).await;
        let attached = attachment("incus.tar.xz", "application/x-xz", &metadata);
        let attached = with(attached, json!({"blob_size_bytes": metadata_size}));
        let attached = api.add(&format!("{base}/artifacts/{one}/attachments"), attached).await;
        (one, attached)
    };
    let refused = async |expected: &[String]| {
        let refused = api.act(&format!("{base}/publish")).await.problem(412, "not-publishable");
        let mut fields: Vec<_> = refused["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .map(|error| error["field"].as_str().expect("a field").to_owned())
            .collect();
        fields.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(fields, expected, "{refused}");
        assert_eq!(api.get(base).await.ok()["version"]["state"], "draft");
    };
    refused(&["artifacts".to_owned()]).await;
    let (wrong, attached) = add("amd64", 999, 99).await;
    refused(&[
        format!("artifacts/{wrong}/primary_blob_digest"),
        format!("artifacts/{wrong}/attachments/{attached}/blob_digest"),
    ])
    .await;
    assert_eq!(api.delete(&format!("{base}/artifacts/{wrong}")).await.status, 204);
    add("amd64", 1000, 100).await;
    // The same product to Incus, under another name.
    let (same, _) = add("x86_64", 1000, 100).await;
    refused(&[format!("artifacts/{same}")]).await;
    assert_eq!(api.delete(&format!("{base}/artifacts/{same}")).await.status, 204);
    add("arm64", 1000, 100).await;
    assert_eq!(api.publish("debian", "1.0").await["state"], "succeeded");
    api.act("/v1/images/debian/versions/9/publish").await.problem(404, "not-found");
    api.act("/v1/images/nothing/versions/1.0/publish").await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_publishing_a_version_is_frozen_and_unseen() {
    let server = Server::start_in(Folder::new(), &["--cas-promotion-enabled=false"]);
    let api = server.writer().await;
    let artifact = api.draft("debian", "1.0", b"one").await;
    let base = "/v1/images/debian/versions/1.0";
    // A body is ignored, whatever it is.
    let publish = api.request(Method::POST, &format!("{base}/publish")).header("content-type", "application/json");
    let job = send(publish.body("{not json")).await;
    assert_eq!(job.status, 202, "{}", job.text());
    let job = job.json();
    assert_eq!(
        members(&job),
        ["created_at", "id", "image_name", "job_id", "state", "steps", "updated_at", "version", "version_id"]
    );
    assert_eq!(
        members(&job["steps"][0]),
        ["attempt_count", "blocking", "created_at", "id", "job_id", "name", "sequence", "state", "updated_at"]
    );
    assert_eq!(
        (&job["image_name"], &job["version"], &job["state"]),
        (&json!("debian"), &json!("1.0"), &json!("queued"))
    );
    let again = api.act(&format!("{base}/publish")).await;
    assert_eq!((again.status.as_u16(), again.json()), (202, job.clone()), "the same job");

    for refused in [
        api.delete(base).await,
        api.delete(&format!("{base}/artifacts/{artifact}")).await,
        api.put("/v1/images/debian/aliases/latest", json!({"version": "1.0"})).await,
        api.act(&format!("{}/retry", path_of(&job))).await,
    ] {
        refused.problem(412, "wrong-state");
    }
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.problem(409, "already-exists");
    server.anonymous().get(base).await.problem(404, "not-found");
    let list = api.get("/v1/images/debian/versions?state=publishing").await.ok();
    assert_eq!(list["versions"][0]["version"], "1.0");
    assert_eq!(api.get(&path_of(&job)).await.ok(), job);

    let abandoned = api.act(&format!("{}/abandon", path_of(&job))).await.ok();
    assert_eq!((&abandoned["state"], &abandoned["failure_message"]), (&json!("failed"), &json!("abandoned")));
    assert_eq!(api.delete(base).await.status, 204, "a draft again");
    let unknown = "/v1/publish-jobs/00000000-0000-7000-8000-000000000000";
    for missing in [
        api.get(unknown).await,
        api.act(&format!("{unknown}/retry")).await,
        api.act(&format!("{unknown}/abandon")).await,
    ] {
        missing.problem(404, "not-found");
    }
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
    let version = "/v1/images/debian/versions/1.0";
    assert_eq!(api.get(version).await.ok()["version"]["state"], "publishing");
    server.anonymous().get(version).await.problem(404, "not-found");
    let same = api.act(&format!("{version}/publish")).await;
    assert_eq!((same.status.as_u16(), &same.json()["id"]), (202, &failed["id"]));

    // Retrying does not help as long as the bytes are lost.
    let retried = api.act(&format!("{}/retry", path_of(&failed))).await;
    assert_eq!((retried.status.as_u16(), &retried.json()["id"]), (202, &failed["id"]));
    assert_eq!(api.wait_for_job(failed["id"].as_str().expect("an id")).await["state"], "failed");
    assert_eq!(api.begin(&whole).await["state"], "created", "the bytes are asked for again");
    api.upload(&whole).await;
    assert_eq!(api.act(&format!("{}/retry", path_of(&failed))).await.status, 202);
    let done = api.wait_for_job(failed["id"].as_str().expect("an id")).await;
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
    let publish = "/v1/images/debian/versions/1.0/publish";
    api.act(publish).await.problem(412, "not-publishable");
    api.upload(&whole).await;
    let done = api.publish("debian", "1.0").await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_ne!(done["id"], failed["id"]);
    assert_eq!(api.get(&path_of(&failed)).await.ok()["state"], "failed", "the old job stays what it is");
    assert_eq!(api.act(publish).await.json()["id"], done["id"]);
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.problem(409, "already-exists");
}
