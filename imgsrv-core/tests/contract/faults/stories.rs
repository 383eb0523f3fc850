//! The stories: what the engine is for, from the first byte to the last.

use std::pin::Pin;

use chrono::TimeDelta;
use imgsrv_core::model::{BlobState, Digest, JobState, Scope, UploadState, VersionState};
use imgsrv_core::{PartClaim, Verdict};

use super::client::{Client, SLOW, STUMBLING, found};
use crate::fixture::{PART, broken, bytes, number};

pub(crate) type Story = for<'a> fn(&'a Client) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! stories {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const STORIES: &[(&str, Story)] = &[$((stringify!($name), |client| Box::pin($name(client)))),+];
    };
}

stories!(
    upload_in_order,
    upload_out_of_order,
    upload_of_other_bytes,
    abort,
    expiry,
    publish,
    publish_that_stumbles,
    publish_that_takes_its_time,
    publish_that_fails,
    alias_moves,
    what_is_taken_back,
    sweep,
    a_lost_object,
    a_rotten_object,
    a_scrub,
    an_ingest_that_fails,
    a_blob_of_many_objects,
);

async fn upload_in_order(client: &Client) {
    let whole = bytes(1, PART + 1000);
    let upload = client.begin(&whole).await;
    let first = client.part(upload.id, 1, &whole[..PART]).await;
    let second = client.part(upload.id, 2, &whole[PART..]).await;
    client.complete(upload.id, &[first, second]).await;
    client.work().await;
    assert!(client.read(&upload.expected_digest).await == whole);
    let again = client.begin(&whole).await;
    assert_eq!(again.state, UploadState::Ready);
}

async fn upload_out_of_order(client: &Client) {
    let whole = bytes(2, PART + 1000);
    let upload = client.begin(&whole).await;
    let second = client.part(upload.id, 2, &whole[PART..]).await;
    client.part(upload.id, 1, &bytes(3, PART)).await;
    let first = client.part(upload.id, 1, &whole[..PART]).await;
    // Sent twice, as by a client that was not sure.
    assert_eq!(client.part(upload.id, 1, &whole[..PART]).await.etag, first.etag);
    client.complete(upload.id, &[first, second]).await;
    client.work().await;
    assert!(client.read(&upload.expected_digest).await == whole);
}

async fn upload_of_other_bytes(client: &Client) {
    let size = 600_000;
    let upload = client.begin(&bytes(4, size)).await;
    // It breaks off when some of it is in the store.
    let half = broken(&bytes(4, size)[..400_000]);
    let gave_up = client.engine.put_part(upload.id, number(1), PartClaim::default(), half).await;
    assert!(gave_up.is_err());
    let part = client.part(upload.id, 1, &bytes(5, size)).await;
    assert_eq!(client.complete_wrong(upload.id, &part).await, UploadState::Failed);
}

async fn abort(client: &Client) {
    let upload = client.begin(&bytes(6, 1000)).await;
    client.part(upload.id, 1, &bytes(6, 1000)).await;
    let ended = client.call(async |engine| engine.abort_upload(upload.id).await).await;
    assert_eq!(ended.state, UploadState::Aborted);
}

async fn expiry(client: &Client) {
    let upload = client.begin(&bytes(7, 1000)).await;
    client.part(upload.id, 1, &bytes(7, 1000)).await;
    client.f.clock.advance(TimeDelta::hours(25));
    client.sweep().await;
    let ended = client.call(async |engine| engine.get_upload(upload.id).await).await;
    assert_eq!(ended.state, UploadState::Aborted);
}

async fn publish(client: &Client) {
    let (disk, metadata, notes) = (bytes(8, 5000), bytes(9, 600), bytes(10, 70));
    for bytes in [&disk, &metadata, &notes] {
        client.upload(bytes).await;
    }
    let draft = client.draft("debian", "12").await;
    let artifact = client.artifact(&draft, "qcow2", &disk).await;
    client.attach(&draft, artifact, "incus.tar.xz", &metadata).await;
    client.attach(&draft, artifact, "notes", &notes).await;
    let job = client.publish(&draft).await;
    assert_eq!(job.job.state(), JobState::Succeeded, "{:?}", job.job.last_error);
    client.point("latest", &draft).await;
    let index = client.call(async |engine| engine.projected("streams", "v1/images.json").await).await;
    let index = index.expect("the list of images");
    assert!(String::from_utf8_lossy(&index.body.concat()).contains("debian:12:amd64:default"));
    assert!(client.read(&Digest::of(&disk)).await == disk);
}

async fn publish_that_stumbles(client: &Client) {
    client.published(STUMBLING, "1", &bytes(11, 100)).await;
}

async fn publish_that_takes_its_time(client: &Client) {
    client.published(SLOW, "1", &bytes(12, 100)).await;
}

async fn publish_that_fails(client: &Client) {
    let whole = bytes(13, 100);
    let digest = client.upload(&whole).await;
    let draft = client.draft("debian", "1").await;
    client.artifact(&draft, "raw", &whole).await;
    lose(client).await;
    let job = client.publish(&draft).await;
    assert_eq!(job.job.state(), JobState::Failed);
    client.upload(&whole).await;
    let job = client.retry(job.job.id).await;
    assert_eq!(job.job.state(), JobState::Succeeded, "{:?}", job.job.last_error);
    assert!(client.read(&digest).await == whole);
}

async fn alias_moves(client: &Client) {
    let first = client.published("debian", "1", &bytes(14, 100)).await;
    let second = client.published("debian", "2", &bytes(15, 100)).await;
    client.point("latest", &first).await;
    client.point("latest", &second).await;
    client.point("stable", &first).await;
    client.delete_alias(&first.0, "stable").await;
    let latest = "latest".parse().expect("a reference");
    let found = client.call(async |engine| engine.resolve(&first.0, &latest).await).await;
    assert_eq!(found.version, second.1);
}

/// Whatever can be taken back before it is published.
async fn what_is_taken_back(client: &Client) {
    let whole = bytes(16, 100);
    client.upload(&whole).await;
    let draft = client.draft("debian", "1").await;
    let wrong = client.artifact(&draft, "iso", &whole).await;
    client.remove_artifact(&draft, wrong).await;
    let artifact = client.artifact(&draft, "raw", &whole).await;
    client.attach(&draft, artifact, "notes", &whole).await;
    client.remove_attachment(&draft, artifact, "notes").await;
    let job = client.call(async |engine| engine.publish_version(&draft.0, &draft.1).await).await;
    client.call(async |engine| engine.abandon_job(job.job.id).await).await;
    let manifest = client.call(async |engine| engine.get_manifest(&draft.0, &draft.1, Scope::All).await).await;
    assert_eq!(manifest.version.state, VersionState::Draft);
    client.delete_draft(&draft).await;
    client.delete_image(&draft.0).await;
    assert!(client.call(async |engine| found(engine.get_image(&draft.0, Scope::All).await)).await.is_none());
}

/// What nobody needs any more goes, and what somebody needs stays.
async fn sweep(client: &Client) {
    let (kept, loose) = (bytes(17, 100), bytes(18, 100));
    client.published("debian", "1", &kept).await;
    let digest = client.upload(&loose).await;
    for days in [8, 2, 2] {
        client.f.clock.advance(TimeDelta::days(days));
        // Once by hand, and what that left by the daily job.
        client.collect().await;
        client.work_on_the_daily_job().await;
        client.sweep().await;
    }
    assert!(client.call(async |engine| found(engine.get_blob(&digest, Scope::All).await)).await.is_none());
    assert!(client.read(&Digest::of(&kept)).await == kept);
}

async fn a_lost_object(client: &Client) {
    let whole = bytes(19, 100);
    client.published("debian", "1", &whole).await;
    let digest = Digest::of(&whole);
    let object = lose(client).await;
    client.is_unavailable(&digest).await;
    // It comes back, as a mount does, and the sweep finds it.
    client.f.store.write(&object, whole.clone()).await.expect("the object");
    client.sweep().await;
    client.sweep().await;
    assert!(client.read(&digest).await == whole);
    // It does not come back, and is sent again.
    lose(client).await;
    client.is_unavailable(&digest).await;
    client.upload(&whole).await;
    assert!(client.read(&digest).await == whole);
}

async fn a_rotten_object(client: &Client) {
    let whole = bytes(20, 100);
    client.published("debian", "1", &whole).await;
    let digest = Digest::of(&whole);
    let objects = client.f.objects().await;
    client.f.store.write(objects.first().expect("an object"), bytes(21, 100)).await.expect("other bytes");
    let verdict = client.call(async |engine| engine.verify_blob(&digest).await).await;
    assert!(matches!(verdict, Verdict::Different { .. }), "{verdict:?}");
    assert_eq!(client.f.blob_state(&digest).await, BlobState::Quarantined);
    client.upload(&whole).await;
    assert_eq!(client.call(async |engine| engine.verify_blob(&digest).await).await, Verdict::Whole);
    assert!(client.read(&digest).await == whole);
}

async fn a_scrub(client: &Client) {
    let whole = bytes(25, 100);
    client.published("debian", "1", &whole).await;
    client.f.clock.advance(TimeDelta::days(31));
    for _ in 0..4 {
        client.call(async |engine| engine.scrub_next().await).await;
        client.f.clock.advance(TimeDelta::hours(25));
    }
    client.work_on_the_daily_job().await;
    assert!(client.call(async |engine| engine.scrub_next().await).await.is_none());
}

async fn an_ingest_that_fails(client: &Client) {
    let whole = bytes(22, PART + 1000);
    let upload = client.begin(&whole).await;
    let second = client.part(upload.id, 2, &whole[PART..]).await;
    let first = client.part(upload.id, 1, &whole[..PART]).await;
    lose(client).await;
    client.complete(upload.id, &[first, second]).await;
    client.work().await;
    let ended = client.call(async |engine| engine.get_upload(upload.id).await).await;
    assert_eq!(ended.state, UploadState::Failed);
}

async fn a_blob_of_many_objects(client: &Client) {
    let whole = bytes(23, 1800);
    let (digest, _) = client.f.upload_in(&whole, &[100; 18]).await;
    client.f.clock.advance(TimeDelta::hours(25));
    assert_eq!(client.begin(&whole).await.state, UploadState::Ready);
    client.work().await;
    assert!(client.read(&digest).await == whole);
}

/// A part whose client is slow holds its session open.
pub(crate) fn held_open(client: &Client) -> Pin<Box<dyn Future<Output = ()> + '_>> {
    Box::pin(async {
        let whole = bytes(24, 1000);
        let upload = client.begin(&whole).await;
        let part = client.slow_part(upload.id, &whole, std::time::Duration::from_secs(21)).await;
        client.complete(upload.id, &[part]).await;
        client.work().await;
        assert!(client.read(&upload.expected_digest).await == whole);
    })
}

/// Loses an object behind the engine's back.
async fn lose(client: &Client) -> String {
    let objects = client.f.objects().await;
    let key = objects.last().expect("an object").clone();
    client.f.store.delete(&key).await.expect("an object less");
    key
}
