//! From nothing to a release: the whole walk, and the rules of each step.

use reqwest::StatusCode;
use serde_json::json;

use crate::server::{Api, Folder, Server, artifact, attachment, bytes};

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_walk() {
    let server = Server::start();
    let writer = server.writer().await;
    let (disk, metadata) = (bytes(1, 300_000), bytes(2, 1000));
    let image = json!({"name": "debian", "display_name": "Debian", "description": "With cloud-init"});
    writer.post("/v1/images", image).await.created();
    writer.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.created();

    let base = "/v1/images/debian/versions/1.0";
    writer.act(&format!("{base}/publish")).await.problem(412, "not-publishable");
    let artifact = artifact(&disk, json!({}));
    let added = writer.post(&format!("{base}/artifacts"), artifact.clone()).await.created();
    assert_eq!(added["variant"], "default");
    let id = added["id"].as_str().expect("an id").to_owned();
    let attachment = attachment("incus.tar.xz", "application/x-incus-metadata", &metadata);
    let attachments = format!("{base}/artifacts/{id}/attachments");
    let attached = writer.post(&attachments, attachment.clone()).await.created();

    let missing = writer.act(&format!("{base}/publish")).await.problem(412, "not-publishable");
    assert_eq!(missing["errors"].as_array().map(Vec::len), Some(2), "{missing}");
    assert!(missing["errors"][0]["field"].as_str().is_some_and(|field| field.starts_with("artifacts/")), "{missing}");
    writer.upload(&disk).await;
    writer.upload(&metadata).await;

    let job = writer.act(&format!("{base}/publish")).await;
    assert_eq!(job.status, StatusCode::ACCEPTED);
    let job = job.json();
    assert_eq!(job["id"], job["job_id"]);
    let done = writer.wait_for_job(job["id"].as_str().expect("an id")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let steps: Vec<_> = done["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| (&step["name"], &step["sequence"], &step["state"], &step["attempt_count"]))
        .collect();
    let expected = [("validate_catalog", 10), ("incus_index", 20), ("finalize_publish", 30)]
        .map(|(name, place)| (json!(name), json!(place)));
    for (step, (name, place)) in steps.iter().zip(&expected) {
        assert_eq!(step, &(name, place, &json!("succeeded"), &json!(1)));
    }
    assert_eq!(writer.act(&format!("{base}/publish")).await.json()["id"], job["id"], "published: the job that did it");

    for (answer, what) in [
        (writer.post(&format!("{base}/artifacts"), artifact).await, "an edit, before its uniqueness"),
        (writer.post(&attachments, attachment).await, "an attachment"),
        (writer.delete(&format!("{base}/artifacts/{id}")).await, "a removal"),
        (writer.delete(&format!("{attachments}/{}", attached["id"].as_str().expect("an id"))).await, "a removal"),
        (writer.delete(base).await, "the version"),
        (writer.act(&format!("/v1/publish-jobs/{}/retry", job["id"].as_str().expect("an id"))).await, "a retry"),
        (writer.act(&format!("/v1/publish-jobs/{}/abandon", job["id"].as_str().expect("an id"))).await, "giving up"),
    ] {
        assert_eq!(answer.problem(412, "wrong-state")["status"], 412, "{what}");
    }
    writer.delete("/v1/images/debian").await.problem(412, "not-empty");

    let reader = server.anonymous();
    let manifest = reader.get(base).await.ok();
    assert_eq!(manifest["artifacts"][0]["artifact"]["id"], json!(id));
    assert_eq!(manifest["artifacts"][0]["attachments"][0]["name"], "incus.tar.xz");
    assert_eq!(manifest["version"]["state"], "published");
    let file = reader.get(&format!("{attachments}/{}/download", attached["id"].as_str().expect("an id"))).await;
    assert_eq!(
        (file.status.as_u16(), file.header("content-type"), &file.body),
        (200, "application/x-incus-metadata", &metadata)
    );
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
    let job = writer.act(publish).await.json();
    assert_eq!(job["state"], "queued");
    let path = format!("/v1/publish-jobs/{}", job["id"].as_str().expect("an id"));
    for _ in 0..2 {
        let abandoned = writer.act(&format!("{path}/abandon")).await.ok();
        assert_eq!((&abandoned["state"], &abandoned["failure_message"]), (&json!("failed"), &json!("abandoned")));
    }
    writer.act(&format!("{path}/retry")).await.problem(412, "wrong-state");
    assert_eq!(writer.get("/v1/images/debian/versions/1.0").await.ok()["version"]["state"], "draft");
    assert_ne!(writer.act(publish).await.json()["id"], job["id"], "publishing again makes a new job");
    let server = Server::start_in(server.stop(), &[]);
    let writer = Api::new(&server.url, writer.token.clone());
    assert_eq!(writer.publish("debian", "1.0").await["state"], "succeeded", "what was queued goes on after a restart");
}
