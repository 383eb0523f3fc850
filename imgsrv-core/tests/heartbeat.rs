//! Whether a node still looks for work, as those see it who ask whether it is ready.

#![allow(clippy::pedantic, clippy::style, clippy::complexity, clippy::perf, reason = "a test is read, not called")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use imgsrv_core::model::{BlobRef, Digest, NewArtifact, NewImage, NewUpload, PartNumber, PartRef, Variant};
use imgsrv_core::publish::{PublishStep, StepContext, StepError, StepOutput};
use imgsrv_core::{BoxError, Engine, PartClaim, Settings};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{advance, pause};
use tokio_util::sync::CancellationToken;

/// A step that takes longer than anybody waits.
struct Endless(Arc<Notify>);

#[async_trait]
impl PublishStep for Endless {
    fn name(&self) -> &'static str {
        "endless"
    }

    async fn run(&self, _: &StepContext<'_>) -> Result<StepOutput, StepError> {
        self.0.notify_one();
        std::future::pending().await
    }
}

/// A node with one worker, which has begun what it will not end.
async fn busy_node() -> Result<Engine, BoxError> {
    let begun = Arc::new(Notify::new());
    let step = Endless(Arc::clone(&begun));
    let settings = Settings { workers: 1, ..Settings::default() };
    let engine = Engine::in_memory_with(|builder| builder.settings(settings).publish_step(step)).await?;
    let bytes = b"bytes";
    let digest = Digest::of(bytes);
    let size = bytes.len() as u64;
    let new =
        NewUpload { expected_digest: digest.clone(), expected_size: size, media_type_hint: None, filename_hint: None };
    let upload = engine.begin_upload(new).await?.id;
    let body = stream::iter([Ok(bytes::Bytes::from_static(bytes))]);
    let part = engine.put_part(upload, PartNumber::try_from(1)?, PartClaim::default(), body).await?;
    let listed = PartRef { number: part.number, etag: part.etag.to_string(), size: part.size };
    engine.complete_upload(upload, vec![listed]).await?;
    let (image, version) = ("debian".parse()?, "1.0".parse()?);
    engine.create_image(NewImage { name: "debian".parse()?, display_name: None, description: None }).await?;
    engine.create_version(&image, &version).await?;
    let artifact = NewArtifact {
        variant: Variant::default_variant(),
        operating_system: "linux".parse()?,
        architecture: "amd64".parse()?,
        format: "raw".parse()?,
        blob: BlobRef { digest, size, media_type: "application/octet-stream".parse()? },
        requirements: [].into(),
    };
    engine.add_artifact(&image, &version, artifact).await?;
    engine.publish_version(&image, &version).await?;
    tokio::spawn({
        let engine = engine.clone();
        async move { engine.run(CancellationToken::new()).await }
    });
    begun.notified().await;
    Ok(engine)
}

/// Lets time pass, and whoever waited for it do something.
async fn let_pass(time: Duration) {
    advance(time).await;
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_node_whose_workers_are_busy_is_well() {
    let engine = busy_node().await.expect("a node");
    pause();
    for _ in 0..60 {
        let_pass(Duration::from_secs(5)).await;
        engine.check_worker().expect("it waits for a worker that is free");
    }
}

#[tokio::test]
async fn a_node_whose_loop_is_gone_is_not() {
    let engine = Engine::in_memory().await.expect("an engine");
    let run = |stop: CancellationToken| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.run(stop).await })
    };
    let gone = run(CancellationToken::new());
    yield_now().await;
    gone.abort();
    gone.await.expect_err("it is gone");
    pause();
    let_pass(Duration::from_secs(59)).await;
    engine.check_worker().expect("it may come back");
    let_pass(Duration::from_secs(2)).await;
    engine.check_worker().expect_err("it does not");
}

#[tokio::test]
async fn a_node_that_was_told_to_stop_is_not_missed() {
    let engine = Engine::in_memory().await.expect("an engine");
    let stop = CancellationToken::new();
    let stopped = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.run(stop).await }
    });
    yield_now().await;
    stop.cancel();
    stopped.await.expect("it ends");
    pause();
    let_pass(Duration::from_secs(600)).await;
    engine.check_worker().expect("nobody expects it to go on");
}
