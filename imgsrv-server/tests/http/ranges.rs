//! Some of the bytes, or none when the client has them.

use crate::server::{Server, bytes, id};

fn download(artifact: &str) -> String {
    format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_range_is_sent_wherever_it_lies() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(2, (5 << 20) + 77_777);
    let upload = id(&writer.begin(&whole).await);
    let mut parts = Vec::new();
    for (number, chunk) in (1..).zip(whole.chunks(5 << 20)) {
        parts.push(writer.put_part(&upload, number, chunk.to_vec()).await.ok());
    }
    assert_eq!(writer.complete(&upload, &parts).await.ok()["state"], "ready");
    let artifact = writer.release("debian", "1.0", &whole).await;
    let (reader, path) = (server.anonymous(), download(&artifact));
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
        assert_eq!(answer.header("etag"), "", "no cache may take it for the bytes");
    }
    for range in ["bytes=0-1,5-6", "bytes=9-1", "bytes=a-b", "lines=1-2", "bytes="] {
        let answer = reader.get_with(&path, &[("range", range)]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size), "{range}");
        assert_eq!(answer.header("content-range"), "", "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_come_before_ranges() {
    let server = Server::start();
    let whole = bytes(3, 1000);
    let artifact = server.writer().await.release("debian", "1.0", &whole).await;
    let (reader, path) = (server.anonymous(), download(&artifact));
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
        vec![("if-modified-since", modified.as_str()), ("range", "bytes=0-1")],
        vec![("if-none-match", etag.as_str()), ("range", "bytes=5000-")],
        vec![("if-none-match", etag.as_str()), ("if-range", "\"other\""), ("range", "bytes=0-1")],
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
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_in_a_range_of_an_empty_file() {
    let server = Server::start();
    let artifact = server.writer().await.release("debian", "1.0", b"").await;
    let (reader, path) = (server.anonymous(), download(&artifact));
    // Several, malformed ones and the last of none are all of it.
    for range in ["", "bytes=-5", "bytes=0-0,2-3", "bytes=1-0"] {
        let answer = reader.get_with(&path, &[("range", range)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-length"), answer.body.len()),
            (200, "0", 0),
            "{range}"
        );
    }
    for range in ["bytes=0-", "bytes=0-0", "bytes=-0"] {
        let answer = reader.get_with(&path, &[("range", range)]).await;
        answer.problem(416, "range-not-satisfiable");
        assert_eq!(answer.header("content-range"), "bytes */0", "{range}");
    }
}
