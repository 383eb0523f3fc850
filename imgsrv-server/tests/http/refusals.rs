//! Bad input gets a problem that a person can act on, and loses nothing.

use std::io::Write;

use reqwest::Method;

use crate::server::{Server, connect, raw, send};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_framework_refuses_is_a_problem_too() {
    let server = Server::start();
    let writer = server.writer().await;
    for path in ["/nowhere", "/v1/images/", "/v1", "/v1/images/a/b/c/d/e"] {
        writer.get(path).await.problem(404, "not-found");
    }
    let wrong = send(writer.request(Method::PATCH, "/v1/images")).await;
    wrong.problem(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), "GET, POST, HEAD");

    let json_body = |body: &'static str| {
        writer.request(Method::POST, "/v1/images").header("content-type", "application/json").body(body)
    };
    for body in [
        "",
        "{",
        "[]",
        "{\"name\": 1}",
        "{\"name\": \"a\", \"more\": 1}",
        "{\"name\": \"a/b\"}",
        "{\"name\": \"..\"}",
        "{}",
    ] {
        send(json_body(body)).await.problem(400, "invalid");
    }
    let form = writer.request(Method::POST, "/v1/images").header("content-type", "text/plain").body("{\"name\":\"a\"}");
    send(form).await.problem(415, "unsupported-media-type");
    for name in ["..%2f..%2fetc", "%00", "a%2fb", "A", "a%20b", &"a".repeat(129)] {
        writer.get(&format!("/v1/images/{name}")).await.problem(400, "invalid");
    }
    writer.get("/v1/uploads?state=nothing").await.problem(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_of_json_are_not_read() {
    let server = Server::start();
    let writer = server.writer().await;
    let body = vec![b' '; 200 << 20];
    let request = writer.request(Method::POST, "/v1/images").header("content-type", "application/json").body(body);
    // The answer may come before the body is sent, and then sending it fails.
    if let Ok(answer) = request.send().await {
        assert_eq!(answer.status().as_u16(), 413);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 160 << 10, "{peak} kB");
    let chunked = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100_000])));
    let request = writer.request(Method::POST, "/v1/images").header("content-type", "application/json");
    if let Ok(answer) = request.body(reqwest::Body::wrap_stream(chunked)).send().await {
        assert_eq!(answer.status().as_u16(), 413);
    }
    server.anonymous().get("/v1/images").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_are_echoed_when_they_can_be() {
    let server = Server::start();
    let api = server.anonymous();
    let with = |id: &'static str| api.request(Method::GET, "/v1/images").header("x-request-id", id);
    assert_eq!(send(with("my-id_1")).await.header("x-request-id"), "my-id_1");
    for id in ["", "two words", "x".repeat(129).leak()] {
        let fresh = send(with(id)).await.header("x-request-id").to_owned();
        assert_eq!((fresh.len(), fresh.matches('-').count()), (36, 4), "{id:?}: {fresh}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_specification_and_page() {
    let server = Server::start();
    let api = server.anonymous();
    assert_eq!(api.get("/healthz").await.status.as_u16(), 204);
    assert_eq!(api.get("/readyz").await.status.as_u16(), 204);
    assert_eq!(api.get("/openapi.json").await.ok(), imgsrv_server::specification());
    let page = api.get("/docs").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let text = page.text();
    assert!(text.contains("openapi.json"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!text.contains(outside), "{outside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_framing_is_answered_and_a_good_request_follows() {
    let server = Server::start();
    for request in [
        &b"GET /v1/images HTTP/1.0\r\n\r\n"[..],
        b"GET /v1/images HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        assert!(raw(&server, request).starts_with("HTTP/1."), "{}", String::from_utf8_lossy(request));
    }
    for request in [
        &b"NONSENSE\r\n\r\n"[..],
        b"POST /v1/images HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let answer = raw(&server, request);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 505"),
            "{answer}"
        );
    }
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let mut connection = connect(&server);
    connection.write_all(huge.as_bytes()).ok();
    drop(connection);
    server.anonymous().get("/v1/images").await.ok();
}
