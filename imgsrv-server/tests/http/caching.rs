//! Who may keep an answer, and how a client learns that it has not changed.

use reqwest::Method;
use serde_json::json;

use crate::server::{Server, Who, World, operations, send};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_may_be_kept_and_asked_about_again() {
    let server = Server::start();
    let writer = server.writer().await;
    let released = writer.release("open", "1.0", b"open").await;
    let reader = server.anonymous();
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
}

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
