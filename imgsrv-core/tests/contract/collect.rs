//! Blobs that nobody needs are given notice and then deleted; whoever needs one takes it back.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use imgsrv_core::model::{BlobState, Digest, SweepAction, SweepPlan, UploadState};
use imgsrv_core::{Collected, Engine, Error};

use crate::fixture::{Fixture, attachment, bytes, listed};

crate::behaviours!(
    what_nobody_needs_goes_after_its_time,
    what_somebody_needs_stays,
    the_time_begins_when_the_last_citation_goes,
    whoever_needs_it_takes_it_back,
    a_plan_is_carried_out_exactly,
    several_nodes_carry_out_one_plan,
    a_begin_is_never_answered_with_what_goes,
    what_was_deleted_can_be_uploaded_again,
    one_node_a_day_collects,
    much_is_not_deleted_unasked,
);

const RETENTION: TimeDelta = TimeDelta::days(7);
const NOTICE: TimeDelta = TimeDelta::hours(24);
const SECOND: TimeDelta = TimeDelta::seconds(1);

fn actions(plan: &SweepPlan) -> Vec<(Digest, SweepAction)> {
    plan.blobs.iter().map(|blob| (blob.digest.clone(), blob.action)).collect()
}

async fn collect(engine: &Engine) -> Collected {
    let plan = engine.plan_sweep().await.expect("a plan");
    engine.carry_out(&plan).await.expect("carried out")
}

fn time(at: DateTime<Utc>) -> String {
    format!("'{}'", at.to_rfc3339_opts(SecondsFormat::AutoSi, false))
}

async fn gone(f: &Fixture, digest: &Digest) -> bool {
    f.texts(&format!("select digest from blobs where digest = '{digest}'")).await.is_empty()
}

async fn what_nobody_needs_goes_after_its_time(f: &Fixture) {
    let (whole, empty) = (bytes(1, 300), Vec::new());
    let digests = [f.upload_in(&whole, &[100, 200]).await.0, f.upload(&empty).await];
    f.clock.advance(RETENTION);
    assert_eq!(collect(&f.engine).await, Collected::default(), "it has a moment left");
    f.clock.advance(SECOND);
    assert_eq!(collect(&f.engine).await, Collected { condemned: 2, ..Collected::default() });
    assert!(f.read(&digests[0]).await.expect("it is still there") == whole);
    f.clock.advance(NOTICE);
    assert_eq!(collect(&f.engine).await, Collected::default(), "it has a moment left");
    f.clock.advance(SECOND);
    let plan = f.engine.plan_sweep().await.expect("a plan");
    assert_eq!((plan.stored_bytes, plan.deleted_bytes()), (300, 300));
    assert_eq!(f.engine.carry_out(&plan).await.expect("carried out").deleted, 2);
    for digest in &digests {
        assert!(gone(f, digest).await);
        assert!(matches!(f.engine.read_blob(digest, None).await, Err(Error::NotFound(_))));
    }
    f.engine.sweep().await.expect("a sweep");
    assert_eq!(f.objects().await.len(), 2, "a reader may be at it");
    f.clock.advance(NOTICE);
    f.engine.sweep().await.expect("a sweep");
    assert!(f.objects().await.is_empty());
    assert_eq!(f.count("select count(*) from part_attempts").await, 0);
    f.tidy().await;
}

/// What cites a blob: a draft, a published version, an attachment, an open session.
async fn what_somebody_needs_stays(f: &Fixture) {
    let all = [bytes(2, 10), bytes(3, 10), bytes(4, 10), bytes(5, 10)];
    let [drafted, published, attached, awaited] = &all;
    let draft = f.draft_as("debian", "draft").await;
    let artifact = f.artifact(&draft, "raw", drafted).await;
    f.upload(attached).await;
    f.engine.add_attachment(&draft.0, &draft.1, artifact, attachment("notes", attached)).await.expect("an attachment");
    f.published_as("ubuntu", "1", published).await;
    f.clock.advance(RETENTION * 10);
    // Begun while its bytes were unknown, and somebody else was faster.
    let session = f.begin(awaited).await;
    f.upload(awaited).await;
    let now = f.clock.now();
    f.sql(&format!("update blobs set last_used_at = {}", time(now - RETENTION * 2))).await.expect("blobs");
    for _ in 0..3 {
        assert_eq!(collect(&f.engine).await, Collected::default());
    }
    // Whatever makes one condemned, it is not deleted.
    f.sql(&format!("update blobs set state = 'condemned', condemned_at = {}", time(now - NOTICE * 2)))
        .await
        .expect("blobs");
    assert_eq!(collect(&f.other).await, Collected::default());
    for bytes in &all {
        assert_eq!(f.read(&Digest::of(bytes)).await.expect("bytes"), *bytes);
    }
    f.engine.abort_upload(session.id).await.expect("abort");
    assert_eq!(collect(&f.engine).await.deleted, 1, "nobody waits for it any more");
    assert!(gone(f, &Digest::of(awaited)).await);
    f.tidy().await;
}

async fn the_time_begins_when_the_last_citation_goes(f: &Fixture) {
    let all = [bytes(6, 10), bytes(7, 10), bytes(8, 10)];
    let [first, second, third] = &all;
    let draft = f.draft_as("debian", "draft").await;
    let one = f.artifact(&draft, "raw", first).await;
    let two = f.artifact(&draft, "qcow2", second).await;
    f.upload(third).await;
    let notes =
        f.engine.add_attachment(&draft.0, &draft.1, two, attachment("notes", third)).await.expect("an attachment");
    f.clock.advance(RETENTION * 2);
    f.engine.remove_artifact(&draft.0, &draft.1, one).await.expect("removed");
    f.clock.advance(RETENTION);
    f.engine.remove_attachment(&draft.0, &draft.1, two, notes.id).await.expect("removed");
    assert_eq!(collect(&f.engine).await, Collected::default());
    f.clock.advance(SECOND);
    assert_eq!(collect(&f.engine).await.condemned, 1);
    assert_eq!(f.blob_state(&Digest::of(first)).await, BlobState::Condemned);
    f.clock.advance(RETENTION - SECOND);
    f.engine.delete_draft(&draft.0, &draft.1).await.expect("deleted");
    f.clock.advance(SECOND);
    assert_eq!(collect(&f.engine).await, Collected { condemned: 1, deleted: 1, kept: 0 });
    assert_eq!(f.blob_state(&Digest::of(second)).await, BlobState::Live, "its week has just begun");
    f.tidy().await;
}

/// Condemned blobs that somebody uses: by an upload, in a draft, to publish.
async fn whoever_needs_it_takes_it_back(f: &Fixture) {
    let all = [bytes(9, 10), bytes(10, 10)];
    let [begun, cited] = &all;
    for bytes in &all {
        f.upload(bytes).await;
    }
    f.clock.advance(RETENTION + SECOND);
    assert_eq!(collect(&f.engine).await.condemned, 2);
    f.clock.advance(NOTICE + SECOND);
    let plan = f.engine.plan_sweep().await.expect("a plan");
    assert_eq!(plan.blobs.len(), 2);
    assert_eq!(f.begin(begun).await.state, UploadState::Ready);
    let draft = f.draft_as("debian", "draft").await;
    f.artifact(&draft, "raw", cited).await;
    let collected = f.other.carry_out(&plan).await.expect("carried out");
    assert_eq!(collected, Collected { kept: 2, ..Collected::default() });
    for bytes in &all {
        assert_eq!(f.blob_state(&Digest::of(bytes)).await, BlobState::Live);
        assert_eq!(f.read(&Digest::of(bytes)).await.expect("bytes"), *bytes);
    }
    assert_eq!(f.publish(&draft).await.job.state().word(), "succeeded");
    f.tidy().await;
}

async fn a_plan_is_carried_out_exactly(f: &Fixture) {
    let (first, second) = (f.upload(&bytes(11, 10)).await, f.upload(&bytes(12, 10)).await);
    f.clock.advance(RETENTION + SECOND);
    let empty = f.engine.plan_sweep().await.expect("a plan");
    let late = f.upload(&bytes(13, 10)).await;
    let mut expected = [(first.clone(), SweepAction::Condemn), (second.clone(), SweepAction::Condemn)];
    expected.sort();
    assert_eq!(actions(&empty), expected);
    assert_eq!(f.blob_state(&first).await, BlobState::Live, "a plan changes nothing");
    let kept = f.other.get_sweep_plan(empty.id).await.expect("the plan");
    assert_eq!(kept, empty);

    f.clock.advance(RETENTION * 2);
    assert_eq!(f.other.carry_out(&kept).await.expect("carried out").condemned, 2);
    assert_eq!(f.blob_state(&late).await, BlobState::Live, "it is not in the plan");
    let again = f.engine.carry_out(&kept).await.expect("carried out");
    assert_eq!(again, Collected { kept: 2, ..Collected::default() }, "it condemns, and does not delete");
    f.clock.advance(NOTICE * 2);
    assert_eq!(f.engine.carry_out(&kept).await.expect("carried out").kept, 2);

    f.clock.advance(TimeDelta::days(30));
    f.engine.sweep().await.expect("a sweep");
    assert!(matches!(f.engine.get_sweep_plan(kept.id).await, Err(Error::NotFound(_))));
    f.tidy().await;
}

async fn several_nodes_carry_out_one_plan(f: &Fixture) {
    for seed in 20..40 {
        f.upload(&bytes(seed, 10)).await;
    }
    f.clock.advance(RETENTION + SECOND);
    let plan = f.engine.plan_sweep().await.expect("a plan");
    let (one, other) = tokio::join!(f.engine.carry_out(&plan), f.other.carry_out(&plan));
    let (one, other) = (one.expect("carried out"), other.expect("carried out"));
    assert_eq!((one.condemned + other.condemned, one.kept + other.kept), (20, 20));
    f.clock.advance(NOTICE + SECOND);
    let plan = f.engine.plan_sweep().await.expect("a plan");
    let (one, other) = tokio::join!(f.engine.carry_out(&plan), f.other.carry_out(&plan));
    assert_eq!(one.expect("carried out").deleted + other.expect("carried out").deleted, 20);
    f.tidy().await;
}

/// `ready` is a promise: whatever the sweep does meanwhile, the bytes can be published afterwards.
async fn a_begin_is_never_answered_with_what_goes(f: &Fixture) {
    let whole = bytes(14, 1000);
    let digest = f.upload(&whole).await;
    for round in 0..20 {
        f.clock.advance(RETENTION + SECOND);
        assert_eq!(collect(&f.engine).await.condemned, 1);
        f.clock.advance(NOTICE + SECOND);
        let plan = f.engine.plan_sweep().await.expect("a plan");
        let (begun, collected) = tokio::join!(f.begin(&whole), f.other.carry_out(&plan));
        let collected = collected.expect("carried out");
        if begun.state == UploadState::Ready {
            assert_eq!((collected.deleted, collected.kept), (0, 1), "round {round}");
            assert_eq!(f.read(&digest).await.expect("bytes"), whole);
        } else {
            assert_eq!(collected.deleted, 1, "round {round}");
            let part = f.part(begun.id, 1, &whole).await.expect("a part");
            f.engine.complete_upload(begun.id, vec![listed(&part)]).await.expect("complete");
        }
        assert_eq!(f.blob_state(&digest).await, BlobState::Live);
        assert_eq!(f.read(&digest).await.expect("bytes"), whole);
    }
    f.tidy().await;
}

async fn what_was_deleted_can_be_uploaded_again(f: &Fixture) {
    let whole = bytes(15, 1000);
    let digest = f.upload(&whole).await;
    f.clock.advance(RETENTION + SECOND);
    collect(&f.engine).await;
    f.clock.advance(NOTICE + SECOND);
    assert_eq!(collect(&f.engine).await.deleted, 1);
    assert_eq!(f.upload(&whole).await, digest);
    f.clock.advance(NOTICE + SECOND);
    f.engine.sweep().await.expect("a sweep");
    assert_eq!(f.objects().await.len(), 1, "the old objects are gone, the new one is not");
    assert_eq!(f.read(&digest).await.expect("bytes"), whole);
    f.tidy().await;
}

async fn one_node_a_day_collects(f: &Fixture) {
    let cited = bytes(16, 10);
    let (loose, kept) = (f.upload(&bytes(17, 10)).await, f.published(&cited).await);
    for _ in 0..11 {
        f.clock.advance(TimeDelta::days(1));
        f.engine.run_until_idle().await.expect("the daily job");
        f.other.run_until_idle().await.expect("nothing");
    }
    assert!(gone(f, &loose).await);
    assert_eq!(f.read(&Digest::of(&cited)).await.expect("bytes"), cited);
    assert_eq!(f.version_state(&kept).await.word(), "published");
    f.tidy().await;
}

async fn much_is_not_deleted_unasked(f: &Fixture) {
    let digest = f.upload(&bytes(18, 10)).await;
    f.sql("update blobs set size = 2000000000").await.expect("a large blob");
    f.clock.advance(RETENTION + SECOND);
    f.engine.run_until_idle().await.expect("the daily job");
    f.clock.advance(TimeDelta::days(2));
    f.engine.run_until_idle().await.expect("the daily job");
    assert_eq!(f.blob_state(&digest).await, BlobState::Condemned);
    let plan = f.engine.plan_sweep().await.expect("a plan");
    assert!(plan.is_large());
    f.sql("update blobs set size = 10").await.expect("as it was");
    assert_eq!(f.engine.carry_out(&plan).await.expect("carried out").deleted, 1, "who says so has it");
    f.tidy().await;
}
