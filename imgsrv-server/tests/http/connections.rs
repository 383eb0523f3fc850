//! Bad luck below HTTP: what is no request, or half of one, harms nobody else.

use std::io::Write;

use serde_json::json;

use crate::server::{Server, connect, half_closed, raw, request};

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_stand_in_line_are_answered_in_order() {
    let server = Server::start();
    let get = |path: &str, connection: &str| {
        request(&server.anonymous(), "GET", path, &[&format!("x-request-id: {path}"), connection])
    };
    let stay = "connection: keep-alive";
    let line = [get("/healthz", stay), get("/nowhere", stay), get("/v1/images", "connection: close")].concat();
    let answers = raw(&server, line.as_bytes());
    let found: Vec<_> =
        ["204", "404", "200"].iter().map(|status| answers.find(&format!("HTTP/1.1 {status} "))).collect();
    assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{answers}");
    let ids: Vec<_> =
        ["/healthz", "/nowhere", "/v1/images"].iter().map(|id| answers.find(&format!("x-request-id: {id}"))).collect();
    assert!(ids.iter().all(Option::is_some) && ids.is_sorted(), "{answers}");

    let old = raw(&server, b"GET /v1/images HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 ") && old.ends_with("{\"images\":[]}"), "{old}");
    let absolute = raw(&server, b"GET http://x/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(absolute.starts_with("HTTP/1.1 204 "), "{absolute}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_the_next_one_is_answered() {
    let server = Server::start();
    let writer = server.writer().await;
    let post = |framing: &str, body: &str| {
        let lines = ["content-type: application/json", "connection: close", framing];
        request(&writer, "POST", "/v1/images", &lines) + body
    };
    let header = format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {}\r\n\r\n", "x".repeat(1 << 20));
    let headers = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(5000));
    let line = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(1 << 20));
    for sent in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: \0\r\n\r\n",
        b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n",
        header.as_bytes(),
        headers.as_bytes(),
        line.as_bytes(),
        post("content-length: 14\r\ncontent-length: 15", "{\"name\":\"a-1\"}").as_bytes(),
        post("content-length: -1", "{}").as_bytes(),
        post("content-length: 99999999999999999999999", "{}").as_bytes(),
        post("transfer-encoding: gzip", "{}").as_bytes(),
        post("transfer-encoding: chunked", "x\r\n{}\r\n0\r\n\r\n").as_bytes(),
        post("transfer-encoding: chunked", "FFFFFFFFFFFFFFFFF\r\n{}").as_bytes(),
    ] {
        let answer = half_closed(&server, sent);
        let shown = String::from_utf8_lossy(&sent[..sent.len().min(80)]).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{shown:?}: {answer}");
        assert_eq!(server.anonymous().get("/healthz").await.status, 204, "after {shown:?}");
    }
    // Of these the server knows without being told that no more comes.
    for sent in [
        &b"NONSENSE\r\n\r\n"[..],
        b"POST /v1/images HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let answer = raw(&server, sent);
        let refused = ["HTTP/1.1 400 ", "HTTP/1.1 505 "].iter().any(|status| answer.starts_with(status));
        assert!(answer.is_empty() || refused, "{answer}");
    }
    connect(&server).write_all(header.as_bytes()).ok();
    server.anonymous().get("/v1/images").await.ok();
    // Of both framings the chunks count (RFC 9112 §6.3), or neither: never the length, which would smuggle a request.
    let both = "content-length: 4\r\ntransfer-encoding: chunked";
    let answer = half_closed(&server, post(both, "e\r\n{\"name\":\"b-1\"}\r\n0\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_leave_at_every_byte_of_a_request() {
    let server = Server::start();
    let writer = server.writer().await;
    let body = "{\"name\":\"left\"}";
    let length = format!("content-length: {}", body.len());
    let whole = request(&writer, "POST", "/v1/images", &["content-type: application/json", &length]) + body;
    for end in (0..whole.len()).step_by(7) {
        connect(&server).write_all(&whole.as_bytes()[..end]).expect("sent");
    }
    writer.get("/v1/images/left").await.problem(404, "not-found");
    // Whoever leaves with the last byte may have made the image, and may ask again.
    connect(&server).write_all(whole.as_bytes()).expect("sent");
    let again = writer.post("/v1/images", json!({"name": "left"})).await;
    assert!([201, 409].contains(&again.status.as_u16()), "{}", again.text());
    assert_eq!(writer.get("/v1/images").await.ok()["images"].as_array().map(Vec::len), Some(1));
}
