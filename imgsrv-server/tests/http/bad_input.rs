//! Bodies that break a rule: refused, whatever they are out for.

use reqwest::Method;
use serde_json::json;

use crate::server::{Api, Server, raw, request, send};

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_out_to_harm_is_refused() {
    let server = Server::start();
    let writer = server.writer().await;
    let post = |body: Vec<u8>| {
        writer.request(Method::POST, "/v1/images").header("content-type", "application/json").body(body)
    };
    for body in [
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"{\"name\": 1}".to_vec(),
        b"{\"name\": \"a\", \"more\": 1}".to_vec(),
        b"{\"name\": \"a/b\"}".to_vec(),
        b"{\"name\": \"..\"}".to_vec(),
        b"{\"name\": \"\xff\"}".to_vec(),
        b"\xef\xbb\xbf".to_vec(),
        b"{\"name\": \"a\\u0000\"}".to_vec(),
        b"{\"name\": \"\\ud800\"}".to_vec(),
        b"{\"name\": \"a\"} {}".to_vec(),
        b"{\"name\": \"a\", \"display_name\": \"x\\u0000\"}".to_vec(),
        b"{\"name\": 1e999}".to_vec(),
        [vec![b'['; 500_000], vec![b']'; 500_000]].concat(),
        "{\"name\":".repeat(100_000).into_bytes(),
    ] {
        send(post(body)).await.problem(400, "invalid");
    }
    let uploads =
        |size: &str| format!("{{\"expected_digest\": \"sha256:{}\", \"expected_size_bytes\": {size}}}", "0".repeat(64));
    for size in ["9223372036854775808", "-1", "1.5", "1e3", "\"1\"", "null", "true"] {
        let request = writer.request(Method::POST, "/v1/uploads").header("content-type", "application/json");
        send(request.body(uploads(size))).await.problem(400, "invalid");
    }
    assert_eq!(writer.get("/v1/images").await.ok()["images"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_may_have_a_megabyte_and_not_one_byte_more() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let body = |size: usize| {
        let start = "{\"name\": \"large\"";
        format!("{start}{}}}", " ".repeat(size - start.len() - 1))
    };
    let post = |content_type: &'static str, body: String| {
        send(writer.request(Method::POST, "/v1/images").header("content-type", content_type).body(body))
    };
    assert_eq!(post("application/json", body(1 << 20)).await.status, 201);
    assert_eq!(post("application/json; charset=utf-8", "{\"name\": \"a\"}".to_owned()).await.status, 201);
    for other in
        ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "application/jsonx", "nonsense"]
    {
        post(other, "{\"name\": \"b\"}".to_owned()).await.problem(415, "unsupported-media-type");
    }
    let bare = send(writer.request(Method::POST, "/v1/images").body("{\"name\": \"b\"}")).await;
    assert!([400, 415].contains(&bare.status.as_u16()), "{}", bare.text());
    // Just what is read is sent: bytes that nobody reads may cost the client the answer.
    let head = |api: &Api, framing: &str| {
        request(api, "POST", "/v1/images", &["content-type: application/json", "connection: close", framing])
    };
    let declared = raw(&server, head(&writer, "content-length: 1048577").as_bytes());
    assert!(declared.starts_with("HTTP/1.1 413 ") && declared.contains("urn:imgsrv:problem:too-large"), "{declared}");
    // Whose right is missing is told that, not how large a body may be.
    let nobody = raw(&server, head(&manager, "content-length: 1048577").as_bytes());
    assert!(nobody.starts_with("HTTP/1.1 403 "), "{nobody}");
    let chunk = format!("100001\r\n{}\r\n", " ".repeat((1 << 20) + 1));
    let chunked = raw(&server, [head(&writer, "transfer-encoding: chunked"), chunk].concat().as_bytes());
    assert!(chunked.starts_with("HTTP/1.1 413 "), "{chunked}");
    writer.get("/v1/images/b").await.problem(404, "not-found");
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
