//! Bad input gets a problem that a person can act on, and loses nothing.

use std::io::Write;

use reqwest::Method;
use serde_json::json;

use crate::server::{Server, bytes, connect, digest, raw, request, send};

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
    for query in ["limit=0", "limit=-1", "limit=1001", "limit=x", "cursor=%25", "cursor=AAAA"] {
        writer.get(&format!("/v1/images?{query}")).await.problem(400, "invalid");
    }
    writer.get("/v1/uploads?state=nothing").await.problem(400, "invalid");
    writer.get("/v1/publish-jobs/1").await.problem(400, "invalid");
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
async fn bodies_that_end_early_leave_the_session_as_it_was() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(1, 100_000);
    let upload = writer.begin(&whole).await["id"].as_str().expect("an id").to_owned();
    let head = |framing: &str| request(&writer, "PUT", &format!("/v1/uploads/{upload}/parts/1"), &[framing]);
    let half = &whole[..50_000];
    for (framing, body) in [
        ("content-length: 100000", half.to_vec()),
        ("transfer-encoding: chunked", [format!("{:x}\r\n", half.len()).as_bytes(), half, b"\r\n"].concat()),
    ] {
        for reset in [false, true] {
            let mut connection = connect(&server);
            connection.write_all(head(framing).as_bytes()).expect("sent");
            connection.write_all(&body).expect("sent");
            if reset {
                // Closing with unread bytes or lingering off resets the connection.
                rustix::net::sockopt::set_socket_linger(&connection, Some(std::time::Duration::ZERO)).expect("linger");
            }
            drop(connection);
            let session = writer.get(&format!("/v1/uploads/{upload}")).await.ok();
            assert_eq!((&session["state"], &session["received_bytes"]), (&json!("created"), &json!(0)), "{framing}");
        }
    }
    let part = writer.put_part(&upload, 1, whole).await.ok();
    assert_eq!(writer.complete(&upload, &[part]).await.ok()["state"], "ready");
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

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_cannot_be() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(2, 1000);
    let upload = writer.begin(&whole).await["id"].as_str().expect("an id").to_owned();
    for number in ["0", "10001", "x", "-1"] {
        let path = format!("/v1/uploads/{upload}/parts/{number}");
        send(writer.request(Method::PUT, &path).body("x")).await.problem(400, "invalid");
    }
    let path = format!("/v1/uploads/{upload}/parts/1");
    let large = request(&writer, "PUT", &path, &["content-length: 5368709121", "connection: close"]);
    assert!(raw(&server, large.as_bytes()).starts_with("HTTP/1.1 400"), "refused before the body is read");
    let put = |header: &str| {
        writer.request(Method::PUT, &path).header("content-digest", header.to_owned()).body(whole.clone())
    };
    let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    send(put(wrong)).await.problem(412, "digest-mismatch");
    for malformed in ["sha-256=abc", "sha-256=:!!:", "sha-256=:AAAA:"] {
        send(put(malformed)).await.problem(400, "invalid");
    }
    assert_eq!(send(put("md5=:AAAA:")).await.status.as_u16(), 200, "an algorithm that it does not know is ignored");
    let unknown = "00000000-0000-4000-8000-000000000000";
    writer.put_part(unknown, 1, whole.clone()).await.problem(404, "not-found");
    writer.get(&format!("/v1/uploads/{unknown}")).await.problem(404, "not-found");
    writer.post(&format!("/v1/uploads/{upload}/abort"), json!({})).await.ok();
    writer.put_part(&upload, 1, whole.clone()).await.problem(412, "wrong-state");
    writer
        .complete(&upload, &[json!({"part_number": 1, "etag": "x", "size_bytes": 1000})])
        .await
        .problem(412, "wrong-state");
    let promise = |digest: &str, size: i64| json!({"expected_digest": digest, "expected_size_bytes": size});
    for body in [promise("sha256:xyz", 1), promise(&digest(b""), -1), json!({"expected_digest": digest(b"")})] {
        writer.post("/v1/uploads", body).await.problem(400, "invalid");
    }
    writer.upload(&whole).await;
    writer.post("/v1/uploads", promise(&digest(&whole), 999)).await.problem(412, "size-mismatch");
}
