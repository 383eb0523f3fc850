//! Publishing: the walk from nothing to a release, what is refused, and what stays as it is.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Folder, Server, artifact, attachment, bytes, id, members, names, send, with};

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_from_nothing_to_a_release() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    let (disk, metadata) = (bytes(1, 300_000), bytes(2, 1000));
    let image = json!({"name": "debian", "display_name": "Debian", "description": "With cloud-init"});
    writer.post("/v1/images", image).await.created();
    writer.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.created();
    let base = "/v1/images/debian/versions/1.0";
    // What it cites need not be there before it is published.
    let one = writer.add(&format!("{base}/artifacts"), artifact(&disk, json!({}))).await;
    let attachments = format!("{base}/artifacts/{one}/attachments");
    let attached =
        writer.add(&attachments, attachment("incus.tar.xz", "application/x-incus-metadata", &metadata)).await;
    writer.upload(&disk).await;
    writer.upload(&metadata).await;

    let publish = format!("{base}/publish");
    let job = writer.act(&publish).await.accepted();
    assert_eq!(job["id"], job["job_id"]);
    let done = writer.wait_for_job(&id(&job)).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(
        members(&done),
        [
            "created_at",
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
    for step in done["steps"].as_array().expect("steps") {
        assert_eq!(
            members(step),
            [
                "attempt_count",
                "blocking",
                "created_at",
                "finished_at",
                "id",
                "job_id",
                "name",
                "sequence",
                "started_at",
                "state",
                "updated_at"
            ]
        );
    }
    let steps = done["steps"].as_array().expect("steps").iter();
    let steps: Vec<_> =
        steps.map(|step| json!([step["name"], step["sequence"], step["state"], step["attempt_count"]])).collect();
    let expected = [("validate_catalog", 10), ("incus_index", 20), ("finalize_publish", 30)];
    assert_eq!(steps, expected.map(|(name, place)| json!([name, place, "succeeded", 1])), "{done}");
    assert_eq!(writer.act(&publish).await.accepted()["id"], job["id"], "published: the job that did it");

    let manifest = reader.get(base).await.ok();
    assert_eq!(
        members(&manifest["version"]),
        ["created_at", "id", "image_id", "published_at", "state", "updated_at", "version"]
    );
    assert_eq!(manifest["version"]["id"], done["version_id"]);
    assert_eq!(manifest["artifacts"][0]["artifact"]["id"], json!(one));
    assert_eq!(manifest["artifacts"][0]["attachments"][0]["name"], "incus.tar.xz");
    assert_eq!(manifest["version"]["state"], "published");
    let file = reader.get(&format!("{attachments}/{attached}/download")).await;
    assert_eq!(
        (file.status.as_u16(), file.header("content-type"), &file.body),
        (200, "application/x-incus-metadata", &metadata)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_stays_as_it_is() {
    let server = Server::start();
    let api = server.writer().await;
    api.upload(b"disk").await;
    api.post("/v1/images", json!({"name": "debian"})).await.created();
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.created();
    let base = "/v1/images/debian/versions/1.0";
    let (disk, notes) = (artifact(b"disk", json!({})), attachment("notes", "text/plain", b"disk"));
    let one = api.add(&format!("{base}/artifacts"), disk.clone()).await;
    let attachments = format!("{base}/artifacts/{one}/attachments");
    let attached = api.add(&attachments, notes.clone()).await;
    let job = format!("/v1/publish-jobs/{}", id(&api.publish("debian", "1.0").await));
    let before = api.get(base).await.ok();
    for (answer, what) in [
        (api.post(&format!("{base}/artifacts"), disk).await, "an edit, before its uniqueness"),
        (api.post(&attachments, notes).await, "an attachment, before its uniqueness"),
        (api.delete(&format!("{base}/artifacts/{one}")).await, "a removal"),
        (api.delete(&format!("{attachments}/{attached}")).await, "a removal of what is attached"),
        (api.delete(base).await, "the version"),
        (api.act(&format!("{job}/retry")).await, "a retry"),
        (api.act(&format!("{job}/abandon")).await, "giving up"),
    ] {
        assert_eq!(answer.problem(412, "wrong-state")["status"], 412, "{what}");
    }
    api.delete("/v1/images/debian").await.problem(412, "not-empty");
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.problem(409, "already-exists");
    assert_eq!(api.get(base).await.ok(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_every_file_and_leaves_a_draft() {
    let server = Server::start();
    let api = server.writer().await;
    let (disk, metadata) = (bytes(1, 1000), bytes(2, 100));
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
    let both = [
        format!("artifacts/{wrong}/primary_blob_digest"),
        format!("artifacts/{wrong}/attachments/{attached}/blob_digest"),
    ];
    // Neither is there; then both are, in another size.
    refused(&both).await;
    api.upload(&disk).await;
    api.upload(&metadata).await;
    refused(&both).await;
    api.delete(&format!("{base}/artifacts/{wrong}")).await.no_content();
    add("amd64", 1000, 100).await;
    // The same product to Incus, under another name.
    let (same, _) = add("x86_64", 1000, 100).await;
    refused(&[format!("artifacts/{same}")]).await;
    api.delete(&format!("{base}/artifacts/{same}")).await.no_content();
    add("arm64", 1000, 100).await;
    assert_eq!(api.publish("debian", "1.0").await["state"], "succeeded");
    api.act("/v1/images/debian/versions/9/publish").await.problem(404, "not-found");
    api.act("/v1/images/nothing/versions/1.0/publish").await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_of_incus_has_one_root_of_each_kind_and_one_metadata() {
    let server = Server::start();
    let api = server.writer().await;
    for bytes in [b"disk", b"root", b"meta", b"data"] {
        api.upload(bytes).await;
    }
    api.post("/v1/images", json!({"name": "debian"})).await.created();
    let mut count = 0;
    // A version with two roots, each with its metadata, if any; the artifacts' ids.
    let mut with_two = async |second: Value, metadata: [Option<&[u8]>; 2]| {
        count += 1;
        let version = format!("{count}.0");
        api.post("/v1/images/debian/versions", json!({ "version": version })).await.created();
        let path = format!("/v1/images/debian/versions/{version}/artifacts");
        let mut ids = Vec::new();
        for (root, metadata) in [artifact(b"disk", json!({})), artifact(b"root", second)].into_iter().zip(metadata) {
            let one = api.add(&path, root).await;
            if let Some(metadata) = metadata {
                let metadata = attachment("incus.tar.xz", "application/x-xz", metadata);
                api.add(&format!("{path}/{one}/attachments"), metadata).await;
            }
            ids.push(one);
        }
        (version, ids)
    };
    let (meta, data) = (Some(&b"meta"[..]), Some(&b"data"[..]));
    for (second, metadata) in [
        (json!({"architecture": "x86_64"}), [meta, meta]),
        (json!({"operating_system": "freebsd"}), [meta, meta]),
        (json!({"format": "squashfs"}), [meta, data]),
        // It has its own metadata inside.
        (json!({"format": "incus_combined.tar.gz"}), [meta, None]),
    ] {
        let (version, ids) = with_two(second, metadata).await;
        let path = format!("/v1/images/debian/versions/{version}");
        let refused = api.act(&format!("{path}/publish")).await.problem(412, "not-publishable");
        assert_eq!(names(&refused, "errors", "field"), [format!("artifacts/{}", ids[1])], "{refused}");
        assert_eq!(api.get(&path).await.ok()["version"]["state"], "draft");
    }
    for (second, metadata) in [
        (json!({"format": "squashfs"}), [meta, meta]),
        (json!({"format": "root.tar.xz"}), [meta, meta]),
        (json!({"variant": "cloud"}), [meta, data]),
        (json!({"architecture": "arm64"}), [meta, data]),
        // Of no use to Incus, and so no product.
        (json!({"architecture": "x86_64"}), [meta, None]),
        (json!({"format": "raw"}), [meta, data]),
    ] {
        let (version, _) = with_two(second, metadata).await;
        assert_eq!(api.publish("debian", &version).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_publishing_a_version_is_frozen_and_unseen() {
    let server = Server::start_in(Folder::new(), &["--cas-promotion-enabled=false"]);
    let api = server.writer().await;
    let artifact = api.draft("debian", "1.0", b"one").await;
    let base = "/v1/images/debian/versions/1.0";
    // A body is ignored, whatever it is.
    let publish = api.request(Method::POST, &format!("{base}/publish")).header("content-type", "application/json");
    let job = send(publish.body("{not json")).await.accepted();
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
    assert_eq!(names(&job, "steps", "state"), ["queued"; 3]);
    assert_eq!(api.act(&format!("{base}/publish")).await.accepted(), job, "the same job");

    let path = format!("/v1/publish-jobs/{}", id(&job));
    for refused in [
        api.delete(base).await,
        api.delete(&format!("{base}/artifacts/{artifact}")).await,
        api.put("/v1/images/debian/aliases/latest", json!({"version": "1.0"})).await,
        api.act(&format!("{path}/retry")).await,
    ] {
        refused.problem(412, "wrong-state");
    }
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.problem(409, "already-exists");
    server.anonymous().get(base).await.problem(404, "not-found");
    let list = api.get("/v1/images/debian/versions?state=publishing").await.ok();
    assert_eq!(list["versions"][0]["version"], "1.0");
    assert_eq!(api.get(&path).await.ok(), job);

    let abandoned = api.act(&format!("{path}/abandon")).await.ok();
    assert_eq!((&abandoned["state"], &abandoned["failure_message"]), (&json!("failed"), &json!("abandoned")));
    assert_eq!(names(&abandoned, "steps", "state"), ["skipped"; 3]);
    api.delete(base).await.no_content();
    api.get(&path).await.problem(404, "not-found");
}
