//! Simple Streams over HTTP: what the documents say of themselves, and when they change.

use std::io::Read;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::server::{Api, Server, artifact, attachment, bytes, until};

const DOCUMENTS: [&str; 2] = ["/streams/v1/index.json", "/streams/v1/images.json"];

/// A published disk that Incus can use.
async fn disk(api: &Api, image: &str, version: &str, content: &[u8]) {
    for bytes in [content, b"metadata"] {
        api.upload(bytes).await;
    }
    api.post("/v1/images", json!({ "name": image })).await;
    api.post(&format!("/v1/images/{image}/versions"), json!({ "version": version })).await.created();
    let path = format!("/v1/images/{image}/versions/{version}/artifacts");
    let artifact = api.add(&path, artifact(content, json!({}))).await;
    let metadata = attachment("incus.tar.xz", "application/x-xz", b"metadata");
    api.add(&format!("{path}/{artifact}/attachments"), metadata).await;
    assert_eq!(api.publish(image, version).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_name_files_that_are_there() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    let content = bytes(1, 100_000);
    disk(&writer, "debian", "1.0", &content).await;
    writer.put("/v1/images/debian/aliases/latest", json!({"version": "1.0"})).await.ok();
    let index = reader.get(DOCUMENTS[0]).await.ok();
    let path = index["index"]["images"]["path"].as_str().expect("a path");
    let images = reader.get(&format!("/{path}")).await.ok();
    let product = &images["products"]["debian:1.0:amd64:default"];
    assert_eq!(product["aliases"], "debian/1.0,debian/latest");
    let (_, version) = product["versions"].as_object().expect("versions").iter().next().expect("a version");
    let items = version["items"].as_object().expect("items");
    assert_eq!(items.keys().collect::<Vec<_>>(), ["disk-kvm.img", "incus.tar.xz"]);
    for item in items.values() {
        let file = reader.get(&format!("/{}", item["path"].as_str().expect("a path"))).await;
        assert_eq!((file.status, file.body.len() as u64), (StatusCode::OK, item["size"].as_u64().expect("a size")));
        assert_eq!(crate::server::digest(&file.body), format!("sha256:{}", item["sha256"].as_str().expect("a hash")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_asked_about_again() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    let mut before = Vec::new();
    for version in ["1.0", "2.0"] {
        disk(&writer, "debian", version, version.as_bytes()).await;
        let mut now = Vec::new();
        for path in DOCUMENTS {
            let answer = reader.get(path).await;
            assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-cache", "accept-encoding"));
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            let etag = answer.header("etag").to_owned();
            let same = reader.get_with(path, &[("if-none-match", &etag)]).await;
            assert_eq!((same.status, same.header("etag"), same.body.len()), (StatusCode::NOT_MODIFIED, &*etag, 0));
            assert_eq!((same.header("cache-control"), same.header("vary")), ("no-cache", "accept-encoding"));
            let head = reader.head(path).await;
            assert_eq!((head.status, head.header("etag")), (StatusCode::OK, &*etag));
            now.push(etag);
        }
        assert!(now.iter().all(|etag| !before.contains(etag)), "a publish changes both");
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_compressed_when_its_compressed_form_is_made() {
    let server = Server::start();
    let (writer, reader, path) = (server.writer().await, server.anonymous(), DOCUMENTS[1]);
    for round in 0..2 {
        for n in 0..4 {
            let version = format!("{round}.{n}");
            disk(&writer, "debian", &version, version.as_bytes()).await;
        }
        let plain = reader.get(path).await;
        assert_eq!(plain.header("content-encoding"), "");
        let etag = plain.header("etag").to_owned();
        for (accepted, coding) in [("gzip", "gzip"), ("gzip, deflate, br, zstd", "zstd")] {
            let accept = [("accept-encoding", accepted)];
            let first = reader.get_with(path, &accept).await;
            assert!(first.header("content-encoding").is_empty() && first.body == plain.body, "nobody waits");
            let mut coded = first;
            until("a compressed form", async || {
                coded = reader.get_with(path, &accept).await;
                !coded.header("content-encoding").is_empty()
            })
            .await;
            assert_eq!(coded.header("content-encoding"), coding);
            assert_eq!(coded.header("etag"), format!("W/{etag}"));
            assert_eq!(coded.header("content-length"), coded.body.len().to_string());
            assert!(coded.body.len() < plain.body.len() / 2);
            let mut text = Vec::new();
            match coding {
                "gzip" => flate2::read::GzDecoder::new(&coded.body[..]).read_to_end(&mut text).expect("gzip"),
                _ => zstd::Decoder::new(&coded.body[..]).expect("zstd").read_to_end(&mut text).expect("zstd"),
            };
            assert!(text == plain.body, "what it unpacks to is what was rendered");
            for known in [&etag, &format!("W/{etag}")] {
                let same = reader.get_with(path, &[accept[0], ("if-none-match", known)]).await;
                assert_eq!(same.status, StatusCode::NOT_MODIFIED, "{known}");
            }
        }
        assert_eq!(reader.get_with(path, &[("accept-encoding", "br")]).await.body, plain.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_is_told_what_is_not_listed() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    writer.draft("debian", "1.0", b"raw").await;
    let path = "/v1/images/debian/versions/1.0";
    let reason = |manifest: Value| manifest["artifacts"][0].get("not_listed_reason").cloned();
    assert_eq!(reason(writer.get(path).await.ok()), Some(json!("Incus has no use for this format")));
    assert_eq!(writer.publish("debian", "1.0").await["state"], "succeeded");
    assert_eq!(reason(writer.get(path).await.ok()), Some(json!("Incus has no use for this format")));
    assert_eq!(reason(reader.get(path).await.ok()), None, "for writers only");
    disk(&writer, "debian", "2.0", b"disk").await;
    assert_eq!(reason(writer.get("/v1/images/debian/versions/2.0").await.ok()), None, "it is listed");
}
