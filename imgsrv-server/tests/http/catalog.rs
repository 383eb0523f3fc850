//! Images, versions, artifacts and attachments: their members, their names, and what is deleted.

use serde_json::json;

use crate::server::{Server, artifact, attachment, digest, id, members, with};

#[tokio::test(flavor = "multi_thread")]
async fn every_thing_has_just_its_members() {
    let server = Server::start();
    let api = server.writer().await;
    let image = api.post("/v1/images", json!({"name": "debian"})).await.created();
    assert_eq!(members(&image), ["created_at", "id", "name", "updated_at"]);
    let full = json!({"name": "full", "display_name": "Größe", "description": "two\nlines"});
    let full = api.post("/v1/images", full).await.created();
    assert_eq!((&full["display_name"], &full["description"]), (&json!("Größe"), &json!("two\nlines")));
    assert_eq!(members(&full), ["created_at", "description", "display_name", "id", "name", "updated_at"]);
    assert_eq!(api.get("/v1/images/full").await.ok(), full);
    let version = api.post("/v1/images/debian/versions", json!({"version": "1:2+x"})).await.created();
    assert_eq!(members(&version), ["created_at", "id", "image_id", "state", "updated_at", "version"]);
    assert_eq!((&version["state"], &version["image_id"]), (&json!("draft"), &image["id"]));

    let base = "/v1/images/debian/versions/1:2+x";
    let empty = api.get(base).await.ok();
    assert_eq!((members(&empty), &empty["artifacts"]), (vec!["artifacts", "image", "version"], &json!([])));
    let path = format!("{base}/artifacts");
    let plain = api.post(&path, artifact(b"disk", json!({"variant": ""}))).await.created();
    assert_eq!(
        members(&plain),
        [
            "architecture",
            "created_at",
            "format",
            "id",
            "operating_system",
            "primary_blob_digest",
            "primary_blob_size_bytes",
            "primary_media_type",
            "updated_at",
            "variant",
            "version_id"
        ]
    );
    assert_eq!((&plain["variant"], &plain["version_id"]), (&json!("default"), &version["id"]));
    let other = json!({"variant": "cloud", "requirements": {"secureboot": "false"}});
    let other = api.post(&path, artifact(b"disk", other)).await.created();
    assert_eq!(other["requirements"], json!({"secureboot": "false"}));
    let one = format!("{path}/{}", id(&plain));
    assert_eq!(api.get(&one).await.ok(), plain);

    let notes = attachment("notes", "text/plain; charset=utf-8", b"");
    let attached = api.post(&format!("{one}/attachments"), notes).await.created();
    assert_eq!(
        members(&attached),
        ["artifact_id", "blob_digest", "blob_size_bytes", "created_at", "id", "media_type", "name", "updated_at"]
    );
    let manifest = api.get(base).await.ok();
    assert_eq!((&manifest["image"]["id"], &manifest["version"]["id"]), (&image["id"], &version["id"]));
    let reason = "there is no attachment incus.tar.xz";
    let entry =
        |artifact, attachments| json!({"artifact": artifact, "attachments": attachments, "not_listed_reason": reason});
    assert_eq!(manifest["artifacts"][0], entry(&plain, json!([attached])));
    assert_eq!(manifest["artifacts"][1], entry(&other, json!([])));
    let listed = api.get(&path).await.ok();
    assert_eq!((members(&listed), &listed["artifacts"][1]), (vec!["artifacts"], &other));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_once_cannot_be_made_twice() {
    let server = Server::start();
    let api = server.writer().await;
    api.post("/v1/images", json!({"name": "debian"})).await.created();
    api.post("/v1/images", json!({"name": "debian"})).await.problem(409, "already-exists");
    api.post("/v1/images/nothing/versions", json!({"version": "1.0"})).await.problem(404, "not-found");
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.created();
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.problem(409, "already-exists");

    let path = "/v1/images/debian/versions/1.0/artifacts";
    let one = api.post(path, artifact(b"disk", json!({}))).await.created();
    assert_eq!(one["variant"], "default");
    for same in [json!({}), json!({"variant": ""}), json!({"variant": "default"})] {
        api.post(path, artifact(b"other", same)).await.problem(409, "already-exists");
    }
    for differs in [
        json!({"variant": "cloud"}),
        json!({"operating_system": "freebsd"}),
        json!({"architecture": "arm64"}),
        json!({"format": "raw"}),
    ] {
        api.post(path, artifact(b"disk", differs)).await.created();
    }
    let attachments = format!("{path}/{}/attachments", id(&one));
    api.post(&attachments, attachment("notes", "text/plain", b"notes")).await.created();
    api.post(&attachments, attachment("notes", "text/html", b"others")).await.problem(409, "already-exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_gone_with_all_that_is_in_it() {
    let server = Server::start();
    let api = server.writer().await;
    api.post("/v1/images", json!({"name": "debian"})).await.created();
    api.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.created();
    let base = "/v1/images/debian/versions/1.0";
    let path = format!("{base}/artifacts");
    let one = format!("{path}/{}", api.add(&path, artifact(b"disk", json!({}))).await);
    api.add(&path, artifact(b"disk", json!({"variant": "cloud"}))).await;
    let attached = api.add(&format!("{one}/attachments"), attachment("notes", "text/plain", b"")).await;

    let other = format!("{path}/{}", api.add(&path, artifact(b"disk", json!({"variant": "other"}))).await);
    let notes = attachment("notes", "text/plain", b"");
    let lost = api.add(&format!("{other}/attachments"), notes.clone()).await;
    api.delete(&other).await.no_content();
    api.delete(&format!("{other}/attachments/{lost}")).await.problem(404, "not-found");
    let again = format!("{path}/{}", api.add(&path, artifact(b"disk", json!({"variant": "other"}))).await);
    api.delete(&format!("{again}/attachments/{lost}")).await.problem(404, "not-found");
    api.post(&format!("{again}/attachments"), notes).await.created();

    let gone = format!("{one}/attachments/{attached}");
    api.delete(&gone).await.no_content();
    api.delete(&gone).await.problem(404, "not-found");
    api.delete(&one).await.no_content();
    for missing in [api.get(&one).await, api.delete(&one).await] {
        missing.problem(404, "not-found");
    }

    api.delete("/v1/images/debian").await.problem(412, "not-empty");
    api.delete(base).await.no_content();
    for missing in [api.get(base).await, api.delete(base).await, api.get(&path).await] {
        missing.problem(404, "not-found");
    }
    api.delete("/v1/images/debian").await.no_content();
    for missing in [api.get("/v1/images/debian").await, api.delete("/v1/images/debian").await] {
        missing.problem(404, "not-found");
    }
    api.post("/v1/images", json!({"name": "debian"})).await.created();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_values_follow_their_rules() {
    let server = Server::start();
    let api = server.writer().await;
    for name in ["", "A", "-a", ".a", "a b", "a/b", "a\n", "ä", "..", &"a".repeat(129)] {
        api.post("/v1/images", json!({"name": name})).await.problem(400, "invalid");
    }
    for more in
        [json!({"display_name": ""}), json!({"description": " \n"}), json!({"display_name": 1}), json!({"id": "x"})]
    {
        api.post("/v1/images", with(json!({"name": "debian"}), more)).await.problem(400, "invalid");
    }
    for name in ["0", "a.b_c-d", &"a".repeat(128)] {
        api.post("/v1/images", json!({"name": name})).await.created();
    }
    let versions = "/v1/images/0/versions";
    for version in ["", "-1", "a/b", "a b", "a%", &"1".repeat(129)] {
        api.post(versions, json!({"version": version})).await.problem(400, "invalid");
    }
    for body in [json!({}), json!({"version": 1}), json!({"version": "1", "state": "published"}), json!("1")] {
        api.post(versions, body).await.problem(400, "invalid");
    }
    let longest = format!("A{}", "a._+:-9".repeat(18));
    api.post(versions, json!({"version": longest})).await.created();
    api.get(&format!("{versions}/{longest}")).await.ok();

    let path = format!("{versions}/{longest}/artifacts");
    for wrong in [
        json!({"variant": "a/b"}),
        json!({"variant": " "}),
        json!({"variant": true}),
        json!({"variant": 1}),
        json!({"operating_system": ""}),
        json!({"architecture": "x".repeat(65)}),
        json!({"format": "exe"}),
        json!({"format": "QCOW2"}),
        json!({"primary_blob_digest": digest(b"disk").to_uppercase()}),
        json!({"primary_blob_digest": "sha512:00"}),
        json!({"primary_blob_size_bytes": -1}),
        json!({"primary_blob_size_bytes": "4"}),
        json!({"primary_media_type": "disk"}),
        json!({"primary_media_type": ""}),
        json!({"requirements": ["a"]}),
        json!({"requirements": {"secureboot": false}}),
        json!({"version_id": "x"}),
    ] {
        api.post(&path, artifact(b"disk", wrong)).await.problem(400, "invalid");
    }
    for format in [
        "raw",
        "raw.gz",
        "raw.xz",
        "raw.zst",
        "iso",
        "vmdk",
        "vhdx",
        "ova",
        "squashfs",
        "root.tar.xz",
        "incus_combined.tar.gz",
    ] {
        api.post(&path, artifact(b"disk", json!({"format": format}))).await.created();
    }
    assert_eq!(api.get(&path).await.ok()["artifacts"].as_array().map(Vec::len), Some(11));
    for unusual in [
        json!({"variant": "A._+-0", "operating_system": "A._+-0", "architecture": "A._+-0"}),
        json!({"variant": "x".repeat(64), "operating_system": "x".repeat(64), "architecture": "x".repeat(64)}),
        json!({"variant": "0", "primary_blob_size_bytes": i64::MAX}),
        json!({"variant": "1", "primary_media_type": "text/plain; charset=utf-8"}),
    ] {
        api.post(&path, artifact(b"disk", unusual)).await.created();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_follows_its_rules() {
    let server = Server::start();
    let api = server.writer().await;
    let one = api.draft("debian", "1.0", b"disk").await;
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{one}/attachments");
    let notes = attachment("notes", "text/plain", b"notes");
    for wrong in [
        json!({"name": ""}),
        json!({"name": "-a"}),
        json!({"name": "a/b"}),
        json!({"name": "a:b"}),
        json!({"name": "x".repeat(65)}),
        json!({"media_type": "text"}),
        json!({"media_type": " "}),
        json!({"blob_digest": "sha256:00"}),
        json!({"blob_digest": digest(b"notes").to_uppercase()}),
        json!({"blob_size_bytes": -1}),
        json!({"blob_size_bytes": 1.5}),
        json!({"blob_size_bytes": 9_223_372_036_854_775_808_u64}),
        json!({"artifact_id": one}),
    ] {
        api.post(&path, with(notes.clone(), wrong)).await.problem(400, "invalid");
    }
    for missing in ["name", "media_type", "blob_digest", "blob_size_bytes"] {
        let mut less = notes.clone();
        less.as_object_mut().expect("an object").remove(missing);
        api.post(&path, less).await.problem(400, "invalid");
    }
    for name in ["0", "A.b_c+d-e", &"x".repeat(64)] {
        api.post(&path, with(notes.clone(), json!({"name": name}))).await.created();
    }
    // There, but not there: an artifact of another version.
    api.draft("debian", "2.0", b"other").await;
    let foreign = format!("/v1/images/debian/versions/2.0/artifacts/{one}");
    api.get(&foreign).await.problem(404, "not-found");
    api.delete(&foreign).await.problem(404, "not-found");
    api.post(&format!("{foreign}/attachments"), notes).await.problem(404, "not-found");
}
