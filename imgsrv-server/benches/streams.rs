//! Simple Streams of a large catalogue: `cargo bench --bench streams [-- ARTIFACTS]`.
//!
//! Prints what it measures of the built server on SQLite and a folder: how long the first answer takes after a start,
//! the first byte of later ones, an answer that nothing has changed, and how long after a publish the next answer comes.

#![allow(missing_docs, clippy::pedantic, clippy::unwrap_used, reason = "a program of one page")]

mod server;

use std::time::{Duration, Instant};

use imgsrv_core::sea_orm::{ConnectionTrait, Database};
use reqwest::{Method, Response};
use serde_json::json;

use server::{Api, Server, digest, middle, ms};

/// Of each image, and of each version: each architecture is a disk with its metadata.
const VERSIONS: usize = 25;
const ARCHITECTURES: usize = 4;

/// Those of the image that gets further ones.
const VERSIONS_OF_ONE: &str = "/v1/images/image-00000/versions";

const IMAGES_JSON: &str = "/streams/v1/images.json";

#[tokio::main]
async fn main() {
    let artifacts = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(50_000);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    drop(Server::start(&data));
    fill(&data, artifacts / VERSIONS / ARCHITECTURES).await;

    let server = Server::start(&data);
    let api = server.api();
    let begun = Instant::now();
    let first = api.get(IMAGES_JSON, &[]).await;
    let headers = begun.elapsed();
    let size = first.bytes().await.unwrap().len();
    println!("{artifacts} artifacts, images.json has {:.1} MiB", size as f64 / f64::from(1 << 20));
    println!("first answer after a start: first byte after {}, all after {}", ms(headers), ms(begun.elapsed()));
    println!("first byte from the cache: {}", median(50, async || api.get(IMAGES_JSON, &[]).await).await);
    let etag = api.get(IMAGES_JSON, &[]).await.headers()["etag"].to_str().unwrap().to_owned();
    let known = [("if-none-match", etag.as_str())];
    println!("nothing has changed (304): {}", median(200, async || api.get(IMAGES_JSON, &known).await).await);

    let accept = [("accept-encoding", "gzip")];
    let begun = Instant::now();
    while !api.get(IMAGES_JSON, &accept).await.headers().contains_key("content-encoding") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("gzip: there {} after it was first asked for", ms(begun.elapsed()));
    println!("first byte, gzip: {}", median(50, async || api.get(IMAGES_JSON, &accept).await).await);

    let writer = api.writer().await;
    let (mut refreshes, mut visible) = (Vec::new(), Vec::new());
    for n in 0..20 {
        prepare(&writer, &format!("new-{n}")).await;
        let begun = Instant::now();
        writer.publish(&format!("{VERSIONS_OF_ONE}/new-{n}")).await;
        let published = Instant::now();
        let index = api.get("/streams/v1/index.json", &[]).await;
        refreshes.push(published.elapsed());
        assert!(index.text().await.unwrap().contains(&format!("image-00000:new-{n}:")), "visible in the next answer");
        visible.push(begun.elapsed());
    }
    println!("first answer after a publish: {}; from POST publish to there: {}", middle(refreshes), middle(visible));
    println!("peak memory of the server: {} KiB", server.peak());
}

/// A catalogue as so many publishes would have left it.
async fn fill(data: &std::path::Path, images: usize) {
    let database = Database::connect(format!("sqlite://{}", data.join("imgsrv.db").display())).await.unwrap();
    let (versions, artifacts) = (images * VERSIONS, images * VERSIONS * ARCHITECTURES);
    let id = |kind: char, n: &str| format!("unhex(printf('%s%031x', '{kind}', {n}))");
    let text_id = |kind: char, n: &str| {
        let hex = format!("printf('%s%031x', '{kind}', {n})");
        format!(
            "substr({hex},1,8)||'-'||substr({hex},9,4)||'-'||substr({hex},13,4)||'-'||substr({hex},17,4)||'-'||substr({hex},21)"
        )
    };
    let digest = |kind: char, n: &str| format!("printf('sha256:%s%063x', '{kind}', {n})");
    let at = "'2026-01-01T00:00:00+00:00'";
    let count =
        |to: usize| format!("with recursive c(i) as (select 0 union all select i + 1 from c where i < {})", to - 1);
    let version_of = format!("i / {ARCHITECTURES}");
    let statements = [
        format!(
            "insert into images (id, name, generation, created_at, updated_at) {} select {}, printf('image-%05d', i), 1, {at}, {at} from c",
            count(images),
            id('a', "i")
        ),
        "update catalog_generation set n = 1".to_owned(),
        format!(
            "insert into versions (id, image_id, version, state, published_at, created_at, updated_at) {} \
             select {}, {}, 'v' || (i % {VERSIONS}), 'draft', null, {at}, {at} from c",
            count(versions),
            id('b', "i"),
            id('a', &format!("i / {VERSIONS}"))
        ),
        format!(
            "insert into artifacts (id, version_id, variant, operating_system, architecture, format, blob_digest, blob_size, media_type, requirements, created_at) {} \
             select {}, {}, 'default', 'linux', 'arch' || (i % {ARCHITECTURES}), 'qcow2', {}, 1000000, 'application/x-qemu-disk', '{{}}', {at} from c",
            count(artifacts),
            id('c', "i"),
            id('b', &version_of),
            digest('c', "i")
        ),
        format!(
            "insert into attachments (id, artifact_id, name, blob_digest, blob_size, media_type, created_at) {} \
             select {}, {}, 'incus.tar.xz', {}, 1000, 'application/x-xz', {at} from c",
            count(artifacts),
            id('d', "i"),
            id('c', "i"),
            digest('d', "i")
        ),
        format!(
            "insert into jobs (id, kind, subject, available_at, attempts, crashes, outcome, created_at, updated_at, started_at, finished_at) {} \
             select {}, 'publish', {}, {at}, 1, 0, 'succeeded', {at}, {at}, {at}, {at} from c",
            count(versions),
            id('e', "i"),
            text_id('b', "i")
        ),
        format!(
            "insert into publish_steps (id, job_id, name, sequence, state, attempts, output, created_at, updated_at) {} \
             select {}, {}, 'incus_index', 20, 'succeeded', 1, \
             (with recursive k(j) as (select 0 union all select j + 1 from k where j < {}) \
              select json_object('combined_sha256', json_group_object({}, {})) from k), {at}, {at} from c",
            count(versions),
            id('f', "i"),
            id('e', "i"),
            ARCHITECTURES - 1,
            text_id('c', &format!("(i * {ARCHITECTURES} + j)")),
            digest('e', &format!("(i * {ARCHITECTURES} + j)"))
        ),
        "update versions set state = 'publishing'".to_owned(),
        format!("update versions set state = 'published', published_at = {at}"),
    ];
    for statement in statements {
        database.execute_unprepared(&statement).await.unwrap_or_else(|err| panic!("{statement}: {err}"));
    }
    database.close().await.unwrap();
}

/// A draft of one disk with its metadata, whose bytes are there.
async fn prepare(writer: &Api, version: &str) {
    writer.json(Method::POST, VERSIONS_OF_ONE, Some(json!({ "version": version }))).await;
    let [disk, metadata] = [format!("disk {version}"), format!("metadata {version}")];
    writer.upload(metadata.as_bytes()).await;
    let artifact = writer.add_disk(&format!("{VERSIONS_OF_ONE}/{version}"), disk.as_bytes()).await;
    let attachment = json!({
        "name": "incus.tar.xz", "media_type": "a/b",
        "blob_digest": digest(metadata.as_bytes()), "blob_size_bytes": metadata.len(),
    });
    writer.json(Method::POST, format!("{artifact}/attachments"), Some(attachment)).await;
}

/// The time to the head of an answer; its body is read to the end before the next is asked for.
async fn median(times: usize, ask: impl AsyncFn() -> Response) -> String {
    let mut taken = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        let response = ask().await;
        taken.push(begun.elapsed());
        response.bytes().await.unwrap();
    }
    middle(taken)
}
