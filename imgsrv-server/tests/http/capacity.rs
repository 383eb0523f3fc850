//! As many transfers at once as the server takes, and one more.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::server::{Answer, Api, Folder, Server, bytes, connect, id, raw, read_until, request, until};

/// Small numbers, and different ones, so that it shows which of them counts.
fn start() -> Server {
    Server::start_in(Folder::new(), &["--max-uploads", "2", "--max-downloads", "3"])
}

#[track_caller]
fn is_full(answer: &Answer, of: &str) {
    let problem = answer.problem(503, "unavailable");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(of)), "{problem}");
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
}

const SIZE: usize = 100_000;

/// Sends the head of a request; the connection, if the answer begins with this status.
fn begin(server: &Server, head: &str, status: u16) -> Option<TcpStream> {
    let mut connection = connect(server);
    connection.write_all(head.as_bytes()).expect("sent");
    read_until(&mut connection, "\r\n\r\n").starts_with(&format!("HTTP/1.1 {status} ")).then_some(connection)
}

/// A part of which nothing but the head has been sent, and taken.
fn begin_part(server: &Server, api: &Api, upload: &str) -> Option<TcpStream> {
    let lines = [&format!("content-length: {SIZE}"), "expect: 100-continue"];
    begin(server, &request(api, "PUT", &format!("/v1/uploads/{upload}/parts/1"), &lines), 100)
}

/// A download of which nothing but the beginning has been taken.
fn begin_download(server: &Server, path: &str) -> Option<TcpStream> {
    begin(server, &request(&server.anonymous(), "GET", path, &["connection: close"]), 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_too_many_is_refused_and_the_next_one_is_taken() {
    let server = start();
    let api = server.writer().await;
    let artifact = api.release("debian", "1.0", b"small").await;
    let contents: Vec<_> = (1..=4).map(|seed| bytes(seed, SIZE)).collect();
    let mut uploads = Vec::new();
    for content in &contents {
        uploads.push(id(&api.begin(content).await));
    }
    let mut first = begin_part(&server, &api, &uploads[0]).expect("a place");
    let second = begin_part(&server, &api, &uploads[1]).expect("a place");

    is_full(&api.put_part(&uploads[2], 1, contents[2].clone()).await, "2 uploads");
    let path = format!("/v1/uploads/{}/parts/1", uploads[2]);
    let lines = ["content-length: 100000", "expect: 100-continue", "connection: close"];
    let refused = raw(&server, request(&api, "PUT", &path, &lines).as_bytes());
    assert!(refused.starts_with("HTTP/1.1 503 "), "before the body is asked for: {refused}");
    // Who may not, or asks for what cannot be, is told that.
    server.anonymous().put_part(&uploads[2], 1, vec![0]).await.problem(401, "unauthorized");
    api.put_part(&uploads[2], 0, vec![0]).await.problem(400, "invalid");
    everything_else_works(&api, &artifact).await;

    first.write_all(&contents[0]).expect("the body");
    assert!(read_until(&mut first, "\r\n\r\n").starts_with("HTTP/1.1 200 "));
    api.put_part(&uploads[2], 1, contents[2].clone()).await.ok();
    // A client that vanishes gives its place back too.
    drop(second);
    until("both places are free", async || {
        let both = [2, 3].map(|at| begin_part(&server, &api, &uploads[at]));
        both.iter().all(Option::is_some)
    })
    .await;
    server.stop();
}

/// Lists and documents take no place, nor does making something.
async fn everything_else_works(api: &Api, artifact: &str) {
    api.get("/v1/images/debian/versions/1.0").await.ok();
    api.get(&format!("/v1/images/debian/versions/1.0/artifacts/{artifact}")).await.ok();
    api.get("/v1/images").await.ok();
    api.get("/d/debian/1.0/").await.ok();
    assert_eq!(api.get("/d/debian/1.0/SHA256SUMS").await.status, 200);
    api.get("/readyz").await.no_content();
    let name = format!("image-{}", fastrand::u32(..));
    api.post("/v1/images", json!({ "name": name })).await.created();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_too_many_is_refused_and_the_next_one_is_sent() {
    let server = start();
    let writer = server.writer().await;
    // More than sockets take.
    let whole = bytes(5, 32 << 20);
    let artifact = writer.release("debian", "1.0", &whole).await;
    let digest = writer.upload(&whole).await;
    let api = server.anonymous();
    let download = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    let named = "/d/debian/1.0/debian-1.0-linux-amd64.raw".to_owned();
    let mut first = begin_download(&server, &download).expect("a place");
    let second = begin_download(&server, &format!("/v1/blobs/{digest}")).expect("a place");
    let third = begin_download(&server, &named).expect("a place");

    let of_bytes = [download.clone(), format!("/v1/blobs/{digest}"), named];
    let streams = "/streams/v1/images.json".to_owned();
    for path in of_bytes.iter().chain([&streams]) {
        is_full(&api.get(path).await, "3 downloads");
        assert_eq!(api.head(path).await.status, 200, "{path}");
    }
    let etag = api.head(&streams).await.header("etag").to_owned();
    assert_eq!(api.get_with(&streams, &[("if-none-match", &etag)]).await.status, 304);
    for path in &of_bytes {
        is_full(&api.get_with(path, &[("range", "bytes=0-0")]).await, "3 downloads");
        assert_eq!(api.get_with(path, &[("if-none-match", "*")]).await.status, 304);
        assert_eq!(api.get_with(path, &[("range", "bytes=99999999-")]).await.status, 416);
        assert_eq!(api.get_with(path, &[("if-match", "\"x\"")]).await.status, 412);
    }
    api.get(&format!("{download}x")).await.problem(404, "not-found");
    api.get("/d/debian/2.0/x").await.problem(404, "not-found");
    everything_else_works(&writer, &artifact).await;
    writer.upload(b"uploads have places of their own").await;

    let mut received = Vec::new();
    first.read_to_end(&mut received).expect("the rest");
    assert!(received == whole, "what was begun is not disturbed");
    until("its place is free", async || api.get(&download).await.status == 200).await;
    drop((second, third));
    until("those who vanished have left their places", async || {
        let all = [&download; 3].map(|path| begin_download(&server, path));
        all.iter().all(Option::is_some)
    })
    .await;
    server.stop();
}
