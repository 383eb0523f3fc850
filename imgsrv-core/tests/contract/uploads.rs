//! Uploads.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use imgsrv_core::model::{Digest, UploadFilter, UploadState};
use imgsrv_core::{Condition, Error, PartClaim};

use crate::fixture::{Fixture, PART, body, broken, bytes, condition, listed, number, promise};

crate::behaviours!(
    in_order_is_ready_at_once,
    out_of_order_is_ready_after_the_worker,
    a_gap_in_the_numbers_is_no_gap,
    an_empty_blob,
    a_repeated_part_replaces_the_first,
    parts_by_two_nodes,
    frames_of_every_size,
    a_broken_body_changes_nothing,
    a_dropped_request_changes_nothing,
    what_is_given_up_is_taken_back,
    an_object_whose_store_was_not_heard_is_looked_for,
    too_many_bytes_are_refused,
    a_wrong_digest_fails_and_can_be_sent_again,
    a_wrong_part_digest_is_refused,
    the_list_must_be_the_stored_parts,
    a_list_that_cannot_be,
    a_known_digest_is_ready_at_once,
    a_known_digest_has_one_size,
    side_by_side,
    expired,
    aborted,
    answers_do_not_wait_for_deletes,
    listing_finds_the_newest,
);

async fn in_order_is_ready_at_once(f: &Fixture) {
    let whole = bytes(1, 2 * PART + 1000);
    let upload = f.begin(&whole).await;
    assert_eq!(upload.state, UploadState::Created);
    let mut parts = Vec::new();
    for (at, chunk) in whole.chunks(PART).enumerate() {
        parts.push(f.part(upload.id, at as i64 + 1, chunk).await.expect("a part"));
    }
    assert_eq!(parts[0].sha256, Some(Digest::of(&whole[..PART])), "the first part's own digest costs nothing");
    assert_eq!(f.engine.list_parts(upload.id).await.expect("parts"), parts);
    assert_eq!(f.engine.get_upload(upload.id).await.expect("a session").received, whole.len() as u64);
    let list: Vec<_> = parts.iter().rev().map(listed).collect();
    let upload = f.engine.complete_upload(upload.id, list).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    assert_eq!(f.read(&upload.expected_digest).await.expect("a blob"), whole);
    assert_eq!(f.engine.blob_objects(&upload.expected_digest).await.expect("objects").len(), 3);
}

async fn out_of_order_is_ready_after_the_worker(f: &Fixture) {
    let whole = bytes(2, 3 * PART);
    let upload = f.begin(&whole).await;
    let mut parts = Vec::new();
    for at in [3, 1, 2] {
        parts.push(f.part(upload.id, at, &whole[(at as usize - 1) * PART..][..PART]).await.expect("a part"));
    }
    let list: Vec<_> = parts.iter().map(listed).collect();
    let upload = f.engine.complete_upload(upload.id, list.clone()).await.expect("complete");
    assert_eq!(upload.state, UploadState::Completed);
    let again = f.engine.complete_upload(upload.id, Vec::new()).await.expect("whatever the list says");
    assert_eq!(again.state, UploadState::Completed);
    assert_eq!(f.other.run_until_idle().await.expect("jobs").jobs, 1);
    assert_eq!(f.engine.get_upload(upload.id).await.expect("a session").state, UploadState::Ready);
    assert_eq!(f.read(&upload.expected_digest).await.expect("a blob"), whole);
}

async fn a_gap_in_the_numbers_is_no_gap(f: &Fixture) {
    let whole = bytes(3, PART + 7);
    let upload = f.begin(&whole).await;
    let first = f.part(upload.id, 17, &whole[..PART]).await.expect("a part");
    let second = f.part(upload.id, 10_000, &whole[PART..]).await.expect("a part");
    let upload = f.engine.complete_upload(upload.id, vec![listed(&second), listed(&first)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    assert_eq!(f.read(&upload.expected_digest).await.expect("a blob"), whole);
}

async fn an_empty_blob(f: &Fixture) {
    let digest = f.upload(b"").await;
    assert_eq!(f.read(&digest).await.expect("a blob"), b"");
    assert!(f.objects().await.is_empty(), "an empty part has no object");
}

async fn a_repeated_part_replaces_the_first(f: &Fixture) {
    let whole = bytes(4, PART + 9);
    let upload = f.begin(&whole).await;
    let wrong = f.part(upload.id, 1, &bytes(5, PART)).await.expect("a part");
    let last = f.part(upload.id, 2, &whole[PART..]).await.expect("a part");
    let right = f.part(upload.id, 1, &whole[..PART]).await.expect("the part again");
    assert_ne!(wrong.etag, right.etag);
    let old = f.engine.complete_upload(upload.id, vec![listed(&wrong), listed(&last)]).await;
    assert_eq!(condition(old), Condition::PartMismatch, "an etag of an older attempt no longer counts");
    let list = vec![listed(&right), listed(&last)];
    let upload = f.engine.complete_upload(upload.id, list).await.expect("complete");
    assert_eq!(upload.state, UploadState::Completed, "the second part was hashed on top of a part that is gone");
    f.engine.run_until_idle().await.expect("jobs");
    assert_eq!(f.read(&upload.expected_digest).await.expect("a blob"), whole);
    assert_eq!(f.objects().await.len(), 2, "the replaced attempt is gone");
}

async fn parts_by_two_nodes(f: &Fixture) {
    let whole = bytes(6, 2 * PART);
    let upload = f.begin(&whole).await;
    let first = f.part(upload.id, 1, &whole[..PART]).await.expect("a part");
    let claim = PartClaim { size: Some(PART as u64), sha256: None };
    let second = f.other.put_part(upload.id, number(2), claim, body(&whole[PART..])).await.expect("a part");
    let upload = f.other.complete_upload(upload.id, vec![listed(&first), listed(&second)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready, "the hash chain goes on on another node");
}

async fn frames_of_every_size(f: &Fixture) {
    let whole = bytes(24, 3_000_000);
    let upload = f.begin(&whole).await;
    let mut random = fastrand::Rng::with_seed(24);
    let (mut frames, mut rest) = (Vec::new(), &whole[..]);
    while !rest.is_empty() {
        let size = [random.usize(0..4), random.usize(..20_000), random.usize(..500_000)][random.usize(..3)];
        let (frame, behind) = rest.split_at(size.min(rest.len()));
        frames.push(Ok(bytes::Bytes::copy_from_slice(frame)));
        rest = behind;
    }
    let part = f.engine.put_part(upload.id, number(1), PartClaim::default(), stream::iter(frames)).await;
    let upload = f.engine.complete_upload(upload.id, vec![listed(&part.expect("a part"))]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == whole);
}

async fn a_broken_body_changes_nothing(f: &Fixture) {
    let whole = bytes(7, 100_000);
    let upload = f.begin(&whole).await;
    let cut = f.engine.put_part(upload.id, number(1), PartClaim::default(), broken(&whole[..70_000])).await;
    assert!(matches!(cut, Err(Error::Invalid { .. })), "{cut:?}");
    let claim = PartClaim { size: Some(100_000), sha256: None };
    let short = f.engine.put_part(upload.id, number(1), claim, body(&whole[..70_000])).await;
    assert!(matches!(short, Err(Error::Invalid { .. })), "{short:?}");
    let after = f.engine.get_upload(upload.id).await.expect("a session");
    assert_eq!((after.state, after.received), (UploadState::Created, 0));
    assert!(f.engine.list_parts(upload.id).await.expect("parts").is_empty());
    assert!(f.objects().await.is_empty());
    f.upload(&whole).await;
    f.engine.abort_upload(upload.id).await.expect("abort");
}

async fn a_dropped_request_changes_nothing(f: &Fixture) {
    let upload = f.begin(&bytes(8, 300_000)).await;
    let (stalled, has_stalled) = tokio::sync::oneshot::channel();
    let body = stream::iter([Ok(bytes::Bytes::from(vec![1; 270_000]))]).chain(stream::once(async move {
        stalled.send(()).ok();
        std::future::pending().await
    }));
    tokio::select! {
        answer = f.engine.put_part(upload.id, number(1), PartClaim::default(), body) => panic!("{answer:?}"),
        _ = has_stalled => {}
    }
    f.wait_until(async || f.texts("select key from part_attempts").await.is_empty()).await;
    assert!(f.objects().await.is_empty());
    assert_eq!(f.engine.get_upload(upload.id).await.expect("a session").state, UploadState::Created);
    f.engine.abort_upload(upload.id).await.expect("abort");
}

async fn what_is_given_up_is_taken_back(f: &Fixture) {
    let whole = bytes(26, 3 * PART);
    let upload = f.begin(&whole).await;
    // While what came before is on its way into the store.
    let cut = f.engine.put_part(upload.id, number(1), PartClaim::default(), broken(&whole[..3 * PART - 1])).await;
    assert!(matches!(cut, Err(Error::Invalid { .. })), "{cut:?}");
    assert_eq!(f.unfinished(), 0);
    let begun = async || f.unfinished() == u64::from(f.pair.speaks_s3());
    let part = f.begin_part(upload.id, 1, &whole).await;
    f.wait_until(begun).await;
    part.drop().await;
    f.wait_until(async || f.texts("select key from part_attempts").await.is_empty()).await;
    assert_eq!(f.unfinished(), 0);
    if f.pair.speaks_s3() {
        // A part in progress looks at its session every 20 seconds.
        let part = f.begin_part(upload.id, 1, &whole).await;
        f.wait_until(begun).await;
        f.engine.abort_upload(upload.id).await.expect("abort");
        assert_eq!(condition(part.refused().await), Condition::WrongState);
        assert_eq!(f.unfinished(), 0);
    }
    f.engine.abort_upload(upload.id).await.expect("abort");
    f.deleted().await;
    assert!(f.objects().await.is_empty());
}

async fn an_object_whose_store_was_not_heard_is_looked_for(f: &Fixture) {
    let whole = bytes(12, PART + 1000);
    let upload = f.begin(&whole).await;
    f.gate.lose_answers(true);
    let part = f.part(upload.id, 1, &whole).await;
    f.gate.lose_answers(false);
    // Of a file it is not its size that says whether it is on the disk.
    let part = match f.pair.has_files() {
        true => {
            assert!(matches!(part, Err(Error::Unavailable { .. })), "{part:?}");
            f.part(upload.id, 1, &whole).await.expect("the session is as it was")
        }
        false => part.expect("it is there"),
    };
    let done = f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(done.state.word(), "ready");
    assert_eq!(f.read(&done.expected_digest).await.expect("bytes"), whole);
    f.deleted().await;
    assert_eq!(f.objects().await.len(), 1);
    assert_eq!(f.unfinished(), 0);
}

async fn too_many_bytes_are_refused(f: &Fixture) {
    let whole = bytes(9, 1000);
    let upload = f.begin(&whole).await;
    let more = bytes(9, 1001);
    assert_eq!(condition(f.part(upload.id, 1, &more).await), Condition::SizeMismatch);
    let claim = PartClaim { size: Some(1001), sha256: None };
    let claimed = f.engine.put_part(upload.id, number(1), claim, body(&more)).await;
    assert_eq!(condition(claimed), Condition::SizeMismatch);
    f.part(upload.id, 1, &whole[..600]).await.expect("a part");
    assert_eq!(condition(f.part(upload.id, 2, &whole[..401]).await), Condition::SizeMismatch);
    f.part(upload.id, 1, &whole).await.expect("a part that replaces one has its room");
    f.engine.abort_upload(upload.id).await.expect("abort");
}

async fn a_wrong_digest_fails_and_can_be_sent_again(f: &Fixture) {
    let whole = bytes(10, 1000);
    let upload = f.begin(&whole).await;
    let part = f.part(upload.id, 1, &bytes(11, 1000)).await.expect("a part");
    let failed = f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(failed.state, UploadState::Failed);
    let reason = failed.failure_reason.expect("a reason");
    assert!(reason.contains(Digest::of(&whole).as_ref()) && reason.contains("expected"), "{reason}");
    f.deleted().await;
    assert!(f.objects().await.is_empty());
    assert_eq!(condition(f.engine.complete_upload(upload.id, vec![listed(&part)]).await), Condition::WrongState);
    assert_eq!(condition(f.part(upload.id, 1, &whole).await), Condition::WrongState);
    f.upload(&whole).await;
}

async fn a_wrong_part_digest_is_refused(f: &Fixture) {
    let whole = bytes(12, PART + 5);
    let upload = f.begin(&whole).await;
    let first = f.part(upload.id, 1, &whole[..PART]).await.expect("a part");
    let claim = |bytes: &[u8]| PartClaim { size: None, sha256: Some(Digest::of(bytes).bytes()) };
    let wrong = f.engine.put_part(upload.id, number(2), claim(b"other"), body(&whole[PART..])).await;
    assert_eq!(condition(wrong), Condition::DigestMismatch);
    let right = f.engine.put_part(upload.id, number(2), claim(&whole[PART..]), body(&whole[PART..])).await;
    let second = right.expect("a part");
    assert_eq!(second.sha256, Some(Digest::of(&whole[PART..])));
    let upload = f.engine.complete_upload(upload.id, vec![listed(&first), listed(&second)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
}

async fn the_list_must_be_the_stored_parts(f: &Fixture) {
    let whole = bytes(13, PART + 5);
    let upload = f.begin(&whole).await;
    let first = listed(&f.part(upload.id, 1, &whole[..PART]).await.expect("a part"));
    let second = listed(&f.part(upload.id, 2, &whole[PART..]).await.expect("a part"));
    let complete = async |list: &[&imgsrv_core::model::PartRef]| {
        f.engine.complete_upload(upload.id, list.iter().copied().cloned().collect()).await
    };
    let mut wrong = second.clone();
    wrong.etag = "0000000000000000-5".to_owned();
    match complete(&[&first, &wrong]).await {
        Err(Error::Precondition { condition: Condition::PartMismatch, errors, .. }) => {
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0].field, "parts/2");
        }
        other => panic!("{other:?}"),
    }
    let mut missing = second.clone();
    missing.number = number(3);
    assert_eq!(condition(complete(&[&first, &missing]).await), Condition::PartMismatch);
    assert_eq!(condition(complete(&[&first]).await), Condition::SizeMismatch);
    assert_eq!(complete(&[&first, &second]).await.expect("complete").state, UploadState::Ready);
}

async fn a_list_that_cannot_be(f: &Fixture) {
    let whole = bytes(14, 1000);
    let upload = f.begin(&whole).await;
    let part = listed(&f.part(upload.id, 1, &whole).await.expect("a part"));
    let mut blank = part.clone();
    blank.etag = " ".to_owned();
    let mut small = part.clone();
    small.number = number(2);
    for list in [vec![], vec![part.clone(), part.clone()], vec![blank], vec![part.clone(), small]] {
        let refused = f.engine.complete_upload(upload.id, list).await;
        assert!(matches!(refused, Err(Error::Invalid { what: "parts", .. })), "{refused:?}");
    }
    f.engine.complete_upload(upload.id, vec![part]).await.expect("complete");
}

async fn a_known_digest_is_ready_at_once(f: &Fixture) {
    let whole = bytes(15, 1000);
    f.upload(&whole).await;
    let objects = f.objects().await;
    let upload = f.other.begin_upload(promise(&whole)).await.expect("a session");
    assert_eq!(upload.state, UploadState::Ready);
    assert_eq!(f.objects().await, objects);
}

async fn a_known_digest_has_one_size(f: &Fixture) {
    let whole = bytes(16, 1000);
    f.upload(&whole).await;
    let mut other = promise(&whole);
    other.expected_size += 1;
    assert_eq!(condition(f.engine.begin_upload(other).await), Condition::SizeMismatch);
}

async fn side_by_side(f: &Fixture) {
    let whole = bytes(17, 1000);
    let (one, two) = (f.begin(&whole).await, f.begin(&whole).await);
    let first = f.part(one.id, 1, &whole).await.expect("a part");
    let second = f.part(two.id, 1, &whole).await.expect("a part");
    for (id, part) in [(one.id, first), (two.id, second)] {
        let upload = f.engine.complete_upload(id, vec![listed(&part)]).await.expect("complete");
        assert_eq!(upload.state, UploadState::Ready);
    }
    f.deleted().await;
    assert_eq!(f.objects().await.len(), 1, "one of the two is enough");
    assert_eq!(f.read(&one.expected_digest).await.expect("a blob"), whole);
}

async fn expired(f: &Fixture) {
    let whole = bytes(18, 1000);
    let upload = f.begin(&whole).await;
    f.clock.advance(chrono::TimeDelta::hours(23));
    let part = f.part(upload.id, 1, &whole[..500]).await.expect("a part");
    let moved = f.engine.get_upload(upload.id).await.expect("a session").expires_at;
    assert_eq!(moved, f.clock.now() + chrono::TimeDelta::hours(24), "each part moves the expiry");
    f.clock.advance(chrono::TimeDelta::hours(24));
    assert_eq!(condition(f.part(upload.id, 2, &whole[500..]).await), Condition::Expired);
    assert_eq!(condition(f.engine.complete_upload(upload.id, vec![listed(&part)]).await), Condition::Expired);
    assert_eq!(f.engine.sweep().await.expect("a sweep").uploads_expired, 1);
    assert_eq!(f.engine.get_upload(upload.id).await.expect("a session").state, UploadState::Aborted);
    assert!(f.objects().await.is_empty());
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn aborted(f: &Fixture) {
    let whole = bytes(19, 1000);
    let upload = f.begin(&whole).await;
    f.part(upload.id, 1, &whole[..500]).await.expect("a part");
    for _ in 0..2 {
        assert_eq!(f.engine.abort_upload(upload.id).await.expect("abort").state, UploadState::Aborted);
    }
    f.deleted().await;
    assert!(f.objects().await.is_empty());
    assert_eq!(condition(f.part(upload.id, 2, &whole[500..]).await), Condition::WrongState);
    let ready = f.begin(&whole).await;
    let part = f.part(ready.id, 1, &whole).await.expect("a part");
    f.engine.complete_upload(ready.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(condition(f.engine.abort_upload(ready.id).await), Condition::WrongState);
}

async fn answers_do_not_wait_for_deletes(f: &Fixture) {
    let whole = bytes(22, 1000);
    let begin = async |sent: &[u8]| {
        let upload = f.begin(&whole).await;
        (upload.id, listed(&f.part(upload.id, 1, sent).await.expect("a part")))
    };
    let (aborted, failed) = (begin(&whole[..500]).await, begin(&bytes(23, 1000)).await);
    let (first, second) = (begin(&whole).await, begin(&whole).await);
    f.gate.shut();
    let answers = async {
        assert_eq!(f.engine.abort_upload(aborted.0).await.expect("abort").state, UploadState::Aborted);
        for ((id, part), state) in
            [(failed, UploadState::Failed), (first, UploadState::Ready), (second, UploadState::Ready)]
        {
            assert_eq!(f.engine.complete_upload(id, vec![part]).await.expect("complete").state, state);
        }
        f.wait_until(async || f.gate.waiting() == 3).await;
    };
    tokio::time::timeout(Duration::from_secs(20), answers).await.expect("answers");
    assert_eq!(f.objects().await.len(), 4, "nothing is deleted yet");
    f.gate.open();
    f.deleted().await;
    assert_eq!(f.objects().await.len(), 1);
    assert_eq!(f.read(&Digest::of(&whole)).await.expect("a blob"), whole);
}

async fn listing_finds_the_newest(f: &Fixture) {
    let whole = bytes(20, 10);
    let first = f.begin(&whole).await;
    f.clock.advance(chrono::TimeDelta::seconds(1));
    let second = f.begin(&whole).await;
    f.begin(&bytes(21, 10)).await;
    let filter = UploadFilter {
        expected_digest: Some(Digest::of(&whole)),
        state: Some(UploadState::Created),
        page: imgsrv_core::model::Page::new(Some(1), None).expect("a page"),
    };
    let page = f.engine.list_uploads(filter.clone()).await.expect("uploads");
    assert_eq!(page.items, [second.clone()]);
    let page = imgsrv_core::model::Page::new(Some(5), page.next).expect("a page");
    let rest = f.engine.list_uploads(UploadFilter { page, ..filter.clone() }).await.expect("uploads");
    assert_eq!((rest.items, rest.next), (vec![first], None));
    let strange = Some("WyJhIl0".parse().expect("a cursor"));
    let page = imgsrv_core::model::Page::new(None, strange).expect("a page");
    assert!(matches!(f.engine.list_uploads(UploadFilter { page, ..filter }).await, Err(Error::Invalid { .. })));
}
