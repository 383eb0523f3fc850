//! Reading what is published: bytes by ranges and conditions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::server::{Server, bytes, digest, send};

fn download(image: &str, artifact: &str) -> String {
    format!("/v1/images/{image}/versions/1.0/artifacts/{artifact}/download")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_says_all_about_itself() {
    let server = Server::start();
    let whole = bytes(1, 100_000);
    let artifact = server.writer().await.release("debian", "1.0", &whole).await;
    let reader = server.anonymous();
    let answer = reader.get(&download("debian", &artifact)).await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &whole));
    let hash = STANDARD.encode(Sha256::digest(&whole));
    for (name, value) in [
        ("accept-ranges", "bytes"),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("etag", &format!("\"{}\"", digest(&whole))),
        ("content-length", "100000"),
        ("content-type", "application/octet-stream"),
        ("repr-digest", &format!("sha-256=:{hash}:")),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("content-disposition").contains("filename"), "{}", answer.header("content-disposition"));
    let modified = answer.header("last-modified").to_owned();
    assert!(modified.ends_with(" GMT"), "{modified}");

    let head = send(reader.request(Method::HEAD, &download("debian", &artifact)).header("range", "bytes=0-9")).await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.len()), (200, "100000", 0));
    for name in ["etag", "content-type", "repr-digest", "content-disposition", "last-modified", "cache-control"] {
        assert_eq!(head.header(name), answer.header(name), "{name}");
    }
    let blob = reader.get(&format!("/v1/blobs/{}", digest(&whole))).await;
    assert_eq!((blob.status.as_u16(), &blob.body), (200, &whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_across_segments() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(2, (5 << 20) + 77_777);
    let upload = writer.begin(&whole).await["id"].as_str().expect("an id").to_owned();
    let mut parts = Vec::new();
    for (number, chunk) in (1..).zip(whole.chunks(5 << 20)) {
        parts.push(writer.put_part(&upload, number, chunk.to_vec()).await.ok());
    }
    assert_eq!(writer.complete(&upload, &parts).await.ok()["state"], "ready");
    let artifact = writer.release("debian", "1.0", &whole).await;
    let (reader, path) = (server.anonymous(), download("debian", &artifact));
    let size = whole.len();

    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=5242870-5242889", 5_242_870, 5_242_890),
        ("bytes=5242880-", 5 << 20, size),
        ("bytes=-5", size - 5, size),
        ("bytes=100-99999999", 100, size),
        ("bytes=-99999999", 0, size),
    ] {
        let answer = reader.get_with(&path, &[("range", range)]).await;
        assert_eq!(answer.status.as_u16(), 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/{size}", end - 1), "{range}");
        assert_eq!(answer.header("content-length"), (end - start).to_string(), "{range}");
        assert!(answer.body == whole[start..end], "{range}");
    }
    for range in [format!("bytes={size}-"), "bytes=-0".to_owned()] {
        let answer = reader.get_with(&path, &[("range", &range)]).await;
        answer.problem(416, "range-not-satisfiable");
        assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
    }
    for range in ["bytes=0-1,5-6", "bytes=9-1", "bytes=a-b", "lines=1-2", "bytes="] {
        assert_eq!(reader.get_with(&path, &[("range", range)]).await.body.len(), size, "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_come_before_ranges() {
    let server = Server::start();
    let whole = bytes(3, 1000);
    let artifact = server.writer().await.release("debian", "1.0", &whole).await;
    let (reader, path) = (server.anonymous(), download("debian", &artifact));
    let first = reader.get(&path).await;
    let (etag, modified) = (first.header("etag").to_owned(), first.header("last-modified").to_owned());
    let old = "Sat, 01 Jan 2000 00:00:00 GMT";
    let weak = format!("\"other\", W/{etag}");
    for headers in [
        vec![("if-none-match", etag.as_str())],
        vec![("if-none-match", weak.as_str())],
        vec![("if-none-match", "*"), ("range", "bytes=0-1")],
        vec![("if-modified-since", modified.as_str())],
        vec![("if-none-match", etag.as_str()), ("if-modified-since", old)],
    ] {
        let answer = reader.get_with(&path, &headers).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.len(), answer.header("etag")),
            (304, 0, etag.as_str()),
            "{headers:?}"
        );
    }
    for (headers, status) in [
        (vec![("if-none-match", "\"other\""), ("if-modified-since", modified.as_str())], 200),
        (vec![("if-modified-since", old)], 200),
        (vec![("if-range", etag.as_str()), ("range", "bytes=0-1")], 206),
        (vec![("if-range", modified.as_str()), ("range", "bytes=0-1")], 206),
        (vec![("if-range", "\"other\""), ("range", "bytes=0-1")], 200),
        (vec![("if-range", old), ("range", "bytes=0-1")], 200),
    ] {
        assert_eq!(reader.get_with(&path, &headers).await.status.as_u16(), status, "{headers:?}");
    }
    let manifest = reader.get("/v1/images/debian/versions/1.0").await;
    assert_eq!(manifest.header("cache-control"), "no-cache");
    let again = reader.get_with("/v1/images/debian/versions/1.0", &[("if-none-match", manifest.header("etag"))]).await;
    assert_eq!(again.status.as_u16(), 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_is_not_there() {
    let server = Server::start();
    let writer = server.writer().await;
    let published = writer.release("open", "1.0", b"open").await;
    let draft = writer.draft("hidden", "1.0", b"hidden").await;
    let reader = server.anonymous();
    reader.get(&download("hidden", &draft)).await.problem(404, "not-found");
    reader.get(&download("open", &draft)).await.problem(404, "not-found");
    reader.get(&download("hidden", &published)).await.problem(404, "not-found");
    reader.get(&download("open", "not-a-uuid")).await.problem(400, "invalid");
    let blob = format!("/v1/blobs/{}", digest(b"hidden"));
    reader.get(&blob).await.problem(404, "not-found");
    let seen = writer.get(&blob).await;
    assert_eq!((seen.status.as_u16(), seen.header("cache-control")), (200, "private, no-store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_objects_are_never_a_complete_looking_answer() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(4, (5 << 20) + 1000);
    let upload = writer.begin(&whole).await["id"].as_str().expect("an id").to_owned();
    let mut parts = Vec::new();
    for (number, chunk) in (1..).zip(whole.chunks(5 << 20)) {
        parts.push(writer.put_part(&upload, number, chunk.to_vec()).await.ok());
    }
    writer.complete(&upload, &parts).await.ok();
    let artifact = writer.release("debian", "1.0", &whole).await;
    let path = download("debian", &artifact);

    let folder = server.folder.objects_of(&whole);
    let mut objects: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    objects.sort();
    let last = std::fs::read(&objects[1]).expect("the last object");
    std::fs::write(&objects[1], &last[..10]).expect("truncated");
    let broken = server.anonymous().request(Method::GET, &path).send().await.expect("headers");
    assert_eq!(broken.status().as_u16(), 200);
    broken.bytes().await.expect_err("the connection breaks before the length that was announced");

    // The blob is known as damaged now: told at once, and asked for again.
    let path = path.as_str();
    while server.anonymous().request(Method::GET, path).send().await.expect("an answer").status().as_u16() != 503 {}
    server.anonymous().get(path).await.problem(503, "unavailable");
    assert_eq!(writer.begin(&whole).await["state"], "created");
    assert_eq!(writer.upload(&whole).await, digest(&whole));
    assert_eq!(server.anonymous().get(path).await.body, whole, "healed");
    let again = writer
        .post("/v1/uploads", json!({"expected_digest": digest(&whole), "expected_size_bytes": whole.len()}))
        .await;
    assert_eq!(again.ok()["state"], "ready");
}
