//! Blobs: reading, and what happens when the store loses objects.

use chrono::TimeDelta;
use futures_util::StreamExt;
use imgsrv_core::model::{BlobState, Digest, Scope, Subject, UploadState};
use imgsrv_core::{Condition, Error};

use crate::fixture::{Fixture, PART, attachment, bytes, condition, listed, promise, read};

crate::behaviours!(
    every_range_is_those_bytes,
    long_segments,
    ranges_that_cannot_be,
    an_empty_blob_has_no_bytes,
    an_unknown_digest,
    only_what_is_published_is_public,
    a_lost_first_object_is_unavailable_until_uploaded_again,
    a_lost_later_object_breaks_the_stream,
    a_truncated_later_object_breaks_the_stream,
    an_object_of_another_size_counts_as_lost,
    a_reader_that_has_begun_outlives_the_healing,
    a_damaged_blob_whose_object_is_back_is_repaired,
    a_healed_blob_keeps_its_size,
    many_objects_are_checked_by_a_job,
    bytes_that_are_lost_before_they_are_verified,
    the_states_of_a_blob_are_written_down,
);

async fn every_range_is_those_bytes(f: &Fixture) {
    let whole = bytes(1, 300);
    let sizes = [1, 2, 97, 100, 64, 36];
    let (digest, _) = f.upload_in(&whole, &sizes).await;
    let mut random = fastrand::Rng::with_seed(1);
    let bounds = [0, 1, 2, 3, 99, 100, 101, 200, 263, 264, 265, 299, 300];
    let pairs = bounds.iter().flat_map(|start| bounds.iter().map(move |end| (*start, *end)));
    let more = std::iter::repeat_with(|| (random.u64(0..=300), random.u64(0..=300))).take(100);
    for (start, end) in pairs.chain(more).filter(|(start, end)| start <= end) {
        let stream = f.engine.read_blob(&digest, Some(start..end)).await.expect("a range");
        assert_eq!((stream.size, stream.range), (300, start..end));
        let found = read(&f.engine, &digest, Some(start..end)).await.expect("bytes");
        assert!(found == whole[start as usize..end as usize], "{start}..{end}");
    }
    assert_eq!(f.read(&digest).await.expect("a blob"), whole);
    let objects = f.engine.blob_objects(&digest).await.expect("objects");
    assert_eq!(objects.iter().map(|object| object.size as usize).collect::<Vec<_>>(), sizes);
    assert_eq!(objects.iter().map(|object| object.offset).collect::<Vec<_>>(), [0, 1, 3, 100, 200, 264]);
}

async fn long_segments(f: &Fixture) {
    let whole = bytes(2, 5_000_000);
    let (digest, _) = f.upload_in(&whole, &[700_001, 1, 2_299_998, 2_000_000]).await;
    assert!(f.read(&digest).await.expect("a blob") == whole);
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..10 {
        let end = random.u64(1..=5_000_000);
        let start = random.u64(0..end);
        let found = read(&f.other, &digest, Some(start..end)).await.expect("bytes");
        assert!(found == whole[start as usize..end as usize], "{start}..{end}");
    }
}

#[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
async fn ranges_that_cannot_be(f: &Fixture) {
    let digest = f.upload(&bytes(3, 10)).await;
    for range in [0..11, 11..11, 10..11, 5..4, u64::MAX - 1..u64::MAX, 0..u64::MAX] {
        let refused = f.engine.read_blob(&digest, Some(range.clone())).await;
        assert!(matches!(refused, Err(Error::Invalid { what: "range", .. })), "{range:?}: {refused:?}");
    }
    assert_eq!(read(&f.engine, &digest, Some(10..10)).await.expect("nothing"), b"");
}

async fn an_empty_blob_has_no_bytes(f: &Fixture) {
    let digest = f.upload(b"").await;
    assert_eq!(f.read(&digest).await.expect("nothing"), b"");
    assert_eq!(read(&f.engine, &digest, Some(0..0)).await.expect("nothing"), b"");
    assert!(f.engine.blob_objects(&digest).await.expect("objects").is_empty());
    let stream = f.engine.read_blob(&digest, None).await.expect("a blob");
    assert_eq!((stream.size, stream.range), (0, 0..0));
    assert_eq!(f.begin(b"").await.state, UploadState::Ready);
    f.published(b"").await;
    f.tidy().await;
    assert_eq!(f.blob_state(&digest).await, BlobState::Live);
}

async fn an_unknown_digest(f: &Fixture) {
    let digest = Digest::of(b"never sent");
    let upload = f.begin(b"never sent").await;
    assert!(matches!(f.engine.get_blob(&digest, Scope::All).await, Err(Error::NotFound(_))));
    assert!(matches!(f.engine.read_blob(&digest, None).await, Err(Error::NotFound(_))));
    assert!(matches!(f.engine.blob_objects(&digest).await, Err(Error::NotFound(_))));
    f.engine.abort_upload(upload.id).await.expect("abort");
}

async fn only_what_is_published_is_public(f: &Fixture) {
    let (primary, extra, cited, loose) = (bytes(4, 10), bytes(5, 10), bytes(6, 10), bytes(7, 10));
    let draft = f.draft().await;
    let artifact = f.artifact(&draft, "raw", &primary).await;
    f.upload(&extra).await;
    f.engine.add_attachment(&draft.0, &draft.1, artifact, attachment("SBOM", &extra)).await.expect("an attachment");
    f.artifact(&f.draft_as("debian", "2.0").await, "raw", &cited).await;
    f.upload(&loose).await;
    let public = async |bytes: &[u8]| match f.engine.get_blob(&Digest::of(bytes), Scope::Published).await {
        Ok(blob) => Some(blob.size),
        Err(Error::NotFound(_)) => None,
        Err(err) => panic!("{err}"),
    };
    assert_eq!((public(&primary).await, public(&extra).await), (None, None));
    f.publish(&draft).await;
    assert_eq!((public(&primary).await, public(&extra).await), (Some(10), Some(10)));
    assert_eq!((public(&cited).await, public(&loose).await), (None, None), "drafts and loose blobs are private");
    assert!(f.engine.get_blob(&Digest::of(&loose), Scope::All).await.is_ok());
}

async fn a_lost_first_object_is_unavailable_until_uploaded_again(f: &Fixture) {
    let whole = bytes(8, 300);
    let (digest, keys) = f.upload_in(&whole, &[100, 200]).await;
    let across = async |node| read(node, &digest, Some(90..110)).await.expect("a range across both");
    assert_eq!([across(&f.engine).await, across(&f.other).await], [&whole[90..110]; 2]);
    f.store.delete(&keys[0]).await.expect("an object less");
    let refused = f.engine.read_blob(&digest, None).await;
    assert!(matches!(refused, Err(Error::Unavailable { what: "blob", .. })), "{refused:?}");
    assert_eq!(f.blob_state(&digest).await, BlobState::Damaged);
    let refused = f.other.read_blob(&digest, Some(150..160)).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "what is damaged is not served in part: {refused:?}");

    let upload = f.begin(&whole).await;
    assert_eq!(upload.state, UploadState::Created, "a damaged blob counts as absent");
    let part = f.part(upload.id, 1, &whole).await.expect("a part");
    let upload = f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    assert_eq!(f.blob_state(&digest).await, BlobState::Live);
    assert_eq!([across(&f.engine).await, across(&f.other).await], [&whole[90..110]; 2], "of the new object");
    f.clock.advance(TimeDelta::hours(24) - TimeDelta::seconds(1));
    f.engine.sweep().await.expect("a sweep");
    assert!(f.objects().await.contains(&keys[1]), "a reader may still be at it");
    f.clock.advance(TimeDelta::seconds(1));
    f.other.sweep().await.expect("a sweep");
    assert!(!f.objects().await.contains(&keys[1]), "the grace is over");
    assert_eq!(f.read(&digest).await.expect("a blob"), whole);
    assert_eq!(across(&f.other).await, &whole[90..110]);
    f.tidy().await;
}

/// Reads until the stream ends: what came, and whether it broke off.
async fn read_all(f: &Fixture, digest: &Digest) -> (Vec<u8>, bool) {
    let mut body = f.engine.read_blob(digest, None).await.expect("a first chunk").body;
    let mut found = Vec::new();
    while let Some(bytes) = body.next().await {
        match bytes {
            Ok(bytes) => found.extend(bytes),
            Err(_) => return (found, true),
        }
    }
    (found, false)
}

async fn a_lost_later_object_breaks_the_stream(f: &Fixture) {
    let whole = bytes(9, 900_000);
    let (digest, keys) = f.upload_in(&whole, &[300_000, 300_000, 300_000]).await;
    f.store.delete(&keys[2]).await.expect("an object less");
    let (found, broke) = read_all(f, &digest).await;
    assert!(broke, "a short answer must never look complete");
    assert!(found.len() <= 600_000 && whole.starts_with(&found));
    f.wait_until(async || f.blob_state(&digest).await == BlobState::Damaged).await;
    heal(f, &whole).await;
}

async fn a_truncated_later_object_breaks_the_stream(f: &Fixture) {
    let whole = bytes(10, 600_000);
    let (digest, keys) = f.upload_in(&whole, &[300_000, 300_000]).await;
    f.store.write(&keys[1], whole[300_000..599_999].to_vec()).await.expect("an object cut short");
    let (found, broke) = read_all(f, &digest).await;
    assert!(broke, "a short answer must never look complete");
    assert!(found.len() < 600_000 && whole.starts_with(&found));
    f.wait_until(async || f.blob_state(&digest).await == BlobState::Damaged).await;
    heal(f, &whole).await;
}

async fn an_object_of_another_size_counts_as_lost(f: &Fixture) {
    let whole = bytes(11, 300);
    let (digest, keys) = f.upload_in(&whole, &[100, 200]).await;
    for wrong in [&whole[..201], b""] {
        f.store.write(&keys[1], wrong.to_vec()).await.expect("an object of another size");
        let upload = f.begin(&whole).await;
        assert_eq!(upload.state, UploadState::Created);
        assert_eq!(f.blob_state(&digest).await, BlobState::Damaged);
        f.engine.abort_upload(upload.id).await.expect("abort");
        f.store.write(&keys[1], whole[100..].to_vec()).await.expect("the object as it was");
        assert_eq!(f.engine.sweep().await.expect("a sweep").blobs_repaired, 1);
    }
    assert_eq!(f.read(&digest).await.expect("a blob"), whole);
}

/// Uploads a damaged blob again and lets what it consisted of go.
async fn heal(f: &Fixture, whole: &[u8]) {
    let upload = f.begin(whole).await;
    assert_eq!(upload.state, UploadState::Created);
    let part = f.part(upload.id, 1, whole).await.expect("a part");
    f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == whole);
    f.tidy().await;
    assert_eq!(f.objects().await.len(), 1);
}

async fn a_reader_that_has_begun_outlives_the_healing(f: &Fixture) {
    let whole = bytes(12, 3_000_000);
    let (digest, keys) = f.upload_in(&whole, &[1_500_000, 1_499_999, 1]).await;
    let last = f.store.read(&keys[2]).await.expect("an object");
    let mut body = f.engine.read_blob(&digest, None).await.expect("a blob").body;
    let mut found = body.next().await.expect("a chunk").expect("bytes").to_vec();
    f.store.delete(&keys[2]).await.expect("an object less");
    let upload = f.begin(&whole).await;
    assert_eq!(upload.state, UploadState::Created);
    let part = f.part(upload.id, 1, &whole).await.expect("a part");
    f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    f.store.write(&keys[2], last).await.expect("the object is back");
    f.engine.sweep().await.expect("a sweep");
    while let Some(bytes) = body.next().await {
        found.extend(bytes.expect("bytes of the old objects"));
    }
    assert!(found == whole);
    f.tidy().await;
    assert_eq!(f.objects().await.len(), 1);
}

async fn a_damaged_blob_whose_object_is_back_is_repaired(f: &Fixture) {
    let whole = bytes(13, 100);
    let digest = f.upload(&whole).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    f.store.delete(&key).await.expect("an object less");
    f.read(&digest).await.expect_err("no bytes");
    assert_eq!(f.engine.sweep().await.expect("a sweep").blobs_repaired, 0);
    assert_eq!(f.blob_state(&digest).await, BlobState::Damaged);
    f.store.write(&key, whole.clone()).await.expect("the object is back");
    assert_eq!(f.other.sweep().await.expect("a sweep").blobs_repaired, 1);
    assert_eq!(f.blob_state(&digest).await, BlobState::Live);
    assert_eq!(f.read(&digest).await.expect("a blob"), whole);
    assert_eq!(f.begin(&whole).await.state, UploadState::Ready);
}

async fn a_healed_blob_keeps_its_size(f: &Fixture) {
    let whole = bytes(14, 100);
    let digest = f.upload(&whole).await;
    f.published(&whole).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    f.store.delete(&key).await.expect("an object less");
    f.read(&digest).await.expect_err("no bytes");
    let mut lie = promise(&whole);
    lie.expected_size += 1;
    let upload = f.engine.begin_upload(lie).await.expect("a damaged blob is not trusted, its size neither");
    let part = f.part(upload.id, 1, &whole).await.expect("a part");
    let short = f.engine.complete_upload(upload.id, vec![listed(&part)]).await;
    assert_eq!(condition(short), Condition::SizeMismatch);
    f.engine.abort_upload(upload.id).await.expect("abort");
    heal(f, &whole).await;
}

async fn many_objects_are_checked_by_a_job(f: &Fixture) {
    let whole = bytes(15, 20);
    let (digest, keys) = f.upload_in(&whole, &[1; 20]).await;
    let checks = async || f.count("select count(*) from jobs where kind = 'check-blob'").await;
    assert_eq!(f.begin(&whole).await.state, UploadState::Ready);
    assert_eq!(checks().await, 0, "it was checked when it was made");
    f.clock.advance(TimeDelta::hours(24) + TimeDelta::seconds(1));
    f.engine.run_until_idle().await.expect("the daily listing");
    assert_eq!(f.begin(&whole).await.state, UploadState::Ready);
    assert_eq!(f.other.begin_upload(promise(&whole)).await.expect("a session").state, UploadState::Ready);
    assert_eq!(checks().await, 1, "one check is enough");
    assert_eq!(f.engine.run_until_idle().await.expect("jobs").jobs, 1);
    f.begin(&whole).await;
    assert_eq!(checks().await, 1, "it was checked just now");

    f.clock.advance(TimeDelta::hours(24) + TimeDelta::seconds(1));
    f.engine.run_until_idle().await.expect("the daily listing");
    f.store.delete(&keys[18]).await.expect("an object less");
    assert_eq!(f.begin(&whole).await.state, UploadState::Ready, "the first 16 are there");
    f.engine.run_until_idle().await.expect("the check");
    assert_eq!(f.blob_state(&digest).await, BlobState::Damaged);
    heal(f, &whole).await;
}

async fn bytes_that_are_lost_before_they_are_verified(f: &Fixture) {
    let whole = bytes(16, PART + 10);
    for lost in [".00001.", ".00002."] {
        let upload = f.begin(&whole).await;
        let second = f.part(upload.id, 2, &whole[PART..]).await.expect("a part");
        let first = f.part(upload.id, 1, &whole[..PART]).await.expect("a part");
        let list = vec![listed(&first), listed(&second)];
        let upload = f.engine.complete_upload(upload.id, list).await.expect("complete");
        assert_eq!(upload.state, UploadState::Completed);
        let lost_key = format!("{}{lost}", upload.id);
        let key = f.objects().await.into_iter().find(|key| key.contains(&lost_key)).expect("an object");
        f.store.delete(&key).await.expect("an object less");
        f.engine.run_until_idle().await.expect("jobs");
        let upload = f.engine.get_upload(upload.id).await.expect("a session");
        if lost == ".00001." {
            // What the hash chain of the first part covers is not read again: a reader finds out.
            assert_eq!(upload.state, UploadState::Ready);
            f.read(&upload.expected_digest).await.expect_err("no bytes");
            assert_eq!(f.blob_state(&upload.expected_digest).await, BlobState::Damaged);
        } else {
            assert_eq!(upload.state, UploadState::Failed);
            assert!(upload.failure_reason.is_some_and(|reason| reason.contains("lost")));
        }
    }
    heal(f, &whole).await;
}

async fn the_states_of_a_blob_are_written_down(f: &Fixture) {
    let whole = bytes(17, 100);
    let digest = f.upload(&whole).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    let condemn = "update blobs set state = 'condemned', condemned_at = created_at";

    f.sql(condemn).await.expect("a blob");
    for _ in 0..2 {
        assert_eq!(f.begin(&whole).await.state, UploadState::Ready);
    }
    f.store.delete(&key).await.expect("an object less");
    f.read(&digest).await.expect_err("no bytes");
    f.store.write(&key, whole.clone()).await.expect("the object is back");
    assert_eq!(f.engine.sweep().await.expect("a sweep").blobs_repaired, 1);

    f.sql(condemn).await.expect("a blob");
    f.store.delete(&key).await.expect("an object less");
    for _ in 0..2 {
        f.read(&digest).await.expect_err("no bytes");
    }
    heal(f, &whole).await;
    f.sql(condemn).await.expect("a blob");
    f.sql("update blobs set state = 'deleting'").await.expect("a blob");
    heal(f, &whole).await;

    let seen = f.events(Subject::Blob, &digest).await;
    let seen: Vec<_> = seen.iter().map(|event| event.trim_start_matches("system:engine: ")).collect();
    assert_eq!(
        seen,
        [
            "created [- → live]",
            "revived [condemned → live]",
            "damaged [live → damaged]",
            "found whole [damaged → live]",
            "damaged [condemned → damaged]",
            "healed [damaged → live]",
            "healed [deleting → live]",
        ]
    );
    assert_eq!(f.count("select count(*) from blobs where condemned_at is not null").await, 0);
}
