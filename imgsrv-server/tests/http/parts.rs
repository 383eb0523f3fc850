//! Parts: what a session takes and what it refuses, and how a client goes on after a break.

use std::io::Write;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::server::{Api, Server, bytes, connect, digest, id, members, raw, read_until, request, send, unknown};

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_a_number_and_a_size_within_limits() {
    let server = Server::start();
    let api = server.writer().await;
    let upload = id(&api.begin(b"x").await);
    for number in [0, 10_001] {
        api.put_part(&upload, number, "x").await.problem(400, "invalid");
    }
    let path = format!("/v1/uploads/{upload}/parts/1");
    api.put_part(&upload, 10_000, "x").await.ok();
    api.put_part(&unknown("upload_id"), 1, "x").await.problem(404, "not-found");
    let large = request(&api, "PUT", &path, &["content-length: 5368709121", "connection: close"]);
    assert!(raw(&server, large.as_bytes()).starts_with("HTTP/1.1 400 "), "refused before the body is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_checked_against_the_digest_sent_with_it() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(7, 1000);
    let upload = id(&api.begin(&whole).await);
    let put = |value: &str| {
        let request = api.request(Method::PUT, &format!("/v1/uploads/{upload}/parts/1"));
        send(request.header("content-digest", value).body(whole.clone()))
    };
    let of = |bytes: &[u8]| format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)));
    put(&of(b"other")).await.problem(412, "digest-mismatch");
    assert_eq!(api.get(&format!("/v1/uploads/{upload}")).await.ok()["state"], "created");
    for malformed in ["sha-256=abc", "sha-256=:!!:", "sha-256=:AAAA:", "sha-256=:AAAA"] {
        put(malformed).await.problem(400, "invalid");
    }
    assert_eq!(put("md5=:AAAA:").await.status, 200, "an algorithm that it does not know is ignored");
    put(&format!("sha-512=:AAAA:, {}", of(&whole))).await.ok();
    let stored = api.get(&format!("/v1/uploads/{upload}/parts")).await.ok();
    assert_eq!(members(&stored["parts"][0]), ["etag", "number", "sha256", "size_bytes"]);
    assert_eq!(stored["parts"][0]["sha256"], digest(&whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_part_are_taken_whatever_their_type() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(16, 1000);
    let upload = id(&api.begin(&whole).await);
    let put = || api.request(Method::PUT, &format!("/v1/uploads/{upload}/parts/1")).body(whole.clone());
    let plain = send(put()).await.ok();
    for media_type in ["application/json", "text/plain; charset=utf-8", "multipart/form-data", "nonsense", ""] {
        let typed = send(put().header("content-type", media_type)).await.ok();
        assert_eq!(typed["etag"], plain["etag"], "{media_type:?}: the same bytes have the same etag");
    }
    assert_eq!(api.complete(&upload, &[plain]).await.ok()["state"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_no_more_than_it_expects() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(6, 1000);
    let upload = id(&api.begin(&whole).await);
    let first = api.put_part(&upload, 1, whole[..600].to_vec()).await.ok();
    api.put_part(&upload, 2, whole[..401].to_vec()).await.problem(412, "size-mismatch");
    // Without a length it shows at the first byte that is too many, long before the end of this body.
    let endless = Body::wrap_stream(futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 1000])));
    let sent = api.request(Method::PUT, &format!("/v1/uploads/{upload}/parts/2")).body(endless).send().await;
    if let Ok(answer) = sent {
        assert_eq!(answer.status().as_u16(), 412);
    }
    let stored = api.get(&format!("/v1/uploads/{upload}/parts")).await.ok();
    assert_eq!(members(&stored), ["parts", "received_bytes"]);
    let mut one = members(&stored["parts"][0]);
    // Left out where nobody computed it.
    one.retain(|member| *member != "sha256" || stored["parts"][0]["sha256"] != digest(&whole[..600]));
    assert_eq!(one, ["etag", "number", "size_bytes"], "{stored}");
    assert_eq!((&stored["received_bytes"], stored["parts"].as_array().map(Vec::len)), (&json!(600), Some(1)));
    assert_eq!((&stored["parts"][0]["number"], &stored["parts"][0]["etag"]), (&json!(1), &first["etag"]));
    // A repeated part is counted once.
    let again = api.put_part(&upload, 1, whole.clone()).await.ok();
    assert_ne!(again["etag"], first["etag"]);
    let stale = api.complete(&upload, &[first]).await.problem(412, "part-mismatch");
    assert_eq!(stale["errors"][0]["field"], "parts/1");
    let done = api.complete(&upload, &[again]).await.ok();
    assert!(["completed", "ready"].contains(&done["state"].as_str().expect("a state")), "{done}");
    assert_eq!(api.wait_for_upload(&upload).await["state"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_continue_is_told_before_it_sends() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(8, 1000);
    let upload = id(&api.begin(&whole).await);
    let head = |number: u32, api: &Api| {
        let lines = ["content-length: 1000", "expect: 100-continue", "connection: close"];
        request(api, "PUT", &format!("/v1/uploads/{upload}/parts/{number}"), &lines)
    };
    let nobody = server.client(Some("nothing".to_owned()));
    let mut connection = connect(&server);
    connection.write_all(head(1, &api).as_bytes()).expect("sent");
    assert!(read_until(&mut connection, "\r\n\r\n").starts_with("HTTP/1.1 100 "));
    connection.write_all(&whole).expect("sent");
    assert!(read_until(&mut connection, "\r\n\r\n").starts_with("HTTP/1.1 200 "));
    for (number, api, status) in [(0, &api, 400), (1, &nobody, 401)] {
        let mut connection = connect(&server);
        connection.write_all(head(number, api).as_bytes()).expect("sent");
        let answer = read_until(&mut connection, "\r\n\r\n");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "without asking for the body: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_leaves_the_session_as_it_was() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(1, 100_000);
    let upload = id(&writer.begin(&whole).await);
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
                rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO)).expect("linger");
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
async fn after_a_break_only_what_is_missing_is_sent() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(7, (20 << 20) + 5);
    let upload = id(&writer.begin(&whole).await);
    let chunks: Vec<Vec<u8>> = whole.chunks(5 << 20).map(<[u8]>::to_vec).collect();
    let sent = futures_util::future::join_all([4, 3, 1].map(|number: u32| {
        let (writer, upload, chunk) = (writer.clone(), upload.clone(), chunks[number as usize - 1].clone());
        async move { writer.put_part(&upload, number, chunk).await.ok() }
    }))
    .await;
    assert_eq!(sent[0]["part_number"], 4);

    let found = writer.get(&format!("/v1/uploads?expected_digest={}&state=uploading", digest(&whole))).await.ok();
    assert_eq!(found["uploads"][0]["id"], json!(upload), "a rerun finds its session");
    let stored = writer.get(&format!("/v1/uploads/{upload}/parts")).await.ok();
    assert_eq!(stored["received_bytes"], 15 << 20);
    let mut parts: Vec<Value> = Vec::new();
    for part in stored["parts"].as_array().expect("parts") {
        parts.push(json!({"part_number": part["number"], "etag": part["etag"], "size_bytes": part["size_bytes"]}));
    }
    // The same part twice at once: both are answered, one counts.
    let (one, two) =
        tokio::join!(writer.put_part(&upload, 2, chunks[1].clone()), writer.put_part(&upload, 2, chunks[1].clone()));
    assert_eq!(one.ok()["etag"], two.ok()["etag"]);
    parts.push(one.json());
    let stale = writer.put_part(&upload, 5, vec![0; 5]).await.ok();
    parts.push(stale);
    writer.put_part(&upload, 5, chunks[4].clone()).await.ok();
    let refused = writer.complete(&upload, &parts).await.problem(412, "part-mismatch");
    assert_eq!(refused["errors"][0]["field"], "parts/5", "{refused}");
    parts.pop();
    parts.push(writer.put_part(&upload, 5, chunks[4].clone()).await.ok());
    let completed = writer.complete(&upload, &parts).await.ok();
    assert_eq!(completed["state"], "completed");
    assert_eq!(writer.wait_for_upload(&upload).await["state"], "ready");
}
