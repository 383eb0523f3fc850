//! A client that repeats what was not answered, and a node that something goes wrong on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use imgsrv_core::model::{
    AliasName, ArtifactId, BlobState, Digest, ImageName, JobId, NewImage, Part, PublishJob, Scope, Upload, UploadId,
    UploadState, VersionName,
};
use imgsrv_core::publish::{PublishStep, StepContext, StepError, StepOutput};
use imgsrv_core::testing::FaultPlan;
use imgsrv_core::{Engine, Error, PartClaim, Result, Settings};

use super::outcome::Outcome;
use crate::backend::{Pair, Servers};
use crate::fixture::{Fixture, artifact, attachment, body, image, listed, number, promise, read, version};

pub(crate) struct Client {
    pub f: Fixture,
    /// The node on which something goes wrong.
    pub engine: Engine,
    pub plan: FaultPlan,
    twice: Option<u32>,
    requests: AtomicU32,
}

pub(crate) type Draft = (ImageName, VersionName);

/// What an image is called whose step takes its time.
pub(crate) const SLOW: &str = "slow";
/// What an image is called whose step fails at first.
pub(crate) const STUMBLING: &str = "stumbling";

#[derive(Default)]
struct Scan {
    stumbled: AtomicBool,
}

#[async_trait]
impl PublishStep for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    async fn run(&self, cx: &StepContext<'_>) -> Result<StepOutput, StepError> {
        match cx.image().name.as_ref() {
            SLOW => tokio::time::sleep(Duration::from_millis(50)).await,
            STUMBLING if !self.stumbled.swap(true, Ordering::SeqCst) => {
                return Err(StepError::Retry("the scanner is away".into()));
            }
            _ => {}
        }
        Ok(None)
    }
}

impl Client {
    pub(crate) async fn new(pair: Pair, servers: &Servers, plan: FaultPlan, twice: Option<u32>) -> Self {
        let f = Fixture::new(pair, servers).await;
        // A lease that is renewed while a slow step runs.
        let settings = Settings { min_free: 0, lease: TimeDelta::milliseconds(60), ..Settings::default() };
        let node = || f.builder().settings(settings.clone()).publish_step(Scan::default()).faults(plan.clone()).build();
        let engine = match node().await {
            Ok(engine) => engine,
            Err(err) => {
                assert!(plan.has_fired(), "{err:?}");
                plan.heal();
                node().await.expect("a node that is started again")
            }
        };
        Self { f, engine, plan, twice, requests: AtomicU32::new(0) }
    }

    /// How many requests were made, repetitions not counted.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Makes a request, and again when it was not answered; the last answer, and whether there was one before it.
    async fn ask<T>(&self, request: impl AsyncFn(&Engine) -> Result<T>) -> (Result<T>, bool) {
        let nth = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answer = request(&self.engine).await;
        let unanswered = matches!(answer, Err(Error::Unavailable { .. })) && self.plan.has_fired();
        let again = unanswered || self.twice == Some(nth);
        if again {
            self.plan.heal();
            answer = request(&self.engine).await;
        }
        (answer, again)
    }

    /// A request that may be made any number of times.
    pub(crate) async fn call<T>(&self, request: impl AsyncFn(&Engine) -> Result<T>) -> T {
        self.ask(request).await.0.expect("an answer")
    }

    /// A request that is refused when it was done before.
    async fn once<T>(&self, request: impl AsyncFn(&Engine) -> Result<T>, done: fn(&Error) -> bool) {
        match self.ask(request).await {
            (Ok(_), _) => {}
            (Err(err), true) if done(&err) => {}
            (Err(err), _) => panic!("{err:?}"),
        }
    }

    async fn create<T>(&self, request: impl AsyncFn(&Engine) -> Result<T>) {
        self.once(request, |err| matches!(err, Error::AlreadyExists(_))).await;
    }

    async fn delete(&self, request: impl AsyncFn(&Engine) -> Result<()>) {
        self.once(request, |err| matches!(err, Error::NotFound(_))).await;
    }

    pub(crate) async fn begin(&self, bytes: &[u8]) -> Upload {
        self.call(async |engine| engine.begin_upload(promise(bytes)).await).await
    }

    pub(crate) async fn part(&self, upload: UploadId, at: i64, bytes: &[u8]) -> Part {
        self.call(async |engine| engine.put_part(upload, number(at), PartClaim::default(), body(bytes)).await).await
    }

    pub(crate) async fn complete(&self, upload: UploadId, parts: &[Part]) -> Upload {
        let listed: Vec<_> = parts.iter().map(listed).collect();
        self.call(async |engine| engine.complete_upload(upload, listed.clone()).await).await
    }

    /// Completes a session whose bytes are other ones; its state then.
    pub(crate) async fn complete_wrong(&self, upload: UploadId, part: &Part) -> UploadState {
        let complete = async |engine: &Engine| engine.complete_upload(upload, vec![listed(part)]).await;
        self.once(complete, |err| matches!(err, Error::Precondition { .. })).await;
        self.call(async |engine| engine.get_upload(upload).await).await.state
    }

    /// Sends a part whose last bytes take so long.
    pub(crate) async fn slow_part(&self, upload: UploadId, bytes: &[u8], takes: Duration) -> Part {
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        self.call(async |engine| {
            let late_bytes = bytes::Bytes::copy_from_slice(tail);
            let late = stream::once(async move {
                tokio::time::sleep(takes).await;
                Ok(late_bytes)
            });
            engine.put_part(upload, number(1), PartClaim::default(), body(head).chain(late)).await
        })
        .await
    }

    /// Uploads bytes in one part, unless they are known.
    pub(crate) async fn upload(&self, bytes: &[u8]) -> Digest {
        let upload = self.begin(bytes).await;
        if upload.state.word() != "ready" {
            let part = self.part(upload.id, 1, bytes).await;
            self.complete(upload.id, &[part]).await;
            self.work().await;
        }
        assert_eq!(self.call(async |engine| engine.get_upload(upload.id).await).await.state.word(), "ready");
        upload.expected_digest
    }

    pub(crate) async fn draft(&self, name: &str, number: &str) -> Draft {
        let (image, version) = (image(name), version(number));
        let new = NewImage { name: image.clone(), display_name: None, description: None };
        if self.call(async |engine| found(engine.get_image(&image, Scope::All).await)).await.is_none() {
            self.create(async |engine| engine.create_image(new.clone()).await).await;
        }
        self.create(async |engine| engine.create_version(&image, &version).await).await;
        (image, version)
    }

    pub(crate) async fn artifact(&self, draft: &Draft, format: &str, bytes: &[u8]) -> ArtifactId {
        let new = artifact(format, bytes);
        self.create(async |engine| engine.add_artifact(&draft.0, &draft.1, new.clone()).await).await;
        let manifest = self.call(async |engine| engine.get_manifest(&draft.0, &draft.1, Scope::All).await).await;
        let entry = manifest.artifacts.iter().find(|entry| entry.artifact.format == new.format);
        entry.expect("the artifact").artifact.id
    }

    pub(crate) async fn attach(&self, draft: &Draft, to: ArtifactId, name: &str, bytes: &[u8]) {
        let new = attachment(name, bytes);
        self.create(async |engine| engine.add_attachment(&draft.0, &draft.1, to, new.clone()).await).await;
    }

    pub(crate) async fn remove_attachment(&self, draft: &Draft, from: ArtifactId, name: &str) {
        let manifest = self.call(async |engine| engine.get_manifest(&draft.0, &draft.1, Scope::All).await).await;
        let entry = manifest.artifacts.iter().find(|entry| entry.artifact.id == from).expect("the artifact");
        let attached = entry.attachments.iter().find(|attached| attached.name.as_ref() == name).expect("it").id;
        self.delete(async |engine| engine.remove_attachment(&draft.0, &draft.1, from, attached).await).await;
    }

    pub(crate) async fn remove_artifact(&self, draft: &Draft, artifact: ArtifactId) {
        self.delete(async |engine| engine.remove_artifact(&draft.0, &draft.1, artifact).await).await;
    }

    pub(crate) async fn delete_draft(&self, draft: &Draft) {
        self.delete(async |engine| engine.delete_draft(&draft.0, &draft.1).await).await;
    }

    pub(crate) async fn delete_image(&self, image: &ImageName) {
        self.delete(async |engine| engine.delete_image(image).await).await;
    }

    /// Publishes a draft; its job at its end.
    pub(crate) async fn publish(&self, draft: &Draft) -> PublishJob {
        let job = self.call(async |engine| engine.publish_version(&draft.0, &draft.1).await).await;
        self.job_at_its_end(job.job.id).await
    }

    pub(crate) async fn retry(&self, id: JobId) -> PublishJob {
        self.once(async |engine| engine.retry_job(id).await, |err| matches!(err, Error::Precondition { .. })).await;
        self.job_at_its_end(id).await
    }

    async fn job_at_its_end(&self, id: JobId) -> PublishJob {
        self.work().await;
        self.call(async |engine| engine.get_job(id).await).await
    }

    pub(crate) async fn published(&self, name: &str, number: &str, bytes: &[u8]) -> Draft {
        let draft = self.draft(name, number).await;
        self.upload(bytes).await;
        self.artifact(&draft, "raw", bytes).await;
        let job = self.publish(&draft).await;
        assert_eq!(job.job.state().word(), "succeeded", "{:?}", job.job.last_error);
        draft
    }

    pub(crate) async fn point(&self, alias: &str, at: &Draft) {
        let alias: AliasName = alias.parse().expect("an alias");
        self.call(async |engine| engine.put_alias(&at.0, &alias, &at.1).await).await;
    }

    pub(crate) async fn delete_alias(&self, image: &ImageName, alias: &str) {
        let alias: AliasName = alias.parse().expect("an alias");
        self.delete(async |engine| engine.delete_alias(image, &alias).await).await;
    }

    /// Reads a blob, and again when its body broke off.
    pub(crate) async fn read(&self, digest: &Digest) -> Vec<u8> {
        match read(&self.engine, digest, None).await {
            Ok(bytes) => bytes,
            Err(err) => {
                assert!(self.plan.has_fired(), "{err:?}");
                self.plan.heal();
                read(&self.engine, digest, None).await.expect("the bytes")
            }
        }
    }

    /// Lets the node work, and time pass, until no job is left but the daily one.
    pub(crate) async fn work(&self) {
        for _ in 0..20 {
            if let Err(err) = self.engine.run_until_idle().await {
                assert!(self.plan.has_fired(), "{err:?}");
            }
            let left = "select count(*) from jobs where finished_at is null and kind <> 'list-objects'";
            if self.f.count(left).await == 0 {
                return;
            }
            assert!(
                self.plan.has_fired()
                    || self.f.count("select count(*) from jobs where last_error is not null").await > 0
            );
            self.plan.heal();
            self.f.clock.advance(TimeDelta::minutes(2));
        }
        panic!("a job hangs: {:?}", self.f.texts("select kind || ' ' || coalesce(last_error, '') from jobs").await);
    }

    /// Lets the node do the daily job, which is due.
    pub(crate) async fn work_on_the_daily_job(&self) {
        for _ in 0..5 {
            self.work().await;
            if self.f.count("select count(*) from jobs where finished_at is null and attempts = 0").await == 1 {
                return;
            }
            assert!(self.plan.has_fired());
            self.plan.heal();
            self.f.clock.advance(TimeDelta::minutes(2));
        }
        panic!("the daily job is not done");
    }

    /// Collects blobs that nobody needs.
    pub(crate) async fn collect(&self) {
        let plan = self.call(async |engine| engine.plan_sweep().await).await;
        self.call(async |engine| engine.carry_out(&plan).await).await;
    }

    /// Reads a blob whose object is gone, until that is known.
    pub(crate) async fn is_unavailable(&self, digest: &Digest) {
        for _ in 0..3 {
            let answer = read(&self.engine, digest, None).await;
            assert!(answer.is_err(), "bytes that are gone");
            if self.f.blob_state(digest).await == BlobState::Damaged {
                return;
            }
            assert!(self.plan.has_fired());
            self.plan.heal();
        }
        panic!("it is not marked");
    }

    /// Lets the node sweep, however often it takes.
    pub(crate) async fn sweep(&self) {
        self.call(async |engine| engine.sweep().await).await;
    }

    /// Nothing goes wrong any more, and every grace period passes: what is there then.
    pub(crate) async fn end(self) -> Outcome {
        self.plan.heal();
        self.work().await;
        for _ in 0..3 {
            self.f.tidy().await;
        }
        let outcome = Outcome::of(&self.f).await;
        self.f.finish().await;
        outcome
    }
}

/// That something is not there is an answer too.
pub(crate) fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(Error::NotFound(_)) => Ok(None),
        answer => answer.map(Some),
    }
}
