//! The engine in a program of one's own: uploads a file, publishes it with a step of one's own, and reads it back.
//!
//! `cargo run -p imgsrv-examples --bin embed -- FOLDER FILE`

use std::path::PathBuf;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use imgsrv_core::model::{BlobRef, Digest, NewArtifact, NewImage, NewUpload, PartNumber, PartRef, Variant};
use imgsrv_core::publish::{PublishStep, StepContext, StepError, StepOutput};
use imgsrv_core::{BoxError, PartClaim};

/// Refuses to publish what is empty.
struct NotEmpty;

#[async_trait]
impl PublishStep for NotEmpty {
    fn name(&self) -> &'static str {
        "not_empty"
    }

    async fn run(&self, cx: &StepContext<'_>) -> Result<StepOutput, StepError> {
        for entry in cx.artifacts() {
            if entry.artifact.blob.size == 0 {
                return Err(StepError::Reject(format!("artifact {} is empty", entry.artifact.id)));
            }
        }
        Ok(None)
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed FOLDER FILE".into());
    };
    let bytes = std::fs::read(file)?;
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);

    let engine = imgsrv_examples::open(&folder).await?.publish_step(NotEmpty).build().await?;
    let engine = engine.acting_as("program:embed".parse()?);

    let new =
        NewUpload { expected_digest: digest.clone(), expected_size: size, media_type_hint: None, filename_hint: None };
    let upload = engine.begin_upload(new).await?;
    if upload.state.word() == "created" {
        let number = PartNumber::try_from(1)?;
        let part = engine.put_part(upload.id, number, PartClaim::default(), stream::iter([Ok(bytes.into())])).await?;
        let listed = PartRef { number, etag: part.etag.to_string(), size: part.size };
        engine.complete_upload(upload.id, vec![listed]).await?;
    }

    let (image, version) = ("example".try_into()?, "1.0".try_into()?);
    engine.create_image(NewImage { name: "example".try_into()?, display_name: None, description: None }).await?;
    engine.create_version(&image, &version).await?;
    let artifact = NewArtifact {
        variant: Variant::default_variant(),
        operating_system: "linux".try_into()?,
        architecture: "amd64".try_into()?,
        format: "raw".parse()?,
        blob: BlobRef { digest: digest.clone(), size, media_type: "application/octet-stream".try_into()? },
        requirements: [].into(),
    };
    engine.add_artifact(&image, &version, artifact).await?;
    let job = engine.publish_version(&image, &version).await?;
    engine.run_until_idle().await?;
    let job = engine.get_job(job.job.id).await?;
    for step in &job.steps {
        println!("{} {}", step.name, step.state);
    }

    let mut body = engine.read_blob(&digest, None).await?.body.boxed();
    let mut read = 0;
    while let Some(bytes) = body.try_next().await? {
        read += bytes.len();
    }
    println!("{} {}: {read} bytes", job.image, job.version);
    Ok(())
}
