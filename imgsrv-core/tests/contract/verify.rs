//! Bytes that are not those that were published: they are found out, never served whole, and replaced by the right ones.

use std::ops::Range;

use chrono::TimeDelta;
use futures_util::StreamExt;
use imgsrv_core::model::{BlobState, Digest, Subject, UploadState};
use imgsrv_core::{Condition, Error, Verdict};

use crate::fixture::{BLOCK, Fixture, bytes, condition, listed, read};

crate::behaviours!(
    what_is_as_it_was_is_whole,
    other_bytes_are_never_served,
    checksums_of_other_bytes_are_made_anew,
    bytes_that_are_right_again_are_served_again,
    bytes_that_are_missing_are_damage,
    a_sweep_does_not_trust_a_size,
    nothing_is_published_of_it,
    a_healed_blob_is_not_judged_by_its_old_bytes,
    every_blob_is_listed_once,
);

async fn what_is_as_it_was_is_whole(f: &Fixture) {
    for (seed, size, sizes) in [(1, 0, &[][..]), (2, 1, &[1]), (3, 900_000, &[300_000, 300_000, 300_000])] {
        let whole = bytes(seed, size);
        let digest = if sizes.is_empty() { f.upload(&whole).await } else { f.upload_in(&whole, sizes).await.0 };
        assert_eq!(f.engine.verify_blob(&digest).await.expect("a verdict"), Verdict::Whole);
        assert_eq!(f.blob_state(&digest).await, BlobState::Live);
        assert!(f.read(&digest).await.expect("bytes") == whole);
    }
    let unknown = f.engine.verify_blob(&Digest::of(b"unknown")).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

/// Changes one byte of an object, as a disk may; what the blob is then.
async fn rot(f: &Fixture, whole: &[u8], key: &str, object: Range<usize>, at: usize) -> Digest {
    let mut rotten = whole.to_vec();
    rotten[at] ^= 1;
    f.store.write(key, rotten[object].to_vec()).await.expect("an object that has changed");
    Digest::of(&rotten)
}

/// The bytes that came before there was an error, which there has to be.
async fn read_until_it_breaks(f: &Fixture, digest: &Digest, range: Range<usize>) -> Vec<u8> {
    let mut body = match f.engine.read_blob(digest, Some(range.start as u64..range.end as u64)).await {
        Ok(stream) => stream.body,
        Err(Error::Unavailable { .. }) => return Vec::new(),
        Err(err) => panic!("{err}"),
    };
    let mut came = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => came.extend_from_slice(&chunk),
            Err(_) => return came,
        }
    }
    panic!("{} bytes came, and none was missed", came.len());
}

async fn other_bytes_are_never_served(f: &Fixture) {
    for (seed, first, size) in [(4, 100, 300), (5, 700_000, 3_000_000)] {
        let whole = bytes(seed, size);
        let (digest, keys) = f.upload_in(&whole, &[first, size - first]).await;
        for (key, object) in [(&keys[0], 0..first), (&keys[1], first..size)] {
            let middle = object.start + object.len() / 2;
            for at in [object.start, middle, object.end - 1] {
                rot(f, &whole, key, object.clone(), at).await;
                let block = object.start + (at - object.start) / BLOCK * BLOCK;
                let behind = object.end.min(block + BLOCK);
                for range in [0..block, block.saturating_sub(9)..block, behind..size, behind..(behind + 9).min(size)] {
                    let read = read(&f.engine, &digest, Some(range.start as u64..range.end as u64)).await;
                    assert!(read.expect("bytes beside them") == whole[range]);
                }
                for range in [0..size, object.clone(), at..size, 0..at + 1, at..at + 1, block..behind] {
                    let came = read_until_it_breaks(f, &digest, range.clone()).await;
                    assert!(came.len() <= block.saturating_sub(range.start), "none of the block may come");
                    assert!(came == whole[range.start..][..came.len()]);
                    f.wait_until(async || f.blob_state(&digest).await == BlobState::Quarantined).await;
                    for range in [None, Some(0..1)] {
                        let refused = f.other.read_blob(&digest, range).await;
                        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
                    }
                    f.store.write(key, whole[object.clone()].to_vec()).await.expect("the object as it was");
                    // Whoever read it before and has not judged it yet sees that it was found whole later.
                    f.clock.advance(TimeDelta::seconds(1));
                    assert_eq!(f.engine.verify_blob(&digest).await.expect("a verdict"), Verdict::Whole);
                    rot(f, &whole, key, object.clone(), at).await;
                }
                f.store.write(key, whole[object.clone()].to_vec()).await.expect("the object as it was");
            }
        }
        assert!(f.read(&digest).await.expect("bytes") == whole);
    }
}

async fn checksums_of_other_bytes_are_made_anew(f: &Fixture) {
    let whole = bytes(11, 300_000);
    let (digest, keys) = f.upload_in(&whole, &[100_000, 200_000]).await;
    let of_another = format!("(select checksums from part_attempts where key = '{}')", keys[1]);
    f.sql(&format!("update part_attempts set checksums = {of_another} where key = '{}'", keys[0]))
        .await
        .expect("a row");
    assert!(read_until_it_breaks(f, &digest, 0..300_000).await.is_empty());
    let beside = read(&f.engine, &digest, Some(100_000..300_000)).await.expect("the other object");
    assert!(beside == whole[100_000..]);
    // Who came upon it has the blob verified.
    f.wait_until(async || f.read(&digest).await.is_ok()).await;
    for engine in [&f.engine, &f.other] {
        assert!(read(engine, &digest, None).await.expect("bytes") == whole);
    }
    assert_eq!(f.blob_state(&digest).await, BlobState::Live);
}

async fn bytes_that_are_right_again_are_served_again(f: &Fixture) {
    let whole = bytes(6, 5000);
    let (digest, keys) = f.upload_in(&whole, &[2000, 3000]).await;
    let found = rot(f, &whole, &keys[1], 2000..5000, 4999).await;
    assert_eq!(f.engine.verify_blob(&digest).await.expect("a verdict"), Verdict::Different { found: found.clone() });
    assert_eq!(f.other.verify_blob(&digest).await.expect("a verdict"), Verdict::Different { found }, "again");
    let refused = f.engine.read_blob(&digest, None).await;
    assert!(matches!(refused, Err(Error::Unavailable { what: "blob with damaged bytes", .. })), "{refused:?}");

    f.store.write(&keys[1], whole[2000..].to_vec()).await.expect("the object as it was");
    assert_eq!(f.engine.verify_blob(&digest).await.expect("a verdict"), Verdict::Whole);
    assert!(f.read(&digest).await.expect("bytes") == whole);

    rot(f, &whole, &keys[0], 0..2000, 1999).await;
    f.engine.verify_blob(&digest).await.expect("a verdict");
    let upload = f.begin(&whole).await;
    assert_eq!(upload.state, UploadState::Created, "it counts as absent");
    let part = f.part(upload.id, 1, &whole).await.expect("a part");
    let upload = f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    assert!(f.read(&digest).await.expect("bytes") == whole);
    assert_eq!(f.engine.verify_blob(&digest).await.expect("a verdict"), Verdict::Whole);
    let seen = f.events(Subject::Blob, &digest).await;
    let seen: Vec<_> = seen.iter().map(|event| event.trim_start_matches("system:engine: ")).collect();
    let expected = [
        "created [- → live]",
        "quarantined [live → quarantined]",
        "found whole [quarantined → live]",
        "quarantined [live → quarantined]",
        "healed [quarantined → live]",
    ];
    assert_eq!(seen, expected);
    f.tidy().await;
}

async fn bytes_that_are_missing_are_damage(f: &Fixture) {
    let whole = bytes(7, 5000);
    let (digest, keys) = f.upload_in(&whole, &[2000, 3000]).await;
    f.store.delete(&keys[1]).await.expect("an object less");
    assert_eq!(f.engine.verify_blob(&digest).await.expect("a verdict"), Verdict::Missing);
    assert_eq!(f.blob_state(&digest).await, BlobState::Damaged);
    f.store.write(&keys[1], vec![0; 3000]).await.expect("another object in its place");
    assert!(matches!(f.engine.verify_blob(&digest).await, Ok(Verdict::Different { .. })));
    assert_eq!(f.blob_state(&digest).await, BlobState::Quarantined);
    f.store.write(&keys[1], whole[2000..].to_vec()).await.expect("the object is back");
    assert_eq!(f.engine.verify_blob(&digest).await.expect("a verdict"), Verdict::Whole);
}

async fn a_sweep_does_not_trust_a_size(f: &Fixture) {
    let whole = bytes(8, 5000);
    let (digest, keys) = f.upload_in(&whole, &[5000]).await;
    rot(f, &whole, &keys[0], 0..5000, 4999).await;
    f.engine.verify_blob(&digest).await.expect("a verdict");
    assert_eq!(f.engine.sweep().await.expect("a sweep").blobs_repaired, 0);
    assert_eq!(f.blob_state(&digest).await, BlobState::Quarantined);
    f.store.write(&keys[0], whole).await.expect("the object as it was");
    f.engine.verify_blob(&digest).await.expect("a verdict");
}

async fn nothing_is_published_of_it(f: &Fixture) {
    let whole = bytes(9, 5000);
    let (digest, keys) = f.upload_in(&whole, &[5000]).await;
    let draft = f.draft().await;
    f.artifact(&draft, "raw", &whole).await;
    rot(f, &whole, &keys[0], 0..5000, 4999).await;
    f.engine.verify_blob(&digest).await.expect("a verdict");
    assert_eq!(condition(f.engine.publish_version(&draft.0, &draft.1).await), Condition::NotPublishable);
    f.store.write(&keys[0], whole).await.expect("the object as it was");
    f.engine.verify_blob(&digest).await.expect("a verdict");
    f.publish(&draft).await;
}

/// Verified again while it is uploaded again: whichever comes first, it is live in the end.
async fn a_healed_blob_is_not_judged_by_its_old_bytes(f: &Fixture) {
    let whole = bytes(10, 300_000);
    let (digest, keys) = f.upload_in(&whole, &[300_000]).await;
    let mut key = keys[0].clone();
    for _ in 0..10 {
        rot(f, &whole, &key, 0..300_000, 299_999).await;
        f.engine.verify_blob(&digest).await.expect("a verdict");
        let upload = f.begin(&whole).await;
        let part = f.part(upload.id, 1, &whole).await.expect("a part");
        let (completed, verdict, other) = tokio::join!(
            f.engine.complete_upload(upload.id, vec![listed(&part)]),
            f.engine.verify_blob(&digest),
            f.other.verify_blob(&digest),
        );
        assert_eq!(completed.expect("complete").state, UploadState::Ready);
        assert_ne!(verdict.expect("a verdict"), Verdict::Missing);
        assert_ne!(other.expect("a verdict"), Verdict::Missing);
        assert_eq!(f.blob_state(&digest).await, BlobState::Live);
        assert!(read(&f.other, &digest, None).await.expect("bytes") == whole);
        key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    }
    f.tidy().await;
}

async fn every_blob_is_listed_once(f: &Fixture) {
    let mut uploaded = Vec::new();
    for seed in 20..27 {
        uploaded.push(f.upload(&bytes(seed, 10)).await);
    }
    uploaded.sort();
    let mut listed: Vec<Digest> = Vec::new();
    loop {
        let page = f.engine.blob_digests(listed.last(), 3).await.expect("a page");
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed, uploaded);
}
