//! Downloads: names and policies, what cannot be sent, and readers that leave.

use std::io::Write;
use std::net::TcpStream;

use reqwest::Method;
use serde_json::json;

use crate::server::{Api, Server, artifact, attachment, bytes, connect, digest, read_until, request, send};

fn download(artifact: &str) -> String {
    format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download")
}

/// A published version of `default` and `cloud` artifacts, both with an attachment; their ids.
async fn released(api: &Api, whole: &[u8]) -> [(String, String); 2] {
    api.upload(whole).await;
    api.post("/v1/images", json!({"name": "debian"})).await.created();
    api.post("/v1/images/debian/versions", json!({"version": "1:0"})).await.created();
    let mut ids = Vec::new();
    for variant in ["default", "cloud"] {
        let path = "/v1/images/debian/versions/1:0/artifacts";
        let artifact = api.add(path, artifact(whole, json!({ "variant": variant }))).await;
        let notes = attachment("notes.txt", "text/html", whole);
        let attachment = api.add(&format!("{path}/{artifact}/attachments"), notes).await;
        ids.push((artifact, attachment));
    }
    assert_eq!(api.publish("debian", "1:0").await["state"], "succeeded");
    ids.try_into().expect("two")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_the_bytes_says_what_they_are() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(1, 1000);
    let [(plain, attachment), (cloud, other)] = released(&writer, &whole).await;
    let reader = server.anonymous();
    let base = "/v1/images/debian/versions/1:0/artifacts";
    let blob = format!("/v1/blobs/{}", digest(&whole));
    for (path, media_type, name) in [
        (format!("{base}/{plain}/download"), "application/x-qemu-disk", "debian-1_0-linux-amd64.qcow2"),
        (format!("{base}/{cloud}/download"), "application/x-qemu-disk", "debian-1_0-linux-amd64-cloud.qcow2"),
        (format!("{base}/{plain}/attachments/{attachment}/download"), "text/html", "notes.txt"),
        (blob.clone(), "application/octet-stream", digest(&whole).trim_start_matches("sha256:")),
    ] {
        for api in [&reader, &writer] {
            let answer = api.get(&path).await;
            assert_eq!((answer.status.as_u16(), answer.body == whole), (200, true), "{path}");
            assert_eq!(answer.header("content-type"), media_type, "{path}");
            assert_eq!(answer.header("content-disposition"), format!("attachment; filename=\"{name}\""), "{path}");
            assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable", "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(answer.header("vary"), if path == blob { "Authorization" } else { "" }, "{path}");
        }
        let (whole_answer, part) = (reader.get(&path).await, reader.get_with(&path, &[("range", "bytes=1-2")]).await);
        assert_eq!(part.status.as_u16(), 206);
        for header in [
            "etag",
            "last-modified",
            "cache-control",
            "content-type",
            "accept-ranges",
            "repr-digest",
            "content-disposition",
            "x-content-type-options",
        ] {
            assert!(
                !part.header(header).is_empty() && part.header(header) == whole_answer.header(header),
                "{path} {header}"
            );
        }
        let head = reader.head(&path).await;
        for header in [
            "etag",
            "last-modified",
            "cache-control",
            "content-type",
            "accept-ranges",
            "repr-digest",
            "content-disposition",
            "content-length",
        ] {
            assert_eq!(head.header(header), whole_answer.header(header), "{path} {header}");
        }
        let unchanged = reader.get_with(&path, &[("if-none-match", head.header("etag"))]).await;
        for header in ["etag", "last-modified", "cache-control", "vary"] {
            assert_eq!(unchanged.header(header), whole_answer.header(header), "{path} {header}");
        }
        let head = send(reader.request(Method::HEAD, &path).header("if-none-match", "*")).await;
        assert_eq!(head.status.as_u16(), 304);
        let weak = format!("W/{}", unchanged.header("etag"));
        assert_eq!(reader.get_with(&path, &[("if-range", &weak), ("range", "bytes=0-1")]).await.status.as_u16(), 200);
        let none = reader.get_with(&path, &[("if-range", "\"other\""), ("range", "bytes=5000-")]).await;
        assert_eq!(none.status.as_u16(), 200, "a range that does not count cannot be unsatisfiable");
    }
    // Each of them there, but not together.
    for foreign in [format!("{base}/{plain}/attachments/{other}/download"), format!("{base}/{attachment}/download")] {
        reader.get(&foreign).await.problem(404, "not-found");
    }
    reader
        .get(&format!("/v1/images/debian/versions/1:0/artifacts/{plain}/attachments/x/download"))
        .await
        .problem(400, "invalid");
    for digest in ["sha256:", "x", "sha256%3a00", &digest(b"").to_uppercase()] {
        reader.get(&format!("/v1/blobs/{digest}")).await.problem(400, "invalid");
    }
    reader.get(&format!("/v1/blobs/{}", digest(b"never sent"))).await.problem(404, "not-found");

    writer.upload(b"kept back").await;
    let secret = format!("/v1/blobs/{}", digest(b"kept back"));
    for api in [&reader, &server.manager()] {
        api.get(&secret).await.problem(404, "not-found");
    }
    let unpublished = writer.get(&secret).await;
    assert_eq!(
        (unpublished.status.as_u16(), unpublished.header("cache-control"), unpublished.header("vary")),
        (200, "private, no-store", "Authorization")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_object_is_told_before_anything_is_sent() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(2, 10_000);
    let artifact = writer.release("debian", "1.0", &whole).await;
    let hex = digest(&whole).trim_start_matches("sha256:").to_owned();
    server.folder.lose(&whole);
    let reader = server.anonymous();
    for path in [download(&artifact), format!("/v1/blobs/{}", digest(&whole))] {
        let refused = reader.get(&path).await;
        let problem = refused.problem(503, "unavailable");
        assert!(!problem.to_string().contains(&hex[..2]) || !problem.to_string().contains("blobs/sha256"), "{problem}");
        assert_eq!(refused.header("etag"), "", "no cache may take it for the bytes");
        reader.get_with(&path, &[("range", "bytes=9999-")]).await.problem(503, "unavailable");
    }
}

/// Asks for a download and reads its headers; the rest waits in the connection.
fn begin(server: &Server, path: &str) -> TcpStream {
    let mut connection = connect(server);
    let get = request(&server.anonymous(), "GET", path, &["connection: close"]);
    connection.write_all(get.as_bytes()).expect("sent");
    assert!(read_until(&mut connection, "\r\n\r\n").starts_with("HTTP/1.1 200 "));
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_leave_take_nothing_with_them() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(4, 8 << 20);
    let artifact = writer.release("debian", "1.0", &whole).await;
    for _ in 0..50 {
        drop(begin(&server, &download(&artifact)));
    }
    let sockets = || {
        let folder = format!("/proc/{}/fd", server.pid());
        let links =
            std::fs::read_dir(folder).expect("files").filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("blobs/sha256")).count()
    };
    while sockets() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(server.anonymous().get(&download(&artifact)).await.body == whole);
}
