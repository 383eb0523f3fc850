//! The whole tutorial with the generated client: from the bootstrap token to the downloaded bytes.
//!
//! Needs `IMGSRV` and `BOOTSTRAP_TOKEN` of a fresh server, and leaves `disk.qcow2` in the current folder.

use std::env;
use std::error::Error as _;
use std::time::Duration;

use futures_util::TryStreamExt;
use imgsrv_client::types::{
    AddArtifact, AddAttachment, BeginUpload, CompleteUpload, CreateImage, CreatePrincipal, CreateVersion,
    IssueApiToken, JobState, ListedPart, Prose, PutAlias, UploadState,
};
use imgsrv_client::{ByteStream, Client, Error, connect};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PART: u64 = 8 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::var("IMGSRV")?;
    let manager = connect(&url, Some(&env::var("BOOTSTRAP_TOKEN")?))?;
    let token = writer_token(&manager).await?;
    let writer = connect(&url, Some(&token))?;

    let disk: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(20 << 20).collect();
    let log = b"built\n".to_vec();
    tokio::fs::write("disk.qcow2", &disk).await?;
    tokio::fs::write("build.log", &log).await?;
    upload(&writer, "disk.qcow2", &disk).await?;
    upload(&writer, "build.log", &log).await?;
    publish(&writer, &disk, &log).await?;

    let anybody = connect(&url, None)?;
    download(&anybody, &disk).await?;
    refusals(&anybody, &writer).await
}

#[expect(clippy::disallowed_methods, reason = "a client has no clock of the engine's")]
async fn writer_token(manager: &Client) -> Result<String> {
    let principal = CreatePrincipal::builder().kind("service").display_name("image builder");
    let principal = manager.create_principal().body(principal).send().await?.into_inner();
    manager.assign_role().principal(principal.id.as_str()).role("content-writer").send().await?;
    let token = IssueApiToken::builder().expires_at(chrono::Utc::now() + chrono::TimeDelta::days(1));
    let token = manager.issue_api_token().principal(principal.id.as_str()).body(token).send().await?;
    Ok(token.into_inner().plaintext)
}

/// Sends a file in parts, the last one first, each as a stream.
async fn upload(writer: &Client, path: &str, bytes: &[u8]) -> Result<()> {
    let begin = BeginUpload::builder().expected_digest(digest(bytes)).expected_size_bytes(size(bytes)?);
    let upload = writer.begin_upload().body(begin).send().await?.into_inner();
    let mut parts = Vec::new();
    for number in (1..=u64::try_from(bytes.len())?.div_ceil(PART)).rev() {
        let mut file = tokio::fs::File::open(path).await?;
        file.seek(std::io::SeekFrom::Start((number - 1) * PART)).await?;
        let body = reqwest::Body::wrap_stream(ReaderStream::new(file.take(PART)));
        let part = writer.put_part().upload_id(upload.id).number(number).body(body).send().await?.into_inner();
        parts.push(ListedPart { number: part.part_number, etag: part.etag.to_string(), size_bytes: part.size_bytes });
    }
    writer.complete_upload().upload_id(upload.id).body(CompleteUpload { parts }).send().await?;
    loop {
        let now = writer.get_upload().upload_id(upload.id).send().await?.into_inner();
        match now.state {
            UploadState::Ready => return Ok(()),
            UploadState::Failed => return Err(now.failure_reason.unwrap_or_default().into()),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn publish(writer: &Client, disk: &[u8], log: &[u8]) -> Result<()> {
    writer
        .create_image()
        .body(CreateImage::builder().name("demo").display_name(Prose::try_from("Demo")?))
        .send()
        .await?;
    writer.create_version().image("demo").body(CreateVersion::builder().version("1.0")).send().await?;
    let artifact = AddArtifact::builder()
        .operating_system("linux")
        .architecture("amd64")
        .format("qcow2")
        .primary_blob_digest(digest(disk))
        .primary_blob_size_bytes(size(disk)?)
        .primary_media_type("application/x-qemu-disk");
    let artifact = writer.add_artifact().image("demo").version("1.0").body(artifact).send().await?.into_inner();
    let attachment = AddAttachment::builder()
        .name("build.log")
        .media_type("text/plain")
        .blob_digest(digest(log))
        .blob_size_bytes(size(log)?);
    writer.add_attachment().image("demo").version("1.0").artifact_id(artifact.id).body(attachment).send().await?;

    let mut job = writer.publish_version().image("demo").version("1.0").send().await?.into_inner();
    while job.state != JobState::Succeeded {
        assert_ne!(job.state, JobState::Failed, "{:?}", job.failure_message);
        tokio::time::sleep(Duration::from_millis(100)).await;
        job = writer.get_job().job_id(job.id).send().await?.into_inner();
    }
    writer.put_alias().image("demo").alias("latest").body(PutAlias::builder().version("1.0")).send().await?;
    Ok(())
}

async fn download(anybody: &Client, disk: &[u8]) -> Result<()> {
    let version = anybody.resolve().image("demo").reference("latest").send().await?.into_inner().version;
    let manifest = anybody.get_manifest().image("demo").version(version.as_str()).send().await?.into_inner();
    let id = manifest.artifacts[0].artifact.id;
    let ask = || anybody.download_artifact().image("demo").version(version.as_str()).artifact_id(id);

    let whole = ask().send().await?;
    let etag = whole.headers()["etag"].to_str()?.to_owned();
    assert_eq!(etag, format!("\"{}\"", digest(disk)));
    assert!(read(whole.into_inner()).await? == disk, "the bytes are the same");

    let part = ask().range("bytes=100-199").if_range(etag).send().await?;
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], format!("bytes 100-199/{}", disk.len()));
    assert!(read(part.into_inner()).await? == disk[100..200], "the range is that of the bytes");

    let files = anybody.list_files().image("demo").reference("latest").send().await?.into_inner();
    assert_eq!(files.files.len(), 2);
    Ok(())
}

/// What is refused is a problem with a type.
async fn refusals(anybody: &Client, writer: &Client) -> Result<()> {
    match anybody.get_image().image("nothing").send().await {
        Err(Error::ErrorResponse(problem)) => {
            assert_eq!((problem.status, problem.type_.as_str()), (404, "urn:imgsrv:problem:not-found"));
        }
        other => panic!("{:?}", other.err().and_then(|error| error.source().map(ToString::to_string))),
    }
    match writer.create_image().body(CreateImage::builder().name("demo")).send().await {
        Err(Error::ErrorResponse(problem)) => assert_eq!(problem.type_, "urn:imgsrv:problem:already-exists"),
        other => panic!("{:?}", other.err().and_then(|error| error.source().map(ToString::to_string))),
    }
    Ok(())
}

async fn read(stream: ByteStream) -> Result<Vec<u8>> {
    Ok(stream
        .into_inner()
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend(chunk);
            Ok(all)
        })
        .await?)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn size(bytes: &[u8]) -> Result<i64> {
    Ok(i64::try_from(bytes.len())?)
}
