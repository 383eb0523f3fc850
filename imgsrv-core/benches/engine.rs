//! What the engine itself takes, on a database and a store in memory: `cargo bench -p imgsrv-core`.

#![allow(missing_docs, clippy::pedantic, clippy::unwrap_used, reason = "a program of one page")]

use std::hint::black_box;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use futures_util::{StreamExt, stream};
use imgsrv_core::model::{
    BlobRef, Digest, ImageName, NewArtifact, NewAttachment, NewImage, NewUpload, Page, PartNumber, PartRef, Reference,
    Scope, UploadId, Variant, VersionName, VersionState,
};
use imgsrv_core::projection::SimpleStreams;
use imgsrv_core::{Engine, PartClaim};
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;
/// As a connection hands them over, about.
const FRAME: usize = 256 << 10;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

fn main() {
    divan::main();
}

fn engine() -> Engine {
    RUNTIME.block_on(Engine::in_memory_with(|builder| builder.projection(SimpleStreams::default()))).unwrap()
}

/// Bytes that no other call gives.
fn noise(size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    fastrand::fill(&mut bytes);
    bytes.into()
}

async fn begin(engine: &Engine, bytes: &[u8]) -> UploadId {
    let new = NewUpload {
        expected_digest: Digest::of(bytes),
        expected_size: bytes.len() as u64,
        media_type_hint: None,
        filename_hint: None,
    };
    engine.begin_upload(new).await.unwrap().id
}

async fn put(engine: &Engine, upload: UploadId, number: i64, bytes: Bytes) -> PartRef {
    let frames = (0..bytes.len()).step_by(FRAME).map(|at| Ok(bytes.slice(at..bytes.len().min(at + FRAME))));
    let frames: Vec<_> = frames.collect();
    let number = PartNumber::try_from(number).unwrap();
    let part = engine.put_part(upload, number, PartClaim::default(), stream::iter(frames)).await.unwrap();
    PartRef { number: part.number, etag: part.etag.to_string(), size: part.size }
}

/// A blob in parts of 5 MiB.
async fn blob(engine: &Engine, bytes: &Bytes) -> Digest {
    let upload = begin(engine, bytes).await;
    let mut parts = Vec::new();
    for (number, at) in (1..).zip((0..bytes.len()).step_by(5 * MIB)) {
        let part = bytes.slice(at..bytes.len().min(at + 5 * MIB));
        parts.push(put(engine, upload, number, part).await);
    }
    engine.complete_upload(upload, parts).await.unwrap();
    Digest::of(bytes)
}

/// An image with so many published versions of one disk each, and an alias of the last one.
async fn catalogue(engine: &Engine, versions: usize) -> ImageName {
    let image: ImageName = "image".parse().unwrap();
    engine.create_image(NewImage { name: image.clone(), display_name: None, description: None }).await.unwrap();
    let metadata = noise(1000);
    let metadata = (blob(engine, &metadata).await, metadata.len() as u64);
    for number in 0..versions {
        let version: VersionName = format!("1.{number}").parse().unwrap();
        let disk = noise(1000);
        let cite = |digest: Digest, size| BlobRef { digest, size, media_type: "a/b".parse().unwrap() };
        engine.create_version(&image, &version).await.unwrap();
        let artifact = NewArtifact {
            variant: Variant::default_variant(),
            operating_system: "linux".parse().unwrap(),
            architecture: "amd64".parse().unwrap(),
            format: "qcow2".parse().unwrap(),
            blob: cite(blob(engine, &disk).await, 1000),
            requirements: Default::default(),
        };
        let artifact = engine.add_artifact(&image, &version, artifact).await.unwrap();
        let attachment =
            NewAttachment { name: "incus.tar.xz".parse().unwrap(), blob: cite(metadata.0.clone(), metadata.1) };
        engine.add_attachment(&image, &version, artifact.id, attachment).await.unwrap();
        engine.publish_version(&image, &version).await.unwrap();
        engine.run_until_idle().await.unwrap();
        engine.put_alias(&image, &"latest".parse().unwrap(), &version).await.unwrap();
    }
    image
}

#[divan::bench(args = [1, 16, 64], sample_count = 20)]
fn a_part_of_so_many_mib(bencher: Bencher, mib: usize) {
    let engine = engine();
    let bytes = noise(mib * MIB);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .with_inputs(|| RUNTIME.block_on(begin(&engine, &noise(mib * MIB))))
        .bench_values(|upload| RUNTIME.block_on(put(&engine, upload, 1, bytes.clone())));
}

/// The chain of hashes, part by part: none is read again.
#[divan::bench(args = [1, 8], sample_count = 20)]
fn to_complete_so_many_parts_in_order(bencher: Bencher, parts: usize) {
    let engine = engine();
    bencher
        .with_inputs(|| {
            let bytes = noise(parts * 5 * MIB);
            RUNTIME.block_on(async {
                let upload = begin(&engine, &bytes).await;
                let mut listed = Vec::new();
                for number in 0..parts {
                    let part = bytes.slice(number * 5 * MIB..(number + 1) * 5 * MIB);
                    listed.push(put(&engine, upload, number as i64 + 1, part).await);
                }
                (upload, listed)
            })
        })
        .bench_values(|(upload, listed)| RUNTIME.block_on(engine.complete_upload(upload, listed)).unwrap());
}

#[divan::bench(args = [4 << 10, 1 << 20, 12 << 20])]
fn a_range_across_segments(bencher: Bencher, size: usize) {
    let engine = engine();
    let bytes = noise(16 * MIB);
    let digest = RUNTIME.block_on(blob(&engine, &bytes));
    let range = (5 * MIB - size / 3) as u64..(5 * MIB - size / 3 + size) as u64;
    bencher.counter(BytesCount::new(size)).bench(|| {
        RUNTIME.block_on(async {
            let mut read = engine.read_blob(&digest, Some(range.clone())).await.unwrap();
            while let Some(chunk) = read.body.next().await {
                black_box(chunk.unwrap());
            }
        });
    });
}

#[divan::bench]
fn a_manifest(bencher: Bencher) {
    let engine = engine();
    let image = RUNTIME.block_on(catalogue(&engine, 1));
    let version = "1.0".parse().unwrap();
    bencher.bench(|| RUNTIME.block_on(engine.get_manifest(&image, &version, Scope::Published)).unwrap());
}

#[divan::bench]
fn what_an_alias_leads_to(bencher: Bencher) {
    let engine = engine();
    let image = RUNTIME.block_on(catalogue(&engine, 1));
    let reference: Reference = "latest".parse().unwrap();
    bencher.bench(|| RUNTIME.block_on(engine.resolve(&image, &reference)).unwrap());
}

#[divan::bench]
fn a_page_of_a_hundred_versions(bencher: Bencher) {
    let engine = engine();
    let image = RUNTIME.block_on(catalogue(&engine, 200));
    bencher.bench(|| {
        let page = Page::new(Some(100), None).unwrap();
        RUNTIME.block_on(engine.list_versions(&image, VersionState::Published, Scope::Published, page)).unwrap()
    });
}

/// The change of one alias has the whole catalogue rendered anew.
#[divan::bench(sample_count = 50)]
fn simple_streams_of_two_hundred_versions(bencher: Bencher) {
    let engine = engine();
    let image = RUNTIME.block_on(catalogue(&engine, 200));
    let (alias, moves) = ("moves".parse().unwrap(), AtomicUsize::new(0));
    bencher
        .with_inputs(|| {
            let version = format!("1.{}", moves.fetch_add(1, Ordering::Relaxed) % 200).parse().unwrap();
            RUNTIME.block_on(engine.put_alias(&image, &alias, &version)).unwrap()
        })
        .bench_values(|_| RUNTIME.block_on(engine.projected("streams", "images.json")).unwrap());
}
