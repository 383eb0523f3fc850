//! The catalogue: its members, its names, what is deleted, and reading lists piece by piece.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Api, Server, artifact, attachment, digest, members, send, with};

#[tokio::test(flavor = "multi_thread")]
async fn every_thing_has_just_its_members() {
    let server = Server::start();
    let api = server.writer().await;
    let image = api.post("/v1/images", json!({"name": "debian"})).await.created();
    assert_eq!(members(&image), ["created_at", "id", "name", "updated_at"]);
    let full = json!({"name": "full", "display_name": "Größe", "description": "two\nlines"});
    let full = api.post("/v1/images", full).await.created();
    assert_eq!((&full["display_name"], &full["description"]), (&json!("Größe"), &json!("two\nlines")));
    let version = api.post("/v1/images/debian/versions", json!({"version": "1:2+x"})).await.created();
    assert_eq!(members(&version), ["created_at", "id", "image_id", "state", "updated_at", "version"]);

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
    api.post(&path, artifact(b"disk", json!({"variant": "default"}))).await.problem(409, "already-exists");
    let other = json!({"variant": "cloud", "requirements": {"secureboot": "false"}});
    let other = api.post(&path, artifact(b"disk", other)).await.created();
    assert_eq!(other["requirements"], json!({"secureboot": "false"}));
    for differs in [json!({"operating_system": "freebsd"}), json!({"architecture": "arm64"}), json!({"format": "raw"})]
    {
        api.post(&path, artifact(b"disk", differs)).await.created();
    }
    let one = format!("{path}/{}", plain["id"].as_str().expect("an id"));
    assert_eq!(api.get(&one).await.ok(), plain);

    let notes = attachment("notes", "text/plain; charset=utf-8", b"");
    let attached = api.post(&format!("{one}/attachments"), notes).await.created();
    assert_eq!(
        members(&attached),
        ["artifact_id", "blob_digest", "blob_size_bytes", "created_at", "id", "media_type", "name", "updated_at"]
    );
    let manifest = api.get(base).await.ok();
    assert_eq!((&manifest["image"]["id"], &manifest["version"]["id"]), (&image["id"], &version["id"]));
    assert_eq!(manifest["artifacts"][0], json!({"artifact": plain, "attachments": [attached]}));
    assert_eq!(manifest["artifacts"][1], json!({"artifact": other, "attachments": []}));
    let listed = api.get(&path).await.ok();
    assert_eq!((members(&listed), &listed["artifacts"][1]), (vec!["artifacts"], &other));

    let gone = format!("{one}/attachments/{}", attached["id"].as_str().expect("an id"));
    assert_eq!(api.delete(&gone).await.status, StatusCode::NO_CONTENT);
    api.delete(&gone).await.problem(404, "not-found");
    assert_eq!(api.delete(&one).await.status, StatusCode::NO_CONTENT);
    for missing in [api.get(&one).await, api.delete(&one).await] {
        missing.problem(404, "not-found");
    }

    api.delete("/v1/images/debian").await.problem(412, "not-empty");
    assert_eq!(api.delete(base).await.status, StatusCode::NO_CONTENT, "a draft, with all that is in it");
    for missing in [api.get(base).await, api.delete(base).await, api.get(&path).await] {
        missing.problem(404, "not-found");
    }
    assert_eq!(api.delete("/v1/images/debian").await.status, StatusCode::NO_CONTENT);
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
    let alias = |name: &str| format!("/v1/images/0/aliases/{name}");
    for name in ["-a", "a+b", "a:b", &"a".repeat(65)] {
        api.put(&alias(name), json!({"version": longest})).await.problem(400, "invalid");
    }
    api.put(&alias("latest"), json!({"version": longest, "force": true})).await.problem(400, "invalid");
    api.put("/v1/images/nothing/aliases/latest", json!({"version": "1"})).await.problem(404, "not-found");
    // Not even the deletion of what was never there.
    api.delete(&alias("latest")).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_published_version_an_image_is_not_there() {
    let server = Server::start();
    let writer = server.writer().await;
    let hidden = writer.draft("hidden", "1.0", b"hidden").await;
    let released = writer.release("open", "1.0", b"open").await;
    let draft = writer.draft("open", "2.0", b"draft").await;
    let reader = server.anonymous();
    for path in [
        "/v1/images/hidden".to_owned(),
        "/v1/images/hidden/versions".to_owned(),
        "/v1/images/hidden/versions/1.0".to_owned(),
        "/v1/images/hidden/versions/1.0/artifacts".to_owned(),
        format!("/v1/images/hidden/versions/1.0/artifacts/{hidden}"),
        "/v1/images/hidden/aliases".to_owned(),
        "/v1/images/hidden/aliases/latest".to_owned(),
        "/v1/images/hidden/refs/1.0".to_owned(),
        "/v1/images/open/versions/2.0".to_owned(),
        "/v1/images/open/versions/2.0/artifacts".to_owned(),
        format!("/v1/images/open/versions/2.0/artifacts/{draft}"),
        format!("/v1/images/open/versions/1.0/artifacts/{draft}"),
        "/v1/images/open/refs/2.0".to_owned(),
        "/v1/images/open/aliases/latest".to_owned(),
    ] {
        reader.get(&path).await.problem(404, "not-found");
    }
    for path in [
        "/v1/images".to_owned(),
        "/v1/images/open".to_owned(),
        "/v1/images/open/versions".to_owned(),
        "/v1/images/open/versions?state=published".to_owned(),
        "/v1/images/open/versions/1.0".to_owned(),
        "/v1/images/open/versions/1.0/artifacts".to_owned(),
        format!("/v1/images/open/versions/1.0/artifacts/{released}"),
    ] {
        let (read, written) = (reader.get(&path).await, writer.get(&path).await);
        assert_eq!((read.status.as_u16(), written.status.as_u16()), (200, 200), "{path}");
        assert_eq!(
            (read.header("cache-control"), read.header("vary").to_lowercase().as_str()),
            ("no-cache", "authorization"),
            "{path}"
        );
        assert_eq!(
            (written.header("cache-control"), written.header("vary").to_lowercase().as_str()),
            ("private, no-store", "authorization"),
            "{path}"
        );
        assert!(read.header("etag").starts_with('"'), "{path}");
        let again = send(reader.request(Method::GET, &path).header("if-none-match", read.header("etag"))).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
    }
    writer.put("/v1/images/open/aliases/latest", json!({"version": "1.0"})).await.ok();
    for path in [
        "/v1/images/open/aliases",
        "/v1/images/open/aliases/latest",
        "/v1/images/open/refs/latest",
        "/v1/images/open/refs/1.0",
    ] {
        let answer = reader.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-cache"), "{path}");
        assert!(!answer.header("etag").is_empty(), "{path}");
    }
    let alias = reader.get("/v1/images/open/aliases/latest").await.ok();
    assert_eq!(members(&alias), ["alias", "created_at", "id", "image_id", "updated_at", "version", "version_id"]);
    let version = reader.get("/v1/images/open/refs/latest").await.ok();
    assert_eq!(members(&version), ["created_at", "id", "image_id", "published_at", "state", "updated_at", "version"]);

    for (state, expected) in [("draft", vec!["2.0"]), ("publishing", vec![]), ("published", vec!["1.0"])] {
        let list = writer.get(&format!("/v1/images/open/versions?state={state}")).await.ok();
        let names: Vec<_> = list["versions"].as_array().expect("versions").iter().map(|one| &one["version"]).collect();
        assert_eq!(names, expected, "{state}");
    }
    for api in [&reader, &writer] {
        api.get("/v1/images/open/versions?state=deleted").await.problem(400, "invalid");
        api.get("/v1/images/open/versions?state=").await.problem(400, "invalid");
    }
}

/// What a list holds, read one by one.
async fn one_by_one(api: &Api, path: &str, member: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("{path}?limit=1{cursor}")).await.ok();
        let items = page[member].as_array().expect("items");
        assert!(items.len() <= 1, "{page}");
        all.extend(items.iter().cloned());
        match page.get("next_cursor") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().expect("a cursor")),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_can_be_read_piece_by_piece() {
    let server = Server::start();
    let (manager, api) = (server.manager(), server.writer().await);
    api.release("debian", "1.0", b"1").await;
    api.release("debian", "2.0", b"2").await;
    api.draft("alpine", "1.0", b"3").await;
    api.post("/v1/images/alpine/versions/1.0/artifacts", artifact(b"disk", json!({}))).await.created();
    for alias in ["latest", "stable"] {
        api.put(&format!("/v1/images/debian/aliases/{alias}"), json!({"version": "2.0"})).await.ok();
    }
    let principals = manager.get("/v1/auth/principals").await.ok();
    let tokens =
        format!("/v1/auth/principals/{}/api-tokens", principals["principals"][1]["id"].as_str().expect("an id"));
    manager.post(&tokens, json!({"expires_at": "2099-01-01T00:00:00Z"})).await.created();
    for (api, path, member, sorted_by) in [
        (&api, "/v1/images", "images", Some("name")),
        (&api, "/v1/images/debian/versions", "versions", None),
        (&api, "/v1/images/alpine/versions/1.0/artifacts", "artifacts", None),
        (&api, "/v1/images/debian/aliases", "aliases", Some("alias")),
        (&api, "/v1/uploads", "uploads", None),
        (&manager, "/v1/auth/principals", "principals", None),
        (&manager, &tokens, "api_tokens", None),
    ] {
        let whole = api.get(path).await.ok();
        assert_eq!(members(&whole), [member], "{path}");
        let whole = whole[member].as_array().expect("items").clone();
        assert!(whole.len() > 1, "{path}");
        assert_eq!(one_by_one(api, path, member).await, whole, "{path}");
        let large = api.get(&format!("{path}?limit=1000")).await.ok();
        assert_eq!((members(&large), large[member].as_array()), (vec![member], Some(&whole)), "{path}");
        if let Some(name) = sorted_by {
            assert!(whole.iter().map(|one| one[name].as_str().expect("a name")).is_sorted(), "{path}");
        }
        for query in [
            "limit=0",
            "limit=-1",
            "limit=1001",
            "limit=1.5",
            "limit=x",
            "limit=",
            "cursor=",
            "cursor=a%20b",
            "cursor=AAAA",
            "cursor=WyJhIiwiYiIsImMiLCJkIl0",
        ] {
            let refused = api.get(&format!("{path}?{query}")).await;
            let refused = refused.problem(400, "invalid");
            let about = query.split('=').next().expect("a name");
            assert!(
                refused["detail"].as_str().is_some_and(|detail| detail.contains(about)),
                "{path}?{query}: {refused}"
            );
        }
    }
}
