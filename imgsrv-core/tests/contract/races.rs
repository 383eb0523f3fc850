//! Pairs of operations that race, held at a barrier: who commits first decides, and the other one sees it.
//!
//! PostgreSQL only: SQLite has one writer.

use std::time::Duration;

use chrono::TimeDelta;
use imgsrv_core::model::{
    AliasName, BlobState, Digest, ImageName, JobState, NewImage, Scope, Subject, SweepAction, SweepPlan, Upload,
    UploadState, VersionName, VersionState,
};
use imgsrv_core::publish::{PublishStep, StepContext, StepError, StepOutput};
use imgsrv_core::sea_orm::ConnectionTrait;
use imgsrv_core::{Collected, Condition, Engine, Error, Result};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::fixture::{Fixture, PART, artifact, bytes, condition, image, listed, promise, version};

crate::behaviours!(
    part_and_abort,
    part_and_complete,
    the_same_part_twice,
    complete_and_complete,
    complete_and_complete_for_the_worker,
    complete_and_abort,
    abort_and_expiry,
    part_and_expiry,
    two_uploads_of_one_digest,
    two_uploads_heal_one_blob,
    image_and_image,
    version_and_delete_image,
    artifact_and_artifact,
    artifact_and_delete_draft,
    publish_and_edit,
    publish_and_publish,
    publish_and_delete_draft,
    finalize_and_abandon,
    abandon_and_publish,
    abandon_and_a_step,
    retry_and_retry,
    retry_and_abandon,
    alias_and_alias,
    alias_moves,
    begin_and_condemn,
    begin_and_delete,
    publish_and_delete_blob,
    collect_and_begin,
    collect_and_cite,
    many_jobs_are_claimed_once,
    a_stopping_node_hands_its_job_over,
);

type Draft = (ImageName, VersionName);

/// How many sessions of the database wait for a lock of this kind.
async fn waiting(f: &Fixture, locks: &str) -> i64 {
    f.count(&format!(
        "select count(*) from pg_stat_activity where datname = current_database() \
         and backend_type = 'client backend' and wait_event_type = 'Lock' and wait_event in ({locks})"
    ))
    .await
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Every change of a state ends with an event, so a lock on that table holds `first` between its guard and its commit. `second`
/// must then come to wait for a row that `first` has changed; then both go on.
async fn race<A: Send + 'static, B: Send + 'static>(
    f: &Fixture,
    first: impl Future<Output = A> + Send + 'static,
    second: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    race_at(f, "events", first, second).await
}

/// Like [`race`], where `first` is held at its first change of a table.
async fn race_at<A: Send + 'static, B: Send + 'static>(
    f: &Fixture,
    table: &str,
    first: impl Future<Output = A> + Send + 'static,
    second: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let barrier = f.transaction().await;
    barrier.execute_unprepared(&format!("lock table {table} in share mode")).await.expect("the barrier");
    let first = tokio::spawn(first);
    within("the first to stand at its commit", f.wait_until(async || waiting(f, "'relation'").await == 1)).await;
    let second = tokio::spawn(second);
    let waits = f.wait_until(async || {
        assert_eq!(waiting(f, "'relation'").await, 1, "the second passed its guard while the first was at it");
        waiting(f, "'transactionid', 'tuple'").await == 1
    });
    within("the second to wait for the first", waits).await;
    barrier.commit().await.expect("the barrier opens");
    (first.await.expect("no panic"), second.await.expect("no panic"))
}

/// Like [`race`], where the first is another program's statement.
async fn race_with_sql<B: Send + 'static>(
    f: &Fixture,
    first: &str,
    second: impl Future<Output = B> + Send + 'static,
) -> B {
    let barrier = f.transaction().await;
    assert_eq!(barrier.execute_unprepared(first).await.expect(first).rows_affected(), 1);
    let second = tokio::spawn(second);
    within("the second to wait", f.wait_until(async || waiting(f, "'transactionid', 'tuple'").await == 1)).await;
    barrier.commit().await.expect("the barrier opens");
    second.await.expect("no panic")
}

/// The call on a clone of a node.
macro_rules! on {
    ($engine:expr, $call:ident($($argument:expr),*)) => {{
        let engine = $engine.clone();
        async move { engine.$call($($argument),*).await }
    }};
}

async fn told(f: &Fixture, upload: &Upload, what: &str) -> usize {
    let events = f.events(Subject::Upload, upload.id).await;
    events.iter().filter(|event| event.split(' ').nth(1) == Some(what)).count()
}

async fn part_and_abort(f: &Fixture) {
    let whole = bytes(1, 300_000);
    let upload = f.begin(&whole).await;
    let part = f.begin_part(upload.id, 1, &whole).await;
    let (part, aborted) = race(f, part.end(), on!(f.other, abort_upload(upload.id))).await;
    part.expect("the part was first");
    assert_eq!(aborted.expect("abort").state, UploadState::Aborted);
    let receiving = "system:engine: receiving [created → uploading]";
    let seen = f.events(Subject::Upload, upload.id).await;
    assert_eq!(seen[1..], [receiving, "system:engine: aborted [uploading → aborted]"]);

    let upload = f.begin(&whole).await;
    let part = f.begin_part(upload.id, 1, &whole).await;
    let (aborted, part) = race(f, on!(f.other, abort_upload(upload.id)), part.end()).await;
    assert_eq!(aborted.expect("abort").received, 0);
    assert_eq!(condition(part), Condition::WrongState);
    let seen = f.events(Subject::Upload, upload.id).await;
    assert_eq!(seen[1..], ["system:engine: aborted [created → aborted]"]);
    f.deleted().await;
    assert!(f.objects().await.is_empty());
}

async fn part_and_complete(f: &Fixture) {
    let whole = bytes(2, 300_000);
    let upload = f.begin(&whole).await;
    let stored = f.part(upload.id, 1, &whole).await.expect("a part");
    let part = f.begin_part(upload.id, 1, &bytes(3, 300_000)).await;
    let complete = on!(f.other, complete_upload(upload.id, vec![listed(&stored)]));
    let (part, completed) = race_at(f, "parts", part.end(), complete).await;
    part.expect("the part was first");
    assert_eq!(condition(completed), Condition::PartMismatch);
    let part = f.part(upload.id, 1, &whole).await.expect("a part");

    let late = f.begin_part(upload.id, 1, &bytes(3, 300_000)).await;
    let complete = on!(f.other, complete_upload(upload.id, vec![listed(&part)]));
    let (completed, late) = race(f, complete, late.end()).await;
    assert_eq!(completed.expect("complete").state, UploadState::Ready);
    assert_eq!(condition(late), Condition::WrongState);
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == whole);
    assert_eq!(f.objects().await.len(), 1);
}

async fn the_same_part_twice(f: &Fixture) {
    let (loser, winner) = (bytes(4, 300_000), bytes(5, 300_000));
    let upload = f.begin(&winner).await;
    let (one, two) = (f.begin_part(upload.id, 1, &loser).await, f.begin_part(upload.id, 1, &winner).await);
    let (one, two) = race(f, one.end(), two.end()).await;
    let (one, two) = (one.expect("a part"), two.expect("a part"));
    assert_ne!(one.etag, two.etag);
    assert_eq!(told(f, &upload, "receiving").await, 1, "it began once");
    assert_eq!(f.engine.list_parts(upload.id).await.expect("parts"), [two.clone()]);
    assert_eq!(f.engine.get_upload(upload.id).await.expect("a session").received, 300_000);
    assert_eq!(f.objects().await.len(), 1, "the loser is gone");
    let upload = f.engine.complete_upload(upload.id, vec![listed(&two)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == winner);
}

async fn complete_and_complete(f: &Fixture) {
    let whole = bytes(6, 1000);
    let upload = f.begin(&whole).await;
    let list = vec![listed(&f.part(upload.id, 1, &whole).await.expect("a part"))];
    let again = list.clone();
    let one = on!(f.engine, complete_upload(upload.id, list));
    let (one, two) = race(f, one, on!(f.other, complete_upload(upload.id, again))).await;
    assert_eq!(one.expect("complete"), two.expect("complete again"));
    assert_eq!((told(f, &upload, "completed").await, told(f, &upload, "verified").await), (1, 1));
    assert_eq!(f.read(&upload.expected_digest).await.expect("a blob"), whole);
}

/// A session whose parts no hash chain covers, and the list of them.
async fn out_of_order(f: &Fixture, seed: u64) -> (Upload, Vec<imgsrv_core::model::PartRef>, Vec<u8>) {
    let whole = bytes(seed, PART + 10);
    let upload = f.begin(&whole).await;
    let second = f.part(upload.id, 2, &whole[PART..]).await.expect("a part");
    let first = f.part(upload.id, 1, &whole[..PART]).await.expect("a part");
    (upload, vec![listed(&first), listed(&second)], whole)
}

async fn complete_and_complete_for_the_worker(f: &Fixture) {
    let (upload, list, whole) = out_of_order(f, 7).await;
    let again = list.clone();
    let one = on!(f.engine, complete_upload(upload.id, list));
    let (one, two) = race(f, one, on!(f.other, complete_upload(upload.id, again))).await;
    assert_eq!(one.expect("complete").state, UploadState::Completed);
    assert_eq!(two.expect("complete again").state, UploadState::Completed);
    assert_eq!(f.engine.run_until_idle().await.expect("jobs").jobs, 1);
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == whole);
}

async fn complete_and_abort(f: &Fixture) {
    let (upload, list, _) = out_of_order(f, 8).await;
    let complete = on!(f.engine, complete_upload(upload.id, list));
    let (completed, aborted) = race(f, complete, on!(f.other, abort_upload(upload.id))).await;
    assert_eq!(completed.expect("complete").state, UploadState::Completed);
    assert_eq!(condition(aborted), Condition::WrongState);
    f.engine.run_until_idle().await.expect("jobs");

    let (upload, list, _) = out_of_order(f, 9).await;
    let complete = on!(f.other, complete_upload(upload.id, list));
    let (aborted, completed) = race(f, on!(f.engine, abort_upload(upload.id)), complete).await;
    assert_eq!(aborted.expect("abort").state, UploadState::Aborted);
    assert_eq!(condition(completed), Condition::WrongState);
    f.deleted().await;
    assert_eq!(f.objects().await.len(), 2, "those of the first");
}

async fn abort_and_expiry(f: &Fixture) {
    for abort_first in [true, false] {
        let upload = f.begin(&bytes(10, 10)).await;
        f.part(upload.id, 1, &bytes(10, 10)).await.expect("a part");
        f.clock.advance(TimeDelta::hours(25));
        let (abort, sweep) = (on!(f.engine, abort_upload(upload.id)), on!(f.other, sweep()));
        let (aborted, swept) = if abort_first {
            race(f, abort, sweep).await
        } else {
            let (swept, aborted) = race(f, sweep, abort).await;
            (aborted, swept)
        };
        assert_eq!(aborted.expect("abort").state, UploadState::Aborted);
        assert_eq!(swept.expect("a sweep").uploads_expired, u64::from(!abort_first));
        assert_eq!(told(f, &upload, "aborted").await, usize::from(abort_first));
        assert_eq!(told(f, &upload, "expired").await, usize::from(!abort_first));
        assert!(f.objects().await.is_empty());
    }
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn part_and_expiry(f: &Fixture) {
    let whole = bytes(11, 300_000);
    let upload = f.begin(&whole).await;
    let part = f.begin_part(upload.id, 1, &whole).await;
    f.clock.advance(TimeDelta::hours(25));
    let (part, swept) = race(f, part.end(), on!(f.other, sweep())).await;
    part.expect("the part was first");
    assert_eq!(swept.expect("a sweep").uploads_expired, 0, "the part has moved the expiry");

    let part = f.begin_part(upload.id, 2, &whole[..1]).await;
    f.clock.advance(TimeDelta::hours(25));
    let (swept, part) = race(f, on!(f.other, sweep()), part.end()).await;
    assert_eq!(swept.expect("a sweep").uploads_expired, 1);
    assert_eq!(condition(part), Condition::SizeMismatch, "it was too much from its first byte on");
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn two_uploads_of_one_digest(f: &Fixture) {
    let whole = bytes(12, 1000);
    let (one, two) = (f.begin(&whole).await, f.begin(&whole).await);
    let first = vec![listed(&f.part(one.id, 1, &whole).await.expect("a part"))];
    let second = vec![listed(&f.part(two.id, 1, &whole).await.expect("a part"))];
    let complete = on!(f.engine, complete_upload(one.id, first));
    let (first, second) = race_at(f, "blob_segments", complete, on!(f.other, complete_upload(two.id, second))).await;
    assert_eq!(first.expect("complete").state, UploadState::Ready);
    assert_eq!(second.expect("complete").state, UploadState::Ready);
    one_blob(f, &one, &whole).await;
}

/// One blob, made of what this session sent, and nothing else.
async fn one_blob(f: &Fixture, winner: &Upload, whole: &[u8]) {
    let objects = f.engine.blob_objects(&winner.expected_digest).await.expect("objects");
    assert_eq!(objects.len(), 1);
    assert!(objects[0].key.contains(&winner.id.to_string()), "the first one's bytes are the blob");
    assert_eq!(f.read(&winner.expected_digest).await.expect("a blob"), whole);
    f.deleted().await;
    assert_eq!(f.objects().await.len(), 1);
}

async fn two_uploads_heal_one_blob(f: &Fixture) {
    let whole = bytes(13, 1000);
    let digest = f.upload(&whole).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    f.store.delete(&key).await.expect("an object less");
    let (one, two) = (f.begin(&whole).await, f.begin(&whole).await);
    assert_eq!((one.state, two.state), (UploadState::Created, UploadState::Created));
    let first = vec![listed(&f.part(one.id, 1, &whole).await.expect("a part"))];
    let second = vec![listed(&f.part(two.id, 1, &whole).await.expect("a part"))];
    let complete = on!(f.engine, complete_upload(one.id, first));
    let (first, second) = race_at(f, "blob_segments", complete, on!(f.other, complete_upload(two.id, second))).await;
    assert_eq!(first.expect("complete").state, UploadState::Ready);
    assert_eq!(second.expect("complete").state, UploadState::Ready);
    one_blob(f, &one, &whole).await;
    f.tidy().await;
}

async fn image_and_image(f: &Fixture) {
    let new = || NewImage { name: image("debian"), display_name: None, description: None };
    let (one, two) = race(f, on!(f.engine, create_image(new())), on!(f.other, create_image(new()))).await;
    one.expect("an image");
    assert!(matches!(two, Err(Error::AlreadyExists(_))), "{two:?}");
}

async fn version_and_delete_image(f: &Fixture) {
    for create_first in [true, false] {
        let name = image(if create_first { "debian" } else { "ubuntu" });
        let new = NewImage { name: name.clone(), display_name: None, description: None };
        f.engine.create_image(new).await.expect("an image");
        let create = {
            let (engine, name) = (f.engine.clone(), name.clone());
            async move { engine.create_version(&name, &version("1.0")).await }
        };
        let delete = {
            let (engine, name) = (f.other.clone(), name.clone());
            async move { engine.delete_image(&name).await }
        };
        if create_first {
            let (created, deleted) = race(f, create, delete).await;
            created.expect("a draft");
            assert_eq!(condition(deleted), Condition::NotEmpty);
        } else {
            let (deleted, created) = race(f, delete, create).await;
            deleted.expect("one less");
            assert!(matches!(created, Err(Error::NotFound(_))), "{created:?}");
        }
    }
}

fn add(f: &Fixture, draft: &Draft, format: &'static str) -> impl Future<Output = Result<()>> + Send + 'static {
    let (engine, (image, version)) = (f.other.clone(), draft.clone());
    async move { engine.add_artifact(&image, &version, artifact(format, b"bytes")).await.map(drop) }
}

fn publish(f: &Fixture, draft: &Draft) -> impl Future<Output = Result<imgsrv_core::model::JobId>> + Send + 'static {
    let (engine, (image, version)) = (f.engine.clone(), draft.clone());
    async move { engine.publish_version(&image, &version).await.map(|job| job.job.id) }
}

fn delete(f: &Fixture, draft: &Draft) -> impl Future<Output = Result<()>> + Send + 'static {
    let (engine, (image, version)) = (f.other.clone(), draft.clone());
    async move { engine.delete_draft(&image, &version).await }
}

async fn publishable(f: &Fixture, number: &str) -> Draft {
    let draft = f.draft_as("debian", number).await;
    f.artifact(&draft, "raw", b"bytes").await;
    draft
}

async fn artifact_and_artifact(f: &Fixture) {
    let draft = f.draft().await;
    let (one, two) = race(f, add(f, &draft, "raw"), add(f, &draft, "raw")).await;
    one.expect("an artifact");
    assert!(matches!(two, Err(Error::AlreadyExists(_))), "{two:?}");
    let (one, two) = race(f, add(f, &draft, "iso"), add(f, &draft, "qcow2")).await;
    one.and(two).expect("two artifacts");
}

async fn artifact_and_delete_draft(f: &Fixture) {
    let draft = f.draft().await;
    let (added, deleted) = race(f, add(f, &draft, "raw"), delete(f, &draft)).await;
    added.and(deleted).expect("both");
    let draft = f.draft().await;
    let (deleted, added) = race(f, delete(f, &draft), add(f, &draft, "raw")).await;
    deleted.expect("one less");
    assert!(matches!(added, Err(Error::NotFound(_))), "{added:?}");
    assert_eq!(f.count("select count(*) from artifacts").await, 0);
}

async fn publish_and_edit(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let (published, added) = race(f, publish(f, &draft), add(f, &draft, "iso")).await;
    published.expect("a job");
    assert_eq!(condition(added), Condition::WrongState);
    let second = publishable(f, "2.0").await;
    let (added, published) = race(f, add(f, &second, "iso"), publish(f, &second)).await;
    added.expect("an artifact");
    published.expect("a job");
    f.engine.run_until_idle().await.expect("jobs");
    for (draft, artifacts) in [(draft, 1), (second, 2)] {
        let manifest = f.engine.get_manifest(&draft.0, &draft.1, Scope::Published).await.expect("a manifest");
        assert_eq!(manifest.artifacts.len(), artifacts);
    }
    // What the other one adds is checked too.
    let third = publishable(f, "3.0").await;
    let (engine, (image, version)) = (f.other.clone(), third.clone());
    let missing = async move { engine.add_artifact(&image, &version, artifact("iso", b"never sent")).await };
    let (added, published) = race(f, missing, publish(f, &third)).await;
    added.expect("an artifact");
    assert_eq!(condition(published), Condition::NotPublishable);
}

async fn publish_and_publish(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let (one, two) = race(f, publish(f, &draft), publish(f, &draft)).await;
    assert_eq!(one.expect("a job"), two.expect("the same job"));
    assert_eq!(f.engine.run_until_idle().await.expect("jobs").jobs, 1);
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

async fn publish_and_delete_draft(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let (published, deleted) = race(f, publish(f, &draft), delete(f, &draft)).await;
    published.expect("a job");
    assert_eq!(condition(deleted), Condition::WrongState);
    let draft = publishable(f, "2.0").await;
    let (deleted, published) = race(f, delete(f, &draft), publish(f, &draft)).await;
    deleted.expect("one less");
    assert!(matches!(published, Err(Error::NotFound(_))), "{published:?}");
    assert_eq!(f.engine.run_until_idle().await.expect("jobs").jobs, 1);
}

async fn finalize_and_abandon(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let job = publish(f, &draft).await.expect("a job");
    let (ran, abandoned) = race(f, on!(f.engine, run_until_idle()), on!(f.other, abandon_job(job))).await;
    assert_eq!(ran.expect("jobs").jobs, 1);
    assert_eq!(condition(abandoned), Condition::WrongState);
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

/// Here the second does not wait for the row that the first has changed: to its guard the version is still frozen. It is
/// held before it looks for the job, until the first has committed.
async fn abandon_and_publish(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let old = publish(f, &draft).await.expect("a job");
    let barrier = f.transaction().await;
    barrier.execute_unprepared("lock table events in share mode").await.expect("the barrier");
    let abandon = tokio::spawn(on!(f.other, abandon_job(old)));
    within("abandon to stand at its commit", f.wait_until(async || waiting(f, "'relation'").await == 1)).await;
    // It queues behind abandon, which has written to that table, and whoever reads the table queues behind it.
    let second_barrier = f.transaction().await;
    let second_barrier = tokio::spawn(async move {
        second_barrier.execute_unprepared("lock table jobs in access exclusive mode").await.expect("the barrier");
        second_barrier.commit().await.expect("the barrier opens");
    });
    within("the second barrier", f.wait_until(async || waiting(f, "'relation'").await == 2)).await;
    let publish = tokio::spawn(publish(f, &draft));
    within("publish to be past its guard", f.wait_until(async || waiting(f, "'relation'").await == 3)).await;
    barrier.commit().await.expect("the barrier opens");
    second_barrier.await.expect("no panic");
    abandon.await.expect("no panic").expect("abandon");
    let new = publish.await.expect("no panic").expect("a job");
    assert_ne!(new, old, "what is abandoned publishes nothing");
    assert_eq!(f.engine.run_until_idle().await.expect("jobs").jobs, 1);
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

struct Waits(mpsc::UnboundedSender<()>, std::sync::Arc<Semaphore>);

#[async_trait::async_trait]
impl PublishStep for Waits {
    fn name(&self) -> &'static str {
        "scan"
    }

    async fn run(&self, _: &StepContext<'_>) -> Result<StepOutput, StepError> {
        self.0.send(()).ok();
        self.1.acquire().await?.forget();
        Ok(None)
    }
}

async fn abandon_and_a_step(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let go = std::sync::Arc::new(Semaphore::new(0));
    let node = f.node(Waits(begun, std::sync::Arc::clone(&go))).await;
    let job = node.publish_version(&draft.0, &draft.1).await.expect("a job").job.id;
    let worker = tokio::spawn(async move { node.run_until_idle().await });
    has_begun.recv().await.expect("it has begun");
    let step = async move {
        go.add_permits(1);
        worker.await.expect("no panic")
    };
    let (abandoned, ran) = race(f, on!(f.other, abandon_job(job)), step).await;
    abandoned.expect("abandon");
    ran.expect("jobs");
    let job = f.engine.get_job(job).await.expect("the job");
    assert_eq!((job.job.state(), job.job.last_error.as_deref()), (JobState::Failed, Some("abandoned")));
    assert_eq!(f.version_state(&draft).await, VersionState::Draft);
}

/// A job that has failed, because an object is gone.
async fn failed(f: &Fixture) -> (Draft, imgsrv_core::model::JobId, String) {
    let draft = publishable(f, "1.0").await;
    let key = f.engine.blob_objects(&Digest::of(b"bytes")).await.expect("objects").remove(0).key;
    f.store.delete(&key).await.expect("an object less");
    let job = f.publish(&draft).await.job;
    assert_eq!(job.state(), JobState::Failed);
    f.store.write(&key, "bytes").await.expect("the object is back");
    (draft, job.id, key)
}

async fn retry_and_retry(f: &Fixture) {
    let (draft, job, _) = failed(f).await;
    let (one, two) = race(f, on!(f.engine, retry_job(job)), on!(f.other, retry_job(job))).await;
    one.expect("a retry");
    assert_eq!(condition(two), Condition::WrongState);
    assert_eq!(f.engine.run_until_idle().await.expect("jobs").jobs, 1);
    assert_eq!(f.version_state(&draft).await, VersionState::Published, "the object is back");
}

async fn retry_and_abandon(f: &Fixture) {
    let (draft, job, _) = failed(f).await;
    let (retried, abandoned) = race(f, on!(f.engine, retry_job(job)), on!(f.other, abandon_job(job))).await;
    retried.expect("a retry");
    abandoned.expect("abandon");
    let seen = f.events(Subject::Job, job).await;
    let (retried, abandoned) = ("retried [failed → queued]", "abandoned [queued → abandoned]");
    assert_eq!(seen[1..], [retried, abandoned].map(|event| format!("system:engine: {event}")));
    assert_eq!(f.version_state(&draft).await, VersionState::Draft);
    f.engine.delete_draft(&draft.0, &draft.1).await.expect("one less");
    f.sql("update blobs set state = 'live'").await.expect("a blob");
    let (draft, job, _) = failed(f).await;
    let (abandoned, retried) = race(f, on!(f.other, abandon_job(job)), on!(f.engine, retry_job(job))).await;
    abandoned.expect("abandon");
    assert_eq!(condition(retried), Condition::WrongState);
    assert_eq!(f.version_state(&draft).await, VersionState::Draft);
    assert_eq!(f.engine.run_until_idle().await.expect("jobs").jobs, 0);
}

/// Points the alias `latest` at a version.
fn point(
    engine: &imgsrv_core::Engine,
    to: &'static str,
) -> impl Future<Output = Result<imgsrv_core::model::Alias>> + Send + 'static {
    let engine = engine.clone();
    async move { engine.put_alias(&image("debian"), &latest(), &version(to)).await }
}

fn latest() -> AliasName {
    "latest".parse().expect("an alias")
}

async fn alias_and_alias(f: &Fixture) {
    f.published_as("debian", "1.0", b"bytes").await;
    f.published_as("debian", "2.0", b"bytes").await;
    let (one, two) = race(f, point(&f.engine, "1.0"), point(&f.other, "2.0")).await;
    let (one, two) = (one.expect("an alias"), two.expect("the same alias"));
    assert_eq!(one.id, two.id);
    assert_eq!(
        f.engine.get_alias(&image("debian"), &latest(), Scope::Published).await.expect("the alias").version,
        version("2.0")
    );
    let told = f.events(Subject::Alias, one.id).await;
    assert_eq!(
        told,
        ["system:engine: created debian/latest [- → 1.0]", "system:engine: moved debian/latest [1.0 → 2.0]"]
    );
}

async fn alias_moves(f: &Fixture) {
    for number in ["1.0", "2.0", "3.0"] {
        f.published_as("debian", number, b"bytes").await;
    }
    point(&f.engine, "1.0").await.expect("an alias");
    let before = f.count("select n from catalog_generation").await;
    let (one, two) = race(f, point(&f.engine, "2.0"), point(&f.other, "3.0")).await;
    let (one, two) = (one.expect("the alias"), two.expect("the alias"));
    assert_eq!(one.id, two.id);
    let told = f.events(Subject::Alias, one.id).await;
    assert_eq!(
        told[1..],
        ["system:engine: moved debian/latest [1.0 → 2.0]", "system:engine: moved debian/latest [2.0 → 3.0]"]
    );
    assert_eq!(f.count("select n from catalog_generation").await, before + 2);
    let delete = {
        let engine = f.engine.clone();
        async move { engine.delete_alias(&image("debian"), &latest()).await }
    };
    let (deleted, made) = race(f, delete, point(&f.other, "1.0")).await;
    deleted.expect("one less");
    assert_ne!(made.expect("a new alias").id, one.id);
}

async fn begin_and_condemn(f: &Fixture) {
    let whole = bytes(14, 10);
    let digest = f.upload(&whole).await;
    f.clock.advance(TimeDelta::hours(1));
    let (database, idle) = (f.database.clone(), f.clock.now());
    let condemn = format!(
        "update blobs set state = 'condemned', condemned_at = now() \
         where digest = '{digest}' and state = 'live' and last_used_at < '{idle}'"
    );
    let sql = condemn.clone();
    let sweeper = async move { database.execute_unprepared(&sql).await.expect("condemn").rows_affected() };
    let (begun, condemned) = race(f, on!(f.engine, begin_upload(promise(&bytes(14, 10)))), sweeper).await;
    assert_eq!(begun.expect("a session").state, UploadState::Ready);
    assert_eq!(condemned, 0, "it was used meanwhile");

    f.clock.advance(TimeDelta::hours(1));
    let condemn = condemn.replace(&idle.to_string(), &f.clock.now().to_string());
    let begun = race_with_sql(f, &condemn, on!(f.engine, begin_upload(promise(&bytes(14, 10))))).await;
    assert_eq!(begun.expect("a session").state, UploadState::Ready, "citing revives");
    let seen = f.events(Subject::Blob, &digest).await;
    assert_eq!(seen[1..], ["system:engine: revived [condemned → live]"]);
    assert_eq!(f.blob_state(&digest).await, BlobState::Live);
    assert_eq!(f.count("select count(*) from blobs where condemned_at is not null").await, 0);
}

async fn begin_and_delete(f: &Fixture) {
    let whole = bytes(15, 10);
    let digest = f.upload(&whole).await;
    let condemn = "update blobs set state = 'condemned', condemned_at = now()";
    let delete = "update blobs set state = 'deleting' where state = 'condemned'";
    f.sql(condemn).await.expect("a blob");
    let database = f.database.clone();
    let sweeper = async move { database.execute_unprepared(delete).await.expect("delete").rows_affected() };
    let (begun, deleted) = race(f, on!(f.engine, begin_upload(promise(&bytes(15, 10)))), sweeper).await;
    assert_eq!(begun.expect("a session").state, UploadState::Ready);
    assert_eq!(deleted, 0, "it was revived meanwhile");

    f.sql(condemn).await.expect("a blob");
    let begun = race_with_sql(f, delete, on!(f.engine, begin_upload(promise(&bytes(15, 10))))).await;
    let upload = begun.expect("a session");
    assert_eq!(upload.state, UploadState::Created, "what is being deleted counts as absent");
    let part = f.part(upload.id, 1, &whole).await.expect("a part");
    f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(f.blob_state(&digest).await, BlobState::Live);
    assert_eq!(f.read(&digest).await.expect("a blob"), whole);
    f.tidy().await;
    assert_eq!(f.objects().await.len(), 1);
}

fn carry_out(engine: &Engine, plan: &SweepPlan) -> impl Future<Output = Result<Collected>> + Send + 'static {
    let (engine, plan) = (engine.clone(), plan.clone());
    async move { engine.carry_out(&plan).await }
}

/// A blob whose time has come, and the plan that says so.
async fn due(f: &Fixture, whole: &[u8], action: SweepAction) -> SweepPlan {
    f.upload(whole).await;
    f.clock.advance(TimeDelta::days(8));
    let mut plan = f.engine.plan_sweep().await.expect("a plan");
    if action == SweepAction::Delete {
        assert_eq!(f.engine.carry_out(&plan).await.expect("carried out").condemned, 1);
        f.clock.advance(TimeDelta::days(2));
        plan = f.engine.plan_sweep().await.expect("a plan");
    }
    assert_eq!(plan.blobs.iter().map(|blob| blob.action).collect::<Vec<_>>(), [action]);
    plan
}

async fn collect_and_begin(f: &Fixture) {
    let whole = bytes(20, 10);
    let digest = Digest::of(&whole);
    for action in [SweepAction::Condemn, SweepAction::Delete] {
        let plan = due(f, &whole, action).await;
        let (begun, collected) =
            race(f, on!(f.engine, begin_upload(promise(&bytes(20, 10)))), carry_out(&f.other, &plan)).await;
        assert_eq!(begun.expect("a session").state, UploadState::Ready);
        assert_eq!(collected.expect("carried out"), Collected { kept: 1, ..Collected::default() });
        assert_eq!(f.blob_state(&digest).await, BlobState::Live);

        let plan = due(f, &whole, action).await;
        let (collected, begun) =
            race(f, carry_out(&f.other, &plan), on!(f.engine, begin_upload(promise(&bytes(20, 10))))).await;
        let (collected, begun) = (collected.expect("carried out"), begun.expect("a session"));
        assert_eq!(collected.condemned + collected.deleted, 1);
        if action == SweepAction::Condemn {
            assert_eq!((begun.state, f.blob_state(&digest).await), (UploadState::Ready, BlobState::Live));
        } else {
            assert_eq!(begun.state, UploadState::Created, "it is gone, and its bytes are asked for");
            let part = f.part(begun.id, 1, &whole).await.expect("a part");
            f.engine.complete_upload(begun.id, vec![listed(&part)]).await.expect("complete");
        }
        assert_eq!(f.read(&digest).await.expect("bytes"), whole);
    }
    f.tidy().await;
}

async fn collect_and_cite(f: &Fixture) {
    let whole = bytes(21, 10);
    let cite = |draft: &Draft, format: &str| {
        let (engine, draft, new) = (f.engine.clone(), draft.clone(), artifact(format, &bytes(21, 10)));
        async move { engine.add_artifact(&draft.0, &draft.1, new).await }
    };
    for (action, formats) in [(SweepAction::Condemn, ["raw", "iso"]), (SweepAction::Delete, ["qcow2", "vmdk"])] {
        let draft = f.draft_as("debian", formats[0]).await;
        let plan = due(f, &whole, action).await;
        let (cited, collected) = race(f, cite(&draft, formats[0]), carry_out(&f.other, &plan)).await;
        let id = cited.expect("an artifact").id;
        assert_eq!(collected.expect("carried out").kept, 1);
        f.engine.remove_artifact(&draft.0, &draft.1, id).await.expect("removed");

        let plan = due(f, &whole, action).await;
        let (collected, cited) = race(f, carry_out(&f.other, &plan), cite(&draft, formats[1])).await;
        let (collected, id) = (collected.expect("carried out"), cited.expect("an artifact").id);
        assert_eq!(collected.condemned + collected.deleted, 1);
        if action == SweepAction::Condemn {
            assert_eq!(f.blob_state(&Digest::of(&whole)).await, BlobState::Live, "it was taken back");
        }
        f.engine.remove_artifact(&draft.0, &draft.1, id).await.expect("removed");
    }
    f.tidy().await;
}

async fn publish_and_delete_blob(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let condemn = "update blobs set state = 'condemned', condemned_at = now()";
    let delete = "update blobs set state = 'deleting' where state = 'condemned'";
    f.sql(condemn).await.expect("a blob");
    let published = race_with_sql(f, delete, publish(f, &draft)).await;
    assert_eq!(condition(published), Condition::NotPublishable);
    f.sql("update blobs set state = 'condemned'").await.expect("a blob");
    let database = f.database.clone();
    let sweeper = async move { database.execute_unprepared(delete).await.expect("delete").rows_affected() };
    let (published, deleted) = race(f, publish(f, &draft), sweeper).await;
    published.expect("a job");
    assert_eq!(deleted, 0, "it was cited meanwhile");
    f.engine.run_until_idle().await.expect("jobs");
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
}

async fn many_jobs_are_claimed_once(f: &Fixture) {
    let drafts: Vec<_> = (1..=20).map(|number| format!("{number}.0")).collect();
    for number in &drafts {
        publish(f, &publishable(f, number).await).await.expect("a job");
    }
    let nodes = [&f.engine, &f.other, &f.engine, &f.other];
    let workers = nodes.map(|engine| tokio::spawn(on!(engine, run_until_idle())));
    let mut claimed = 0;
    for worker in workers {
        claimed += worker.await.expect("no panic").expect("jobs").jobs;
    }
    assert_eq!(claimed, 20);
    assert_eq!(
        f.count("select count(*) from jobs where kind = 'publish' and attempts = 1 and outcome = 'succeeded'").await,
        20
    );
    assert_eq!(f.count("select count(*) from events where what = 'published'").await, 20);
}

/// Takes the five seconds that a stopping node gives its jobs; so it stands here, where it runs once.
async fn a_stopping_node_hands_its_job_over(f: &Fixture) {
    let draft = publishable(f, "1.0").await;
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let go = std::sync::Arc::new(Semaphore::new(0));
    let node = f.node(Waits(begun.clone(), std::sync::Arc::clone(&go))).await;
    let other = f.node(Waits(begun, std::sync::Arc::clone(&go))).await;
    let job = node.publish_version(&draft.0, &draft.1).await.expect("a job").job.id;
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { node.run(stop).await }
    });
    has_begun.recv().await.expect("it has begun");
    stop.cancel();
    running.await.expect("it has stopped");
    let job = f.engine.get_job(job).await.expect("the job").job;
    assert_eq!((job.state(), job.last_error), (JobState::Queued, None), "a stop is no failure");
    go.add_permits(1);
    assert_eq!(other.run_until_idle().await.expect("jobs").jobs, 1, "no lease has to expire first");
    assert_eq!(f.version_state(&draft).await, VersionState::Published);
    assert_eq!(f.count("select sum(crashes) from jobs").await, 0);
}
