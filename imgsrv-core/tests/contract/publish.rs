//! Publishing: jobs, their steps, and workers that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use chrono::TimeDelta;
use imgsrv_core::model::{
    Digest, ImageName, JobId, JobState, NewArtifact, PublishJob, Scope, Step, StepState, Subject, UploadState,
    VersionName, VersionState,
};
use imgsrv_core::publish::{PublishStep, StepContext, StepError, StepOutput};
use imgsrv_core::{Condition, Engine, Error, FieldError, Settings};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::fixture::{Fixture, artifact, attachment, bytes, condition, listed};
use crate::gate::Readers;

crate::behaviours!(
    the_steps_of_a_publish,
    publishing_again_is_the_same_job,
    two_nodes_publish_once,
    the_hash_of_metadata_and_root,
    what_is_missing_is_named,
    product_keys_that_collide_are_named,
    roots_of_one_metadata_share_a_product,
    a_step_of_an_embedder,
    names_of_steps_are_unique,
    a_rejection_fails_the_job,
    a_retry_goes_on_where_it_failed,
    errors_are_tried_again_later,
    delays_begin_anew_after_a_retry,
    a_panic_is_tried_again_later,
    panics_without_end_are_a_crash_loop,
    what_cannot_be_retried,
    abandoning_a_queued_job,
    abandoning_a_running_job,
    abandoning_a_failed_job,
    publishing_again_after_a_node_whose_clock_is_ahead,
    abandoning_a_published_version_is_refused,
    the_states_of_a_job_are_written_down,
    a_lost_object_fails_the_job,
    an_object_that_is_lost_meanwhile_fails_the_job,
    a_blob_that_is_damaged_at_the_last_moment,
    a_step_that_takes_long_is_shown,
    a_failure_is_that_of_the_step_that_failed,
    a_bug_in_the_last_step_is_its_own,
    a_lease_is_renewed_while_the_work_goes_on,
    an_expired_lease_is_taken_over,
    a_late_failure_changes_nothing,
    five_expired_leases_are_a_crash_loop,
    a_node_without_the_step_gives_the_job_back,
    text_that_no_database_takes,
);

type Draft = (ImageName, VersionName);

/// A step that does what a closure says.
struct Calls<F>(&'static str, F);

#[async_trait]
impl<F> PublishStep for Calls<F>
where
    F: Fn(&StepContext<'_>) -> Result<StepOutput, StepError> + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.0
    }

    async fn run(&self, cx: &StepContext<'_>) -> Result<StepOutput, StepError> {
        self.1(cx)
    }
}

fn calls<F>(name: &'static str, call: F) -> Calls<F>
where
    F: Fn(&StepContext<'_>) -> Result<StepOutput, StepError> + Send + Sync + 'static,
{
    Calls(name, call)
}

/// A step that says when it has begun, and waits until it may go on.
struct Blocks {
    begun: mpsc::UnboundedSender<()>,
    go: Arc<Semaphore>,
    answer: fn() -> Result<StepOutput, StepError>,
}

#[async_trait]
impl PublishStep for Blocks {
    fn name(&self) -> &'static str {
        "scan"
    }

    async fn run(&self, _: &StepContext<'_>) -> Result<StepOutput, StepError> {
        self.begun.send(()).ok();
        self.go.acquire().await?.forget();
        (self.answer)()
    }
}

/// A node whose step `scan` blocks; what tells that it has begun; what lets it go on.
async fn blocking(
    f: &Fixture,
    answer: fn() -> Result<StepOutput, StepError>,
) -> (Engine, mpsc::UnboundedReceiver<()>, Arc<Semaphore>) {
    let (begun, has_begun) = mpsc::unbounded_channel();
    let go = Arc::new(Semaphore::new(0));
    (f.node(Blocks { begun, go: Arc::clone(&go), answer }).await, has_begun, go)
}

async fn job(f: &Fixture, id: JobId) -> PublishJob {
    f.engine.get_job(id).await.expect("the job")
}

fn step<'a>(job: &'a PublishJob, name: &str) -> &'a Step {
    job.steps.iter().find(|step| step.name == name).expect("the step")
}

/// `<name> <sequence> <state> <attempts>` of each step.
fn steps(job: &PublishJob) -> Vec<String> {
    job.steps.iter().map(|step| format!("{} {} {} {}", step.name, step.sequence, step.state, step.attempts)).collect()
}

async fn runs(engine: &Engine, jobs: u64) {
    assert_eq!(engine.run_until_idle().await.expect("jobs").jobs, jobs);
}

/// A draft with one artifact.
async fn draft(f: &Fixture) -> Draft {
    let draft = f.draft().await;
    f.artifact(&draft, "raw", &bytes(1, 100)).await;
    draft
}

async fn publish(engine: &Engine, draft: &Draft) -> PublishJob {
    engine.publish_version(&draft.0, &draft.1).await.expect("a job")
}

async fn published_events(f: &Fixture, job: &PublishJob) -> usize {
    f.events(Subject::Version, job.version_id).await.iter().filter(|event| event.contains(": published ")).count()
}

async fn the_steps_of_a_publish(f: &Fixture) {
    let draft = draft(f).await;
    let queued = publish(&f.engine, &draft).await;
    assert_eq!((queued.job.state(), &queued.image, &queued.version), (JobState::Queued, &draft.0, &draft.1));
    assert_eq!(
        steps(&queued),
        ["validate_catalog 10 queued 0", "incus_index 20 queued 0", "finalize_publish 30 queued 0"]
    );
    assert_eq!((queued.job.started_at, queued.job.finished_at), (None, None));
    assert_eq!(f.version_state(&draft).await, VersionState::Publishing);
    assert_eq!(job(f, queued.job.id).await, queued);

    f.clock.advance(TimeDelta::seconds(3));
    runs(&f.other, 1).await;
    let done = job(f, queued.job.id).await;
    assert_eq!((done.job.state(), done.job.attempts, &done.job.last_error), (JobState::Succeeded, 1, &None));
    assert_eq!(
        steps(&done),
        ["validate_catalog 10 succeeded 1", "incus_index 20 succeeded 1", "finalize_publish 30 succeeded 1"]
    );
    assert_eq!((done.job.started_at, done.job.finished_at), (Some(f.clock.now()), Some(f.clock.now())));
    assert!(done.steps.iter().all(|step| step.started_at.is_some() && step.finished_at.is_some()));
    let version = f.engine.get_manifest(&draft.0, &draft.1, Scope::Published).await.expect("a manifest").version;
    assert_eq!((version.state, version.published_at), (VersionState::Published, Some(f.clock.now())));
    assert_eq!(version.id, done.version_id);
    assert_eq!(published_events(f, &done).await, 1);
    let unknown = f.engine.get_job(f.clock.new_id().into()).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

async fn publishing_again_is_the_same_job(f: &Fixture) {
    let draft = draft(f).await;
    let first = publish(&f.engine, &draft).await;
    assert_eq!(publish(&f.other, &draft).await, first);
    runs(&f.engine, 1).await;
    let done = publish(&f.other, &draft).await;
    assert_eq!((done.job.id, done.job.state()), (first.job.id, JobState::Succeeded));
    runs(&f.engine, 0).await;
    let unknown = f.engine.publish_version(&draft.0, &crate::fixture::version("2")).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

async fn two_nodes_publish_once(f: &Fixture) {
    let draft = draft(f).await;
    for _ in 0..5 {
        let (one, two) = tokio::join!(publish(&f.engine, &draft), publish(&f.other, &draft));
        assert_eq!(one.job.id, two.job.id);
    }
    assert_eq!(f.count("select count(*) from jobs where kind = 'publish'").await, 1);
    let (one, two) = tokio::join!(f.engine.run_until_idle(), f.other.run_until_idle());
    assert_eq!(one.expect("jobs").jobs + two.expect("jobs").jobs, 1);
    let done = publish(&f.engine, &draft).await;
    assert_eq!(done.job.state(), JobState::Succeeded);
    assert_eq!(published_events(f, &done).await, 1);
}

async fn the_hash_of_metadata_and_root(f: &Fixture) {
    let draft = f.draft().await;
    let (metadata, disk, root) = (bytes(2, 700), bytes(3, 2_000_000), bytes(4, 300_000));
    for blob in [&metadata, &b"other".to_vec()] {
        f.upload(blob).await;
    }
    let attach = async |id, name: &str, bytes: &[u8]| {
        f.engine.add_attachment(&draft.0, &draft.1, id, attachment(name, bytes)).await.expect("an attachment");
    };
    let disk_id = f.artifact(&draft, "qcow2", &disk).await;
    attach(disk_id, "incus.tar.xz", &metadata).await;
    attach(disk_id, "a.txt", b"other").await;
    let root_id = f.artifact(&draft, "root.tar.xz", &root).await;
    attach(root_id, "incus.tar.xz", &metadata).await;
    let plain = f.artifact(&draft, "raw", &disk).await;
    attach(plain, "incus.tar.xz", &metadata).await;
    let mut cloud = artifact("incus_combined.tar.gz", &disk);
    cloud.variant = "cloud".parse().expect("a variant");
    let combined = f.engine.add_artifact(&draft.0, &draft.1, cloud).await.expect("an artifact").id;
    let mut bare = artifact("squashfs", &root);
    bare.variant = "bare".parse().expect("a variant");
    f.engine.add_artifact(&draft.0, &draft.1, bare).await.expect("without metadata Incus cannot use it");
    let done = f.publish(&draft).await;
    assert_eq!(done.job.state(), JobState::Succeeded, "{:?}", done.job.last_error);
    let expected = json!({ "combined_sha256": {
        disk_id.to_string(): Digest::of(&[&metadata[..], &disk].concat()),
        root_id.to_string(): Digest::of(&[&metadata[..], &root].concat()),
        combined.to_string(): Digest::of(&disk),
    }});
    assert_eq!(step(&done, "incus_index").output, Some(expected));
}

/// What is said to keep a version from being published; it is still a draft.
async fn not_publishable(f: &Fixture, draft: &Draft) -> Vec<FieldError> {
    let errors = match f.engine.publish_version(&draft.0, &draft.1).await {
        Err(Error::Precondition { condition: Condition::NotPublishable, errors, .. }) => errors,
        other => panic!("{other:?}"),
    };
    assert_eq!(f.version_state(draft).await, VersionState::Draft);
    assert_eq!(f.count("select count(*) from jobs where kind = 'publish'").await, 0);
    errors
}

async fn what_is_missing_is_named(f: &Fixture) {
    let draft = f.draft().await;
    let fields = async || {
        not_publishable(f, &draft).await.into_iter().map(|error| (error.field, error.reason)).collect::<Vec<_>>()
    };
    assert_eq!(fields().await[0].0, "artifacts");
    let there = bytes(5, 10);
    f.upload(&there).await;
    let add = async |new| f.engine.add_artifact(&draft.0, &draft.1, new).await.expect("an artifact").id;
    let missing = add(artifact("raw", b"never sent")).await;
    let mut wrong = artifact("iso", &there);
    wrong.blob.size = 11;
    let wrong = add(wrong).await;
    let fine = add(artifact("vmdk", &there)).await;
    let attached =
        f.engine.add_attachment(&draft.0, &draft.1, fine, attachment("a", b"nor this")).await.expect("one").id;
    let mut said = fields().await;
    said.sort();
    let mut expected = vec![
        (format!("artifacts/{missing}/primary_blob_digest"), "has not been uploaded"),
        (format!("artifacts/{wrong}/primary_blob_digest"), "has 10 bytes, declared are 11"),
        (format!("artifacts/{fine}/attachments/{attached}/blob_digest"), "has not been uploaded"),
    ];
    expected.sort();
    assert_eq!(said.len(), 3, "{said:?}");
    for ((field, reason), (expected_field, expected_reason)) in said.iter().zip(&expected) {
        assert_eq!(field, expected_field);
        assert!(reason.contains(expected_reason), "{reason}");
    }
    f.upload(b"never sent").await;
    f.upload(b"nor this").await;
    f.engine.remove_artifact(&draft.0, &draft.1, wrong).await.expect("one less");
    assert_eq!(f.publish(&draft).await.job.state(), JobState::Succeeded);
}

async fn product_keys_that_collide_are_named(f: &Fixture) {
    let whole = bytes(6, 10);
    let metadata = bytes(7, 10);
    for blob in [&whole, &metadata] {
        f.upload(blob).await;
    }
    let like = |operating_system: &str, architecture: &str, format: &str| NewArtifact {
        operating_system: operating_system.parse().expect("an operating system"),
        architecture: architecture.parse().expect("an architecture"),
        ..artifact(format, &whole)
    };
    let cases = [
        ("one architecture by two names", like("linux", "amd64", "qcow2"), like("linux", "x86_64", "qcow2"), &metadata),
        ("two operating systems", like("linux", "amd64", "qcow2"), like("freebsd", "amd64", "qcow2"), &metadata),
        ("other metadata", like("linux", "arm64", "qcow2"), like("linux", "aarch64", "squashfs"), &whole),
    ];
    for (number, (case, first, second, second_metadata)) in cases.into_iter().enumerate() {
        let draft = f.draft_as("debian", &number.to_string()).await;
        let add = async |new, metadata: &[u8]| {
            let id = f.engine.add_artifact(&draft.0, &draft.1, new).await.expect("an artifact").id;
            let metadata = attachment("incus.tar.xz", metadata);
            (id, f.engine.add_attachment(&draft.0, &draft.1, id, metadata).await.expect("an attachment").id)
        };
        let (first, _) = add(first, &metadata).await;
        let (second, attached) = add(second, second_metadata).await;
        let errors = not_publishable(f, &draft).await;
        assert_eq!(errors.len(), 1, "{case}: {errors:?}");
        assert_eq!(errors[0].field, format!("artifacts/{second}"), "{case}");
        assert!(errors[0].reason.contains(&first.to_string()), "{case}: {errors:?}");
        f.engine.remove_attachment(&draft.0, &draft.1, second, attached).await.expect("now Incus cannot use it");
        publish(&f.engine, &draft).await;
        runs(&f.engine, 1).await;
        f.sql("delete from jobs where kind = 'publish'").await.expect("for the next case");
    }
}

async fn roots_of_one_metadata_share_a_product(f: &Fixture) {
    let metadata = bytes(8, 10);
    f.upload(&metadata).await;
    let draft = f.draft().await;
    for (seed, format) in ["qcow2", "squashfs", "root.tar.xz"].into_iter().enumerate() {
        let id = f.artifact(&draft, format, &bytes(seed as u64, 20)).await;
        let metadata = attachment("incus.tar.xz", &metadata);
        f.engine.add_attachment(&draft.0, &draft.1, id, metadata).await.expect("an attachment");
    }
    let done = f.publish(&draft).await;
    assert_eq!(done.job.state(), JobState::Succeeded, "{:?}", done.job.last_error);
}

async fn a_step_of_an_embedder(f: &Fixture) {
    let draft = draft(f).await;
    let node = f
        .node(calls("scan", |cx| {
            let seen = (cx.image().name.as_ref(), cx.version().version.as_ref(), cx.version().state.word());
            assert_eq!(seen, ("debian", "1.0", "publishing"));
            assert!(!cx.cancelled().is_cancelled());
            assert_eq!(cx.output("validate_catalog"), None);
            assert_eq!(cx.output("scan"), None, "it is not done yet");
            Ok(Some(json!({ "files": cx.artifacts().len(), "saw": cx.output("incus_index") })))
        }))
        .await;
    let queued = publish(&node, &draft).await;
    assert_eq!(step(&queued, "scan").sequence, 21);
    runs(&node, 1).await;
    let done = job(f, queued.job.id).await;
    assert_eq!(
        steps(&done),
        [
            "validate_catalog 10 succeeded 1",
            "incus_index 20 succeeded 1",
            "scan 21 succeeded 1",
            "finalize_publish 30 succeeded 1",
        ]
    );
    let expected = json!({ "files": 1, "saw": { "combined_sha256": {} } });
    assert_eq!(step(&done, "scan").output, Some(expected));
}

async fn names_of_steps_are_unique(f: &Fixture) {
    for name in ["validate_catalog", "incus_index", "finalize_publish"] {
        let refused = f.builder().publish_step(calls(name, |_| Ok(None))).build().await;
        assert!(matches!(refused, Err(Error::Invalid { what: "publish steps", .. })), "{name}");
    }
    let twice = f.builder().publish_step(calls("a", |_| Ok(None))).publish_step(calls("a", |_| Ok(None)));
    assert!(matches!(twice.build().await, Err(Error::Invalid { what: "publish steps", .. })));
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let nine = names.into_iter().fold(f.builder(), |builder, name| builder.publish_step(calls(name, |_| Ok(None))));
    let node = nine.build().await.expect("nine fit between 20 and 30");
    let draft = draft(f).await;
    let places: Vec<_> = publish(&node, &draft).await.steps.iter().map(|step| step.sequence).collect();
    assert_eq!(places, [10, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
    runs(&node, 1).await;
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
    let ten = names.into_iter().chain(["j"]);
    let ten = ten.fold(f.builder(), |builder, name| builder.publish_step(calls(name, |_| Ok(None))));
    assert!(matches!(ten.build().await, Err(Error::Invalid { what: "publish steps", .. })));
}

async fn a_rejection_fails_the_job(f: &Fixture) {
    let draft = draft(f).await;
    let node = f.node(calls("scan", |_| Err(StepError::Reject("a virus: Ünïcode".to_owned())))).await;
    let queued = publish(&node, &draft).await;
    runs(&node, 1).await;
    let failed = job(f, queued.job.id).await;
    assert_eq!((failed.job.state(), failed.job.last_error.as_deref()), (JobState::Failed, Some("a virus: Ünïcode")));
    assert_eq!(steps(&failed)[1..], ["incus_index 20 succeeded 1", "scan 21 failed 1", "finalize_publish 30 queued 0"]);
    assert_eq!(step(&failed, "scan").failure_message.as_deref(), Some("a virus: Ünïcode"));
    assert!(failed.job.finished_at.is_some() && step(&failed, "scan").finished_at.is_some());
    assert_eq!(f.version_state(&draft).await, VersionState::Publishing);
    assert_eq!(publish(&f.engine, &draft).await.job.id, queued.job.id, "publishing again does not retry");
    f.clock.advance(TimeDelta::hours(1));
    runs(&node, 0).await;
}

async fn a_retry_goes_on_where_it_failed(f: &Fixture) {
    let draft = draft(f).await;
    let ran = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&ran);
    let node = f
        .node(calls("scan", move |_| match counter.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(StepError::Reject("no".to_owned())),
            _ => Ok(Some(json!("yes"))),
        }))
        .await;
    let id = publish(&node, &draft).await.job.id;
    runs(&node, 1).await;
    for attempt in 2..=3 {
        f.clock.advance(TimeDelta::days(40));
        let queued = f.other.retry_job(id).await.expect("a retry");
        assert_eq!(
            (queued.job.state(), &queued.job.last_error, queued.job.finished_at),
            (JobState::Queued, &None, None)
        );
        // The listing is due too, after all this time.
        runs(&node, 2).await;
        assert_eq!(step(&job(f, id).await, "scan").attempts, attempt);
    }
    let done = job(f, id).await;
    assert_eq!(
        steps(&done),
        [
            "validate_catalog 10 succeeded 1",
            "incus_index 20 succeeded 1",
            "scan 21 succeeded 3",
            "finalize_publish 30 succeeded 1",
        ]
    );
    assert_eq!((&step(&done, "scan").output, &step(&done, "scan").failure_message), (&Some(json!("yes")), &None));
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

async fn errors_are_tried_again_later(f: &Fixture) {
    let draft = draft(f).await;
    let ran = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&ran);
    let node = f
        .node(calls("scan", move |_| {
            if counter.fetch_add(1, Ordering::Relaxed) < 6 {
                Err(std::io::Error::other("the scanner is away"))?;
            }
            Ok(None)
        }))
        .await;
    let id = publish(&node, &draft).await.job.id;
    runs(&node, 1).await;
    let waiting = job(f, id).await;
    assert_eq!(
        (waiting.job.state(), waiting.job.last_error.as_deref()),
        (JobState::Queued, Some("the scanner is away"))
    );
    assert_eq!(step(&waiting, "scan").failure_message.as_deref(), Some("the scanner is away"));
    assert_eq!(waiting.job.finished_at, None);
    // 5 s doubled each time, 60 s at most, less up to a half.
    for (attempt, delay) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
        f.clock.advance(TimeDelta::milliseconds(delay * 500 - 1));
        runs(&node, 0).await;
        f.clock.advance(TimeDelta::milliseconds(delay * 500 + 1));
        runs(&node, 1).await;
        let job = job(f, id).await;
        assert_eq!(step(&job, "scan").attempts as usize, attempt + 2);
        assert_eq!(job.job.attempts as usize, attempt + 2);
    }
    let done = job(f, id).await;
    assert_eq!((done.job.state(), &done.job.last_error), (JobState::Succeeded, &None));
    assert_eq!(step(&done, "validate_catalog").attempts, 1);
}

async fn delays_begin_anew_after_a_retry(f: &Fixture) {
    let draft = draft(f).await;
    let ran = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&ran);
    let node = f
        .node(calls("scan", move |_| match counter.fetch_add(1, Ordering::Relaxed) {
            6 => Err(StepError::Reject("no".to_owned())),
            8 => Ok(None),
            _ => Err(std::io::Error::other("the scanner is away").into()),
        }))
        .await;
    let id = publish(&node, &draft).await.job.id;
    runs(&node, 1).await;
    for _ in 0..6 {
        f.clock.advance(TimeDelta::minutes(1));
        runs(&node, 1).await;
    }
    assert_eq!(job(f, id).await.job.state(), JobState::Failed);
    let retried = f.engine.retry_job(id).await.expect("a retry");
    assert_eq!(retried.job.attempts, 0);
    runs(&node, 1).await;
    assert_eq!(job(f, id).await.job.state(), JobState::Queued);
    f.clock.advance(TimeDelta::seconds(5));
    runs(&node, 1).await;
    assert_eq!(job(f, id).await.job.state(), JobState::Succeeded, "the first delay, not the longest");
}

async fn a_panic_is_tried_again_later(f: &Fixture) {
    let draft = draft(f).await;
    let ran = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&ran);
    let node = f
        .node(calls("scan", move |_| {
            assert!(counter.fetch_add(1, Ordering::Relaxed) > 0, "this panic belongs to the test");
            Ok(None)
        }))
        .await;
    let id = publish(&node, &draft).await.job.id;
    runs(&node, 1).await;
    let waiting = job(f, id).await;
    assert_eq!((waiting.job.state(), waiting.job.last_error.as_deref()), (JobState::Queued, Some("the job panicked")));
    f.clock.advance(TimeDelta::seconds(5));
    runs(&node, 1).await;
    assert_eq!(step(&job(f, id).await, "scan").attempts, 2);
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

async fn panics_without_end_are_a_crash_loop(f: &Fixture) {
    let draft = draft(f).await;
    let node = f.node(calls("scan", |_| panic!("this panic belongs to the test"))).await;
    let id = publish(&node, &draft).await.job.id;
    for _ in 0..5 {
        runs(&node, 1).await;
        assert_eq!(job(f, id).await.job.state(), JobState::Queued);
        f.clock.advance(TimeDelta::minutes(1));
    }
    runs(&node, 1).await;
    let failed = job(f, id).await;
    assert_eq!(failed.job.state(), JobState::Failed);
    assert!(failed.job.last_error.is_some_and(|reason| reason.starts_with("crash-loop")));
    assert_eq!(step(&job(f, id).await, "scan").attempts, 5);
    assert_eq!(f.version_state(&draft).await, VersionState::Publishing);
    f.engine.abandon_job(id).await.expect("it can be given up");
}

async fn what_cannot_be_retried(f: &Fixture) {
    let draft = draft(f).await;
    let id = publish(&f.engine, &draft).await.job.id;
    assert_eq!(condition(f.engine.retry_job(id).await), Condition::WrongState, "queued");
    f.engine.abandon_job(id).await.expect("abandon");
    assert_eq!(condition(f.engine.retry_job(id).await), Condition::WrongState, "abandoned");
    let id = publish(&f.engine, &draft).await.job.id;
    runs(&f.engine, 1).await;
    assert_eq!(condition(f.engine.retry_job(id).await), Condition::WrongState, "succeeded");
    let hex = if f.pair.is_postgres() { "replace(cast(id as text), '-', '')" } else { "hex(id)" };
    let listing = f.texts(&format!("select {hex} from jobs where kind = 'list-objects'")).await;
    let listing = listing[0].parse::<uuid::Uuid>().expect("an id");
    for id in [listing, f.clock.new_id()] {
        for unknown in [f.engine.retry_job(id.into()).await, f.engine.abandon_job(id.into()).await] {
            assert!(matches!(unknown, Err(Error::NotFound(_))), "only publish jobs are for clients: {unknown:?}");
        }
    }
    assert_eq!(f.count("select count(*) from jobs where kind = 'list-objects' and outcome is null").await, 1);
}

/// Publishes a draft again, which was abandoned.
async fn publish_again(f: &Fixture, draft: &Draft, abandoned: JobId) {
    assert_eq!(f.version_state(draft).await, VersionState::Draft);
    f.engine.add_artifact(&draft.0, &draft.1, artifact("iso", &bytes(1, 100))).await.expect("it can be edited");
    let again = publish(&f.engine, draft).await;
    assert_ne!(again.job.id, abandoned);
    assert_eq!(again.job.state(), JobState::Queued);
    runs(&f.engine, 1).await;
    assert_eq!(job(f, again.job.id).await.job.state(), JobState::Succeeded);
    assert_eq!(f.version_state(draft).await, VersionState::Published);
    assert_eq!(publish(&f.engine, draft).await.job.id, again.job.id, "the newest job counts");
}

async fn abandoning_a_queued_job(f: &Fixture) {
    let draft = draft(f).await;
    let id = publish(&f.engine, &draft).await.job.id;
    f.clock.advance(TimeDelta::seconds(1));
    let abandoned = f.other.abandon_job(id).await.expect("abandon");
    assert_eq!((abandoned.job.state(), abandoned.job.last_error.as_deref()), (JobState::Failed, Some("abandoned")));
    assert!(abandoned.steps.iter().all(|step| step.state == StepState::Skipped));
    assert_eq!(abandoned.job.finished_at, Some(f.clock.now()));
    f.clock.advance(TimeDelta::seconds(1));
    assert_eq!(f.engine.abandon_job(id).await.expect("once more"), abandoned, "unchanged");
    runs(&f.engine, 0).await;
    publish_again(f, &draft, id).await;
    assert_eq!(f.engine.abandon_job(id).await.expect("the old one"), abandoned, "unchanged");
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

async fn abandoning_a_running_job(f: &Fixture) {
    let draft = draft(f).await;
    let (node, mut begun, go) = blocking(f, || Ok(Some(json!("late")))).await;
    let id = publish(&node, &draft).await.job.id;
    let worker = tokio::spawn({
        let node = node.clone();
        async move { node.run_until_idle().await }
    });
    begun.recv().await.expect("it has begun");
    assert_eq!(job(f, id).await.job.state(), JobState::Running);
    let abandoned = f.other.abandon_job(id).await.expect("abandon");
    assert_eq!(
        steps(&abandoned)[1..],
        ["incus_index 20 succeeded 1", "scan 21 skipped 1", "finalize_publish 30 skipped 0"]
    );
    publish_again(f, &draft, id).await;
    go.add_permits(1);
    worker.await.expect("no panic").expect("jobs");
    assert_eq!(job(f, id).await, abandoned, "what comes late is dropped");
}

async fn abandoning_a_failed_job(f: &Fixture) {
    let draft = draft(f).await;
    let node = f.node(calls("scan", |_| Err(StepError::Reject("no".to_owned())))).await;
    let id = publish(&node, &draft).await.job.id;
    runs(&node, 1).await;
    let abandoned = f.engine.abandon_job(id).await.expect("abandon");
    assert_eq!(
        steps(&abandoned)[1..],
        ["incus_index 20 succeeded 1", "scan 21 failed 1", "finalize_publish 30 skipped 0"]
    );
    assert_eq!(step(&abandoned, "scan").failure_message.as_deref(), Some("no"));
    publish_again(f, &draft, id).await;
}

async fn publishing_again_after_a_node_whose_clock_is_ahead(f: &Fixture) {
    let draft = draft(f).await;
    f.clock.advance(TimeDelta::seconds(3));
    let abandoned = publish(&f.other, &draft).await.job.id;
    f.engine.abandon_job(abandoned).await.expect("abandon");
    f.clock.advance(-TimeDelta::seconds(3));
    let again = publish(&f.engine, &draft).await.job;
    assert_ne!(again.id, abandoned);
    assert_eq!(publish(&f.engine, &draft).await.job.id, again.id, "an abandoned job is no answer");
    runs(&f.engine, 1).await;
    assert_eq!(publish(&f.engine, &draft).await.job.id, again.id);
}

async fn abandoning_a_published_version_is_refused(f: &Fixture) {
    let draft = draft(f).await;
    let done = f.publish(&draft).await;
    assert_eq!(condition(f.engine.abandon_job(done.job.id).await), Condition::WrongState);
    assert_eq!(job(f, done.job.id).await, done);
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

async fn the_states_of_a_job_are_written_down(f: &Fixture) {
    let draft = draft(f).await;
    let (failing, mut begun, go) = blocking(f, || Err(StepError::Reject("no".to_owned()))).await;
    let told = async |id: JobId| {
        let events = f.events(Subject::Job, id).await;
        events.iter().map(|event| event.trim_start_matches("system:engine: ").to_owned()).collect::<Vec<_>>()
    };
    let (failed, retried) = ("failed [running → failed]", "retried [failed → queued]");

    let id = publish(&failing, &draft).await.job.id;
    f.engine.abandon_job(id).await.expect("abandon");
    assert_eq!(told(id).await, ["abandoned [queued → abandoned]"]);
    f.engine.abandon_job(id).await.expect("once more");
    assert_eq!(told(id).await.len(), 1, "nothing has changed");

    f.clock.advance(TimeDelta::seconds(1));
    let id = publish(&failing, &draft).await.job.id;
    go.add_permits(2);
    runs(&failing, 1).await;
    f.engine.retry_job(id).await.expect("a retry");
    runs(&failing, 1).await;
    f.engine.abandon_job(id).await.expect("abandon");
    assert_eq!(told(id).await, [failed, retried, failed, "abandoned [failed → abandoned]"]);

    f.clock.advance(TimeDelta::seconds(1));
    let id = publish(&failing, &draft).await.job.id;
    while begun.try_recv().is_ok() {}
    let worker = tokio::spawn(async move { failing.run_until_idle().await });
    begun.recv().await.expect("it has begun");
    f.engine.abandon_job(id).await.expect("abandon");
    assert_eq!(told(id).await, ["abandoned [running → abandoned]"]);
    go.add_permits(1);
    worker.await.expect("no panic").expect("jobs");
    assert_eq!(told(id).await.len(), 1, "what comes late is dropped");
}

/// Deletes the first object of a blob behind everybody's back.
async fn lose(f: &Fixture, bytes: &[u8]) {
    let objects = f.engine.blob_objects(&Digest::of(bytes)).await.expect("objects");
    f.store.delete(&objects[0].key).await.expect("an object less");
}

async fn upload_again(f: &Fixture, bytes: &[u8]) {
    let upload = f.begin(bytes).await;
    assert_eq!(upload.state, UploadState::Created);
    let part = f.part(upload.id, 1, bytes).await.expect("a part");
    f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
}

async fn a_lost_object_fails_the_job(f: &Fixture) {
    let draft = draft(f).await;
    lose(f, &bytes(1, 100)).await;
    let id = publish(&f.engine, &draft).await.job.id;
    runs(&f.engine, 1).await;
    let failed = job(f, id).await;
    assert_eq!(failed.job.state(), JobState::Failed);
    assert_eq!(steps(&failed)[0], "validate_catalog 10 failed 1");
    let reason = failed.job.last_error.expect("a reason");
    assert!(reason.contains(Digest::of(&bytes(1, 100)).as_ref()), "{reason}");
    f.engine.retry_job(id).await.expect("a retry");
    runs(&f.engine, 1).await;
    assert_eq!(steps(&job(f, id).await)[0], "validate_catalog 10 failed 2");
    upload_again(f, &bytes(1, 100)).await;
    f.engine.retry_job(id).await.expect("a retry");
    runs(&f.engine, 1).await;
    assert_eq!(job(f, id).await.job.state(), JobState::Succeeded);
    assert_eq!(f.read(&Digest::of(&bytes(1, 100))).await.expect("a blob"), bytes(1, 100));
    f.tidy().await;
}

async fn an_object_that_is_lost_meanwhile_fails_the_job(f: &Fixture) {
    let (metadata, disk) = (bytes(2, 10), bytes(3, 100));
    f.upload(&metadata).await;
    let draft = f.draft().await;
    let artifact = f.artifact(&draft, "qcow2", &disk).await;
    let metadata = attachment("incus.tar.xz", &metadata);
    f.engine.add_attachment(&draft.0, &draft.1, artifact, metadata).await.expect("an attachment");
    let id = publish(&f.engine, &draft).await.job.id;
    // As if it was lost right after validate_catalog had looked.
    f.sql("update publish_steps set state = 'succeeded' where name = 'validate_catalog'").await.expect("a step");
    lose(f, &disk).await;
    runs(&f.engine, 1).await;
    let failed = job(f, id).await;
    assert_eq!(failed.job.state(), JobState::Failed, "an object that does not exist is a refusal");
    assert_eq!(steps(&failed)[1], "incus_index 20 failed 1");
    upload_again(f, &disk).await;
    f.engine.retry_job(id).await.expect("a retry");
    runs(&f.engine, 1).await;
    assert_eq!(job(f, id).await.job.state(), JobState::Succeeded);
    f.tidy().await;
}

async fn a_blob_that_is_damaged_at_the_last_moment(f: &Fixture) {
    let draft = draft(f).await;
    let digest = Digest::of(&bytes(1, 100));
    let damage = format!("update blobs set state = 'damaged' where digest = '{digest}'");
    let (node, mut begun, go) = blocking(f, || Ok(None)).await;
    let id = publish(&node, &draft).await.job.id;
    let worker = tokio::spawn({
        let node = node.clone();
        async move { node.run_until_idle().await }
    });
    begun.recv().await.expect("it has begun");
    f.sql(&damage).await.expect("a blob");
    go.add_permits(1);
    worker.await.expect("no panic").expect("jobs");
    let failed = job(f, id).await;
    assert_eq!((failed.job.state(), &*steps(&failed)[3]), (JobState::Failed, "finalize_publish 30 failed 1"));
    assert!(failed.job.last_error.is_some_and(|reason| reason.contains(digest.as_ref())));
    assert_eq!(f.version_state(&draft).await, VersionState::Publishing);
    assert_eq!(f.engine.sweep().await.expect("a sweep").blobs_repaired, 1, "its object is there");
    f.engine.retry_job(id).await.expect("a retry");
    runs(&node, 1).await;
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

/// A draft with a disk that has a fingerprint, so that `incus_index` reads it.
async fn indexed(f: &Fixture, disk: &[u8]) -> Draft {
    let metadata = bytes(2, 10);
    f.upload(&metadata).await;
    let draft = draft(f).await;
    let id = f.artifact(&draft, "qcow2", disk).await;
    let metadata = attachment("incus.tar.xz", &metadata);
    f.engine.add_attachment(&draft.0, &draft.1, id, metadata).await.expect("an attachment");
    draft
}

async fn a_step_that_takes_long_is_shown(f: &Fixture) {
    let draft = indexed(f, &bytes(3, 100)).await;
    let id = publish(&f.engine, &draft).await.job.id;
    let begun = f.clock.now();
    f.gate.readers(Readers::Wait);
    let worker = tokio::spawn({
        let node = f.engine.clone();
        async move { node.run_until_idle().await }
    });
    let shown = ["validate_catalog 10 succeeded 1", "incus_index 20 running 1", "finalize_publish 30 queued 0"];
    f.wait_until(async || steps(&job(f, id).await) == shown).await;
    f.clock.advance(TimeDelta::seconds(3));
    let ended = f.clock.now();
    let digest = Digest::of(&bytes(1, 100));
    f.sql(&format!("update blobs set state = 'damaged' where digest = '{digest}'")).await.expect("a blob");
    f.gate.readers(Readers::Pass);
    worker.await.expect("no panic").expect("jobs");
    let failed = job(f, id).await;
    let shown = ["validate_catalog 10 succeeded 1", "incus_index 20 succeeded 1", "finalize_publish 30 failed 1"];
    assert_eq!(steps(&failed), shown);
    let times: Vec<_> = failed.steps.iter().map(|step| (step.started_at, step.finished_at)).collect();
    assert_eq!(times, [(begun, begun), (begun, ended), (ended, ended)].map(|(from, to)| (Some(from), Some(to))));
    assert_eq!(f.engine.sweep().await.expect("a sweep").blobs_repaired, 1, "its object is there");
    f.engine.retry_job(id).await.expect("a retry");
    runs(&f.engine, 1).await;
    let done = ["validate_catalog 10 succeeded 1", "incus_index 20 succeeded 1", "finalize_publish 30 succeeded 2"];
    assert_eq!(steps(&job(f, id).await), done);
}

async fn a_failure_is_that_of_the_step_that_failed(f: &Fixture) {
    let draft = indexed(f, &bytes(3, 100)).await;
    let id = publish(&f.engine, &draft).await.job.id;
    f.gate.readers(Readers::Fail);
    runs(&f.engine, 1).await;
    let waiting = job(f, id).await;
    let shown = ["validate_catalog 10 succeeded 1", "incus_index 20 running 1", "finalize_publish 30 queued 0"];
    assert_eq!((waiting.job.state(), steps(&waiting)), (JobState::Queued, shown.map(str::to_owned).to_vec()));
    assert!(step(&waiting, "incus_index").failure_message.is_some());
    f.gate.readers(Readers::Pass);
    f.clock.advance(TimeDelta::seconds(5));
    runs(&f.engine, 1).await;
    let done = ["validate_catalog 10 succeeded 1", "incus_index 20 succeeded 2", "finalize_publish 30 succeeded 1"];
    assert_eq!(steps(&job(f, id).await), done);
}

/// A row that is never missing is missing.
async fn a_bug_in_the_last_step_is_its_own(f: &Fixture) {
    let draft = draft(f).await;
    let id = publish(&f.engine, &draft).await.job.id;
    let generation = f.count("select n from catalog_generation").await;
    f.sql("delete from catalog_generation").await.expect("no generation");
    for attempt in 1..=5 {
        runs(&f.engine, 1).await;
        let waiting = job(f, id).await;
        let last = format!("finalize_publish 30 running {attempt}");
        let shown = ["validate_catalog 10 succeeded 1", "incus_index 20 succeeded 1", &last];
        assert_eq!((waiting.job.state(), steps(&waiting)), (JobState::Queued, shown.map(str::to_owned).to_vec()));
        f.clock.advance(TimeDelta::minutes(1));
    }
    runs(&f.engine, 1).await;
    let failed = ["validate_catalog 10 succeeded 1", "incus_index 20 succeeded 1", "finalize_publish 30 failed 5"];
    assert_eq!(steps(&job(f, id).await), failed);
    f.sql(&format!("insert into catalog_generation (id, n) values (1, {generation})")).await.expect("a generation");
}

async fn a_lease_is_renewed_while_the_work_goes_on(f: &Fixture) {
    let draft = draft(f).await;
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let go = Arc::new(Semaphore::new(0));
    let lease = TimeDelta::milliseconds(60);
    let settings = Settings { min_free: 0, lease, ..Settings::default() };
    let step = Blocks { begun, go: Arc::clone(&go), answer: || Ok(None) };
    let node = f.builder().settings(settings).publish_step(step).build().await.expect("a node");
    let id = publish(&node, &draft).await.job.id;
    let worker = tokio::spawn(async move { node.run_until_idle().await });
    has_begun.recv().await.expect("it has begun");
    for _ in 0..5 {
        f.clock.advance(lease - TimeDelta::milliseconds(1));
        f.wait_until(async || job(f, id).await.job.updated_at == f.clock.now()).await;
        runs(&f.other, 0).await;
    }
    go.add_permits(1);
    worker.await.expect("no panic").expect("jobs");
    let done = job(f, id).await;
    assert_eq!((done.job.state(), done.job.attempts), (JobState::Succeeded, 1));
}

async fn an_expired_lease_is_taken_over(f: &Fixture) {
    let draft = draft(f).await;
    let (node, mut begun, go) = blocking(f, || Ok(Some(json!("late")))).await;
    let other = f.node(calls("scan", |_| Ok(Some(json!("in time"))))).await;
    let id = publish(&node, &draft).await.job.id;
    let worker = tokio::spawn(async move { node.run_until_idle().await });
    begun.recv().await.expect("it has begun");
    f.clock.advance(TimeDelta::seconds(30) - TimeDelta::milliseconds(1));
    runs(&other, 0).await;
    f.clock.advance(TimeDelta::seconds(1));
    runs(&other, 1).await;
    let done = job(f, id).await;
    assert_eq!((done.job.state(), done.job.attempts), (JobState::Succeeded, 2));
    assert_eq!(
        steps(&done),
        [
            "validate_catalog 10 succeeded 1",
            "incus_index 20 succeeded 1",
            "scan 21 succeeded 2",
            "finalize_publish 30 succeeded 1",
        ]
    );
    go.add_permits(1);
    assert_eq!(worker.await.expect("no panic").expect("jobs").jobs, 1);
    assert_eq!(job(f, id).await, done, "what comes late hits no row");
    assert_eq!(step(&done, "scan").output, Some(json!("in time")));
    assert_eq!(published_events(f, &done).await, 1);
}

async fn a_late_failure_changes_nothing(f: &Fixture) {
    let answers: [fn() -> Result<StepOutput, StepError>; 2] =
        [|| Err(StepError::Reject("late".to_owned())), || Err(StepError::Retry("late".into()))];
    for (number, answer) in answers.into_iter().enumerate() {
        let draft = f.draft_as("debian", &number.to_string()).await;
        f.artifact(&draft, "raw", &bytes(1, 100)).await;
        let (node, mut begun, go) = blocking(f, answer).await;
        let (other, mut other_begun, other_go) = blocking(f, || Ok(None)).await;
        let id = publish(&node, &draft).await.job.id;
        let worker = tokio::spawn(async move { node.run_until_idle().await });
        begun.recv().await.expect("it has begun");
        f.clock.advance(TimeDelta::seconds(31));
        let taken_over = tokio::spawn(async move { other.run_until_idle().await });
        other_begun.recv().await.expect("it has begun");
        let running = job(f, id).await;
        go.add_permits(1);
        worker.await.expect("no panic").expect("jobs");
        assert_eq!(job(f, id).await, running, "what comes late hits no row");
        other_go.add_permits(1);
        taken_over.await.expect("no panic").expect("jobs");
        assert_eq!(job(f, id).await.job.state(), JobState::Succeeded);
    }
}

async fn five_expired_leases_are_a_crash_loop(f: &Fixture) {
    let draft = draft(f).await;
    let (node, mut begun, go) = blocking(f, || Ok(None)).await;
    let id = publish(&node, &draft).await.job.id;
    for _ in 0..5 {
        let worker = tokio::spawn({
            let node = node.clone();
            async move { node.run_until_idle().await }
        });
        begun.recv().await.expect("it has begun");
        worker.abort();
        assert!(worker.await.expect_err("it is gone").is_cancelled());
        assert_eq!(job(f, id).await.job.state(), JobState::Running, "nobody gave it back");
        f.clock.advance(TimeDelta::seconds(31));
    }
    runs(&node, 1).await;
    let failed = job(f, id).await;
    assert_eq!(failed.job.state(), JobState::Failed);
    assert!(failed.job.last_error.as_deref().is_some_and(|reason| reason.starts_with("crash-loop")), "{failed:?}");
    assert_eq!(steps(&failed)[2], "scan 21 failed 5");
    go.add_permits(1);
    f.engine.retry_job(id).await.expect("a retry");
    runs(&node, 1).await;
    assert_eq!(job(f, id).await.job.state(), JobState::Succeeded, "a retry counts from nought");
}

async fn a_node_without_the_step_gives_the_job_back(f: &Fixture) {
    let draft = draft(f).await;
    let node = f.node(calls("scan", |_| Ok(None))).await;
    let id = publish(&node, &draft).await.job.id;
    runs(&f.engine, 1).await;
    let waiting = job(f, id).await;
    assert_eq!(waiting.job.state(), JobState::Queued);
    assert!(waiting.job.last_error.as_deref().is_some_and(|reason| reason.contains("scan")), "{waiting:?}");
    f.clock.advance(TimeDelta::seconds(5));
    runs(&node, 1).await;
    assert_eq!(job(f, id).await.job.state(), JobState::Succeeded);
}

async fn text_that_no_database_takes(f: &Fixture) {
    let answers: [(&str, fn() -> Result<StepOutput, StepError>); 3] = [
        ("rejected", || Err(StepError::Reject("a\0b".to_owned()))),
        ("retried", || Err(StepError::Retry("a\0b".into()))),
        ("done", || Ok(Some(Value::String("a\0b".to_owned())))),
    ];
    for (number, (case, answer)) in answers.into_iter().enumerate() {
        let draft = f.draft_as("debian", &number.to_string()).await;
        f.artifact(&draft, "raw", &bytes(1, 100)).await;
        let node = f.node(calls("scan", move |_| answer())).await;
        let id = publish(&node, &draft).await.job.id;
        runs(&node, 1).await;
        let after = job(f, id).await;
        let expected = match case {
            "retried" => JobState::Queued,
            _ => JobState::Failed,
        };
        assert_eq!(after.job.state(), expected, "{case}: {:?}", after.job.last_error);
        let said = after.job.last_error.expect("a reason");
        assert!(said == "a\u{fffd}b" || case == "done" && said.contains("NUL"), "{case}: {said}");
        f.engine.abandon_job(id).await.expect("abandon");
    }
}
