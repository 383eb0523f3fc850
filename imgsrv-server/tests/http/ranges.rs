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
