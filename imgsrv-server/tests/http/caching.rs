//! Who may keep an answer, and how a client learns that it has not changed.

use reqwest::Method;
use serde_json::json;

use crate::server::{Server, Who, World, operations, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_head_says_what_a_get_would() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    for operation in operations().iter().filter(|operation| operation.method == Method::GET) {
        let path = operation.at(|name| world.value(name));
        let api = if operation.who == Who::Managers { &manager } else { &writer };
        let (get, head) = (api.get(&path).await, api.head(&path).await);
        assert!(get.status.is_success(), "{path}: {}", get.text());
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for header in ["content-type", "etag", "cache-control", "vary"] {
            assert_eq!(head.header(header), get.header(header), "HEAD {path}: {header}");
        }
        // The length may be left out of the answer to a HEAD, but not be another (RFC 9110 §9.3.2).
        assert!(["", get.header("content-length")].contains(&head.header("content-length")), "HEAD {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_opens_is_kept_by_nobody() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    for operation in operations().iter().filter(|operation| operation.method == Method::GET) {
        let path = operation.at(|name| world.value(name));
        let api = if operation.who == Who::Managers { &manager } else { &writer };
        let answer = api.get(&path).await;
        let (policy, vary) = (answer.header("cache-control"), answer.header("vary").to_lowercase());
        match (operation.who, operation.id.as_str()) {
            // Published, though a writer asks for it: the bytes are the same for all.
            (_, "read_blob") => {
                assert_eq!((policy, vary.as_str()), ("public, max-age=31536000, immutable", "authorization"));
            }
            (Who::Readers | Who::Writers | Who::Managers, _) => {
                assert_eq!((policy, vary.as_str()), ("private, no-store", "authorization"), "{path}");
            }
            // Whoever knows the id may look, and nobody else.
            (Who::Anybody, "get_upload") => assert_eq!(policy, "private, no-store"),
            (Who::Anybody, "check_health" | "check_readiness") => assert!(policy.contains("no-store"), "{path}"),
            (Who::Anybody, id) if id.starts_with("download_") => {
                assert_eq!((policy, vary.as_str()), ("public, max-age=31536000, immutable", ""), "{path}");
            }
            (Who::Anybody, "list_files") => assert_eq!((policy, vary.as_str()), ("no-cache", "accept"), "{path}"),
            (Who::Anybody, id) if id.starts_with("get_streams_") => {
                assert_eq!((policy, vary.as_str()), ("no-cache", "accept-encoding"), "{path}");
            }
            (Who::Anybody, _) => assert_eq!((policy, vary.as_str()), ("no-cache", ""), "{path}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_may_be_kept_and_asked_about_again() {
    let server = Server::start();
    let world = World::make(&server).await;
    let reader = server.anonymous();
    let open = operations().into_iter().filter(|operation| operation.method == Method::GET && operation.who.is_open());
    let mut paths: Vec<_> =
        open.map(|operation| (operation.who, operation.id.clone(), operation.at(|name| world.value(name)))).collect();
    for (who, path) in
        [(Who::Readers, "/v1/images/debian/versions?state=published"), (Who::Anybody, "/v1/images/debian/refs/1.0")]
    {
        paths.push((who, String::new(), path.to_owned()));
    }
    for (who, id, path) in paths {
        let first = reader.get(&path).await;
        let policy = match id.as_str() {
            "get_upload" | "check_health" | "check_readiness" => "private, no-store",
            "read_blob" | "download_artifact" | "download_attachment" | "download_file" => {
                "public, max-age=31536000, immutable"
            }
            _ => "no-cache",
        };
        assert_eq!(first.header("cache-control"), policy, "{path}");
        if policy == "private, no-store" {
            continue; // What nobody keeps needs no validator.
        }
        let vary = match id.as_str() {
            "list_files" => "accept",
            "get_streams_index" | "get_streams_images" => "accept-encoding",
            _ if who == Who::Readers => "authorization",
            _ => "",
        };
        assert_eq!(first.header("vary").to_lowercase(), vary, "{path}");
        let etag = first.header("etag");
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "{path}: {etag}");
        for condition in [etag, &format!("W/{etag}"), &format!("\"other\", {etag}"), "*"] {
            for method in [Method::GET, Method::HEAD] {
                let again = send(reader.request(method, &path).header("if-none-match", condition)).await;
                assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path} {condition}");
                for header in ["etag", "cache-control", "vary", "last-modified"] {
                    assert_eq!(again.header(header), first.header(header), "{path} {header}");
                }
            }
        }
        let other = reader.get_with(&path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!((other.status.as_u16(), other.body == first.body), (200, true), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_has_another_etag() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    writer.release("debian", "1.0", b"one").await;
    writer.put("/v1/images/debian/aliases/latest", json!({"version": "1.0"})).await.ok();
    let aliased = ["/v1/images/debian/aliases", "/v1/images/debian/aliases/latest", "/v1/images/debian/refs/latest"];
    let listed = ["/v1/images/debian/versions", "/v1/images/debian"];
    let mut etags = Vec::new();
    for path in aliased.iter().chain(&listed) {
        etags.push((*path, reader.get(path).await.header("etag").to_owned()));
    }
    let manifest = reader.get("/v1/images/debian/versions/1.0").await;
    writer.release("debian", "2.0", b"two").await;
    writer.put("/v1/images/debian/aliases/latest", json!({"version": "2.0"})).await.ok();
    for (path, etag) in etags {
        let answer = reader.get_with(path, &[("if-none-match", &etag)]).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_ne!(answer.header("etag"), etag, "{path}");
    }
    let images = reader.get("/v1/images").await.header("etag").to_owned();
    writer.release("alpine", "1.0", b"three").await;
    assert_eq!(reader.get_with("/v1/images", &[("if-none-match", &images)]).await.status, 200);
    let same = [("if-none-match", manifest.header("etag"))];
    assert_eq!(reader.get_with("/v1/images/debian/versions/1.0", &same).await.status, 200, "its image has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_insists_on_other_bytes_gets_none() {
    let server = Server::start();
    let artifact = server.writer().await.release("debian", "1.0", b"disk").await;
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    let reader = server.anonymous();
    let answer = reader.get(&path).await;
    let (etag, modified) = (answer.header("etag").to_owned(), answer.header("last-modified").to_owned());
    for condition in [("if-match", etag.as_str()), ("if-match", "*"), ("if-unmodified-since", &modified)] {
        assert_eq!(reader.get_with(&path, &[condition]).await.body, b"disk", "{condition:?}");
    }
    for condition in [("if-match", "\"x\""), ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")] {
        let refused = reader.get_with(&path, &[condition, ("range", "bytes=0-1")]).await;
        refused.problem(412, "precondition-failed");
    }
}
