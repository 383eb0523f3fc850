//! Tidying: what is given up, what is deleted, and what must stay.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use imgsrv_core::model::{BlobState, JobState, Subject, UploadId, UploadState};
use imgsrv_core::{Condition, Engine, Error, Swept};

use crate::fixture::{Fixture, PART, bytes, condition, listed};

crate::behaviours!(
    sessions_past_their_time_are_given_up,
    a_part_in_progress_holds_its_session_open,
    a_part_of_a_session_that_expired_is_refused,
    a_part_of_a_session_that_was_aborted_is_refused,
    a_part_of_a_session_that_was_completed_is_refused,
    an_attempt_in_progress_is_left_alone,
    attempts_of_a_node_that_died,
    lost_objects_are_deleted,
    objects_that_cannot_be_deleted_hide_no_others,
    sixteen_objects_are_deleted_at_once,
    an_object_without_a_row_of_a_session_at_its_end,
    an_object_without_a_row_of_an_open_session,
    objects_that_are_not_ours,
    blobs_are_kept,
    probes_of_starts_that_were_cut_short,
    finished_work_is_forgotten_after_a_month,
    much_is_forgotten_a_batch_at_a_time,
    two_nodes_sweep_at_once,
    the_daily_listing_runs_once,
    the_listing_outlives_a_crash_loop,
);

async fn sweep(engine: &Engine) -> Swept {
    engine.sweep().await.expect("a sweep")
}

async fn state(f: &Fixture, id: UploadId) -> UploadState {
    f.engine.get_upload(id).await.expect("a session").state
}

async fn sessions_past_their_time_are_given_up(f: &Fixture) {
    let (early, late) = (f.begin(&bytes(1, 10)).await, f.begin(&bytes(2, 10)).await);
    let never = f.begin(&bytes(3, 10)).await;
    f.part(early.id, 1, &bytes(1, 10)).await.expect("a part");
    f.clock.advance(TimeDelta::hours(1));
    f.part(late.id, 1, &bytes(2, 10)).await.expect("a part");
    f.clock.advance(TimeDelta::hours(23) - TimeDelta::microseconds(1));
    assert_eq!(sweep(&f.engine).await, Swept::default());
    f.clock.advance(TimeDelta::microseconds(1));
    assert_eq!(sweep(&f.engine).await, Swept { uploads_expired: 2, objects_deleted: 1, ..Swept::default() });
    assert_eq!(state(f, early.id).await, UploadState::Aborted);
    assert_eq!(state(f, never.id).await, UploadState::Aborted);
    assert_eq!(state(f, late.id).await, UploadState::Uploading);
    for (id, left) in [(early.id, "uploading"), (never.id, "created")] {
        let seen = f.events(Subject::Upload, id).await;
        assert_eq!(seen.last(), Some(&format!("system:engine: expired [{left} → aborted]")));
    }
    assert_eq!(sweep(&f.other).await, Swept::default(), "all is done");
    f.engine.abort_upload(late.id).await.expect("abort");
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn a_part_in_progress_holds_its_session_open(f: &Fixture) {
    let whole = bytes(4, 600_000);
    let upload = f.begin(&whole).await;
    f.clock.advance(TimeDelta::hours(24) - TimeDelta::seconds(1));
    let part = f.begin_part(upload.id, 1, &whole).await;
    f.clock.advance(TimeDelta::seconds(59));
    assert_eq!(sweep(&f.other).await.uploads_expired, 0);
    let part = part.end().await.expect("a part");
    let upload = f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn a_part_of_a_session_that_expired_is_refused(f: &Fixture) {
    let whole = bytes(5, 600_000);
    let upload = f.begin(&whole).await;
    let part = f.begin_part(upload.id, 1, &whole).await;
    f.clock.advance(TimeDelta::hours(25));
    assert_eq!(sweep(&f.other).await.uploads_expired, 1);
    assert_eq!(condition(part.end().await), Condition::WrongState);
    assert!(f.objects().await.is_empty(), "its bytes are gone");
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn a_part_of_a_session_that_was_aborted_is_refused(f: &Fixture) {
    let whole = bytes(6, PART + 5_000_000);
    let upload = f.begin(&whole).await;
    f.part(upload.id, 1, &whole[..PART]).await.expect("a part");
    let part = f.begin_part(upload.id, 2, &whole[PART..]).await;
    f.other.abort_upload(upload.id).await.expect("abort");
    assert_eq!(condition(part.end().await), Condition::WrongState);
    f.deleted().await;
    assert!(f.objects().await.is_empty(), "its bytes are gone");
    assert_eq!(f.count("select count(*) from part_attempts").await, 0);
}

async fn a_part_of_a_session_that_was_completed_is_refused(f: &Fixture) {
    let whole = bytes(7, 600_000);
    let upload = f.begin(&whole).await;
    let stored = f.part(upload.id, 1, &whole).await.expect("a part");
    let part = f.begin_part(upload.id, 1, &whole).await;
    let ready = f.other.complete_upload(upload.id, vec![listed(&stored)]).await.expect("complete");
    assert_eq!(ready.state, UploadState::Ready);
    assert_eq!(condition(part.end().await), Condition::WrongState);
    assert_eq!(f.objects().await.len(), 1, "what became the blob stays");
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == whole);
}

async fn an_attempt_in_progress_is_left_alone(f: &Fixture) {
    let whole = bytes(8, 3_000_000);
    let upload = f.begin(&whole).await;
    let part = f.begin_part(upload.id, 1, &whole).await;
    for engine in [&f.engine, &f.other] {
        assert_eq!(sweep(engine).await, Swept::default());
    }
    assert_eq!(f.texts("select state from part_attempts").await, ["writing"]);
    let part = part.end().await.expect("a part");
    let upload = f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == whole);
}

async fn attempts_of_a_node_that_died(f: &Fixture) {
    let whole = bytes(9, 10);
    let upload = f.begin(&whole).await;
    let part = f.part(upload.id, 1, &whole).await.expect("a part");
    let key = f.texts("select key from part_attempts").await.remove(0);
    let dead = key.replace(".00001.1", ".00002.9");
    let row = format!(
        "insert into part_attempts (key, upload_id, number, attempt, state, created_at) \
         select '{dead}', upload_id, 2, 9, 'writing', created_at from part_attempts"
    );
    assert_eq!(f.sql(&row).await.expect("an attempt"), 1);
    f.store.write(&dead, "half").await.expect("an object");
    assert_eq!(sweep(&f.engine).await, Swept::default(), "it may still be written");
    assert!(f.objects().await.contains(&dead));
    let upload = f.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
    assert_eq!(upload.state, UploadState::Ready);
    f.deleted().await;
    assert_eq!(f.objects().await.into_iter().collect::<Vec<_>>(), [key]);
}

/// Records further attempts at a part, which were lost and whose objects may be deleted now; their keys.
async fn lose(f: &Fixture, key: &str, attempts: std::ops::Range<u32>) -> Vec<String> {
    let mut keys = Vec::new();
    for attempt in attempts {
        let lost = key.replace(".00001.1", &format!(".00001.{attempt}"));
        let row = format!(
            "insert into part_attempts (key, upload_id, number, attempt, state, deletable_at, created_at) \
             select '{lost}', upload_id, 1, {attempt}, 'lost', created_at, created_at \
             from part_attempts where key = '{key}'"
        );
        assert_eq!(f.sql(&row).await.expect("an attempt"), 1);
        f.store.write(&lost, "lost").await.expect("an object");
        keys.push(lost);
    }
    keys
}

async fn lost_objects_are_deleted(f: &Fixture) {
    let whole = bytes(10, 10);
    let upload = f.begin(&whole).await;
    f.part(upload.id, 1, &whole).await.expect("a part");
    let key = f.texts("select key from part_attempts").await.remove(0);
    let lost = lose(f, &key, 2..10).await;
    f.store.delete(&lost[0]).await.expect("an object less");
    let swept = sweep(&f.engine).await;
    assert_eq!(swept.objects_deleted, 8, "one that is already gone counts: its row goes");
    assert_eq!(f.objects().await.into_iter().collect::<Vec<_>>(), [key.clone()]);
    assert_eq!(f.texts("select key from part_attempts").await, [key]);
    f.engine.abort_upload(upload.id).await.expect("abort");
}

async fn objects_that_cannot_be_deleted_hide_no_others(f: &Fixture) {
    let whole = bytes(22, 10);
    let upload = f.begin(&whole).await;
    f.part(upload.id, 1, &whole).await.expect("a part");
    let key = f.texts("select key from part_attempts").await.remove(0);
    // In the order of the keys all that stay come before all that go.
    lose(f, &key, 100_000..100_510).await;
    lose(f, &key, 200_000..200_010).await;
    f.gate.refuse(Some(".00001.100"));
    for deleted in [10, 0] {
        assert_eq!(sweep(&f.engine).await.objects_deleted, deleted);
        assert_eq!(f.objects().await.len(), 511);
    }
    f.gate.refuse(None);
    assert_eq!(sweep(&f.other).await.objects_deleted, 510);
    f.engine.abort_upload(upload.id).await.expect("abort");
}

async fn sixteen_objects_are_deleted_at_once(f: &Fixture) {
    let whole = bytes(23, 10);
    let upload = f.begin(&whole).await;
    f.part(upload.id, 1, &whole).await.expect("a part");
    let key = f.texts("select key from part_attempts").await.remove(0);
    lose(f, &key, 2..22).await;
    f.gate.shut();
    let sweeping = tokio::spawn({
        let engine = f.engine.clone();
        async move { engine.sweep().await }
    });
    f.wait_until(async || f.gate.waiting() == 16).await;
    assert_eq!(f.objects().await.len(), 21);
    assert_eq!(f.gate.waiting(), 16, "no more than that");
    f.gate.open();
    assert_eq!(sweeping.await.expect("no panic").expect("a sweep").objects_deleted, 20);
    f.engine.abort_upload(upload.id).await.expect("abort");
}

async fn an_object_without_a_row_of_a_session_at_its_end(f: &Fixture) {
    let whole = bytes(11, 10);
    let digest = f.upload(&whole).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    let ready = key.replace(".00001.1", ".00001.7");
    let name = key.rsplit('/').next().expect("a name");
    let unknown = key.replace(name, "018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11.00001.1");
    for key in [&ready, &unknown] {
        f.store.write(key, "back from the dead").await.expect("an object");
    }
    assert_eq!(sweep(&f.engine).await.objects_deleted, 2);
    assert_eq!(f.objects().await.into_iter().collect::<Vec<_>>(), [key]);
    assert_eq!(f.read(&digest).await.expect("a blob"), whole);
}

async fn an_object_without_a_row_of_an_open_session(f: &Fixture) {
    let whole = bytes(12, 10);
    let upload = f.begin(&whole).await;
    f.part(upload.id, 1, &whole).await.expect("a part");
    let key = f.texts("select key from part_attempts").await.remove(0);
    let strange = key.replace(".00001.1", ".00001.7");
    f.store.write(&strange, "whose is it?").await.expect("an object");
    assert_eq!(sweep(&f.engine).await.objects_deleted, 0);
    f.engine.abort_upload(upload.id).await.expect("abort");
    f.deleted().await;
    assert_eq!(f.objects().await.into_iter().collect::<Vec<_>>(), [strange]);
    assert_eq!(sweep(&f.other).await.objects_deleted, 1);
}

async fn objects_that_are_not_ours(f: &Fixture) {
    let whole = bytes(13, 10);
    let digest = f.upload(&whole).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    let folder = key.rsplit_once('/').expect("a folder").0;
    let strange = [format!("{folder}/README"), "blobs/sha256/ff/x".to_owned(), "elsewhere/x".to_owned()];
    for key in &strange {
        f.store.write(key, "mine").await.expect("an object");
    }
    assert_eq!(sweep(&f.engine).await, Swept::default());
    for key in &strange {
        f.store.read(key).await.expect("it is still there");
        f.store.delete(key).await.expect("an object less");
    }
}

async fn blobs_are_kept(f: &Fixture) {
    let (loose, cited) = (bytes(14, 10), bytes(15, 10));
    let digest = f.upload(&loose).await;
    let draft = f.draft().await;
    f.artifact(&draft, "raw", &cited).await;
    f.engine.delete_draft(&draft.0, &draft.1).await.expect("one less");
    for _ in 0..3 {
        f.clock.advance(TimeDelta::days(400));
        sweep(&f.engine).await;
    }
    assert_eq!(f.blob_state(&digest).await, BlobState::Live);
    assert_eq!(f.read(&digest).await.expect("a blob"), loose);
    assert_eq!(f.objects().await.len(), 2);
    f.engine.run_until_idle().await.expect("the daily listing");
    assert_eq!(f.blob_state(&digest).await, BlobState::Condemned, "that is the daily job's to do");
}

/// A key of a probe that began then.
fn probe(at: chrono::DateTime<chrono::Utc>) -> String {
    let at = uuid::Timestamp::from_unix(uuid::NoContext, at.timestamp().try_into().expect("after 1970"), 0);
    format!("probe/{}", uuid::Uuid::new_v7(at))
}

async fn probes_of_starts_that_were_cut_short(f: &Fixture) {
    let now = f.clock.now();
    let old = probe(now - TimeDelta::hours(24) - TimeDelta::seconds(1));
    let young = probe(now - TimeDelta::hours(24) + TimeDelta::seconds(1));
    let strange = ["probe/README".to_owned(), format!("probe/{}", f.clock.new_secret_id())];
    for key in [&old, &young].into_iter().chain(&strange) {
        f.store.write(key, "imgsrv").await.expect("an object");
    }
    let left = async || {
        let listed = f.store.list("probe/").await.expect("a list");
        listed.iter().map(|entry| entry.path().to_owned()).filter(|path| !path.ends_with('/')).collect::<BTreeSet<_>>()
    };
    assert_eq!(sweep(&f.engine).await.objects_deleted, 1);
    assert!(!left().await.contains(&old));
    f.clock.advance(TimeDelta::hours(24));
    f.engine.run_until_idle().await.expect("the daily listing");
    assert_eq!(left().await, strange.into(), "what is not ours stays");
}

async fn much_is_forgotten_a_batch_at_a_time(f: &Fixture) {
    let whole = bytes(24, 10);
    let upload = f.begin(&whole).await;
    f.part(upload.id, 1, &whole).await.expect("a part");
    f.engine.abort_upload(upload.id).await.expect("abort");
    let id = if f.pair.is_postgres() { "gen_random_uuid()" } else { "randomblob(16)" };
    let numbers = "with recursive n (i) as (select 2 union all select i + 1 from n where i < 1201)";
    let copies = [
        format!(
            "insert into uploads {numbers} select {id}, expected_digest, expected_size, media_type_hint, filename_hint, \
             state, received, attempts, failure_reason, expires_at, created_at, updated_at from uploads, n"
        ),
        format!(
            "insert into parts {numbers} select upload_id, i, attempt, key, size, etag, sha256, chain, chain_after, \
             stored_at from parts, n"
        ),
        format!(
            "insert into jobs {numbers} select {id}, 'ingest', subject, available_at, null, 1, 0, null, null, \
             'succeeded', created_at, updated_at, created_at, created_at from jobs, n where kind = 'list-objects'"
        ),
    ];
    for copy in &copies {
        assert_eq!(f.sql(copy).await.expect("copies"), 1200);
    }
    if f.pair.is_postgres() {
        f.sql(
            "create function refuse_many() returns trigger language plpgsql as $$ begin \
             if (select count(*) from gone) > 500 then raise exception 'too many rows at once'; end if; \
             return null; end $$",
        )
        .await
        .expect("a function");
        for table in ["uploads", "parts", "jobs"] {
            let trigger = format!(
                "create trigger refuse_many after delete on {table} referencing old table as gone \
                 for each statement execute function refuse_many()"
            );
            f.sql(&trigger).await.expect("a trigger");
        }
    }
    f.clock.advance(TimeDelta::days(30) + TimeDelta::microseconds(1));
    sweep(&f.engine).await;
    for table in ["uploads", "parts", "jobs where finished_at is not null"] {
        assert_eq!(f.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn finished_work_is_forgotten_after_a_month(f: &Fixture) {
    let whole = bytes(16, PART + 1);
    let upload = f.begin(&whole).await;
    let second = f.part(upload.id, 2, &whole[PART..]).await.expect("a part");
    let first = f.part(upload.id, 1, &whole[..PART]).await.expect("a part");
    let list = vec![listed(&first), listed(&second)];
    assert_eq!(f.engine.complete_upload(upload.id, list).await.expect("complete").state, UploadState::Completed);
    f.engine.run_until_idle().await.expect("jobs");
    let aborted = f.begin(&bytes(17, 10)).await;
    f.engine.abort_upload(aborted.id).await.expect("abort");
    let draft = f.draft().await;
    f.artifact(&draft, "raw", &whole).await;
    let job = f.publish(&draft).await.job.id;
    f.clock.advance(TimeDelta::days(30));
    f.engine.run_until_idle().await.expect("the daily listing");
    sweep(&f.engine).await;
    assert_eq!(state(f, upload.id).await, UploadState::Ready, "not yet");
    let jobs = async |kind: &str| f.count(&format!("select count(*) from jobs where kind = '{kind}'")).await;
    assert_eq!(jobs("ingest").await, 1);
    let open = f.begin(&bytes(18, 10)).await;
    f.clock.advance(TimeDelta::microseconds(1));
    sweep(&f.other).await;
    for forgotten in [upload.id, aborted.id] {
        assert!(matches!(f.engine.get_upload(forgotten).await, Err(Error::NotFound(_))));
    }
    assert_eq!(state(f, open.id).await, UploadState::Created);
    assert_eq!((jobs("ingest").await, jobs("publish").await), (0, 1));
    assert_eq!(f.engine.get_job(job).await.expect("the job").job.state(), JobState::Succeeded);
    assert_eq!(f.count("select count(*) from parts").await, 0);
    assert!(f.read(&upload.expected_digest).await.expect("a blob") == whole, "its session is gone, the blob is not");
    f.engine.abort_upload(open.id).await.expect("abort");
    f.clock.advance(TimeDelta::days(31));
    f.engine.run_until_idle().await.expect("the daily listing");
    sweep(&f.engine).await;
    assert_eq!(f.objects().await.len(), 2);
}

async fn two_nodes_sweep_at_once(f: &Fixture) {
    let mut sessions = Vec::new();
    for seed in 0..40 {
        let whole = bytes(100 + seed, 10);
        let upload = f.begin(&whole).await;
        f.part(upload.id, 1, &whole).await.expect("a part");
        sessions.push(upload.id);
    }
    let kept = bytes(19, 10);
    let digest = f.upload(&kept).await;
    let rowless: Vec<_> = f.objects().await.iter().map(|key| key.replace(".00001.1", ".00003.5")).collect();
    for key in &rowless {
        f.store.write(key, "no row").await.expect("an object");
    }
    f.clock.advance(TimeDelta::hours(25));
    let (one, two) = tokio::join!(f.engine.sweep(), f.other.sweep());
    let (one, two) = (one.expect("a sweep"), two.expect("another"));
    assert_eq!(one.uploads_expired + two.uploads_expired, 40, "each session is given up once");
    for id in sessions {
        assert_eq!(state(f, id).await, UploadState::Aborted);
        let expired = f.events(Subject::Upload, id).await.into_iter().filter(|event| event.contains("expired"));
        assert_eq!(expired.count(), 1);
    }
    sweep(&f.engine).await;
    assert_eq!(f.objects().await.len(), 1);
    assert_eq!(f.read(&digest).await.expect("a blob"), kept);
    f.engine.run_until_idle().await.expect("the daily listing");
}

async fn the_daily_listing_runs_once(f: &Fixture) {
    let digest = f.upload(&bytes(20, 10)).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    let strange = key.replace(".00001.1", ".00001.7");
    for day in 1..=3 {
        f.store.write(&strange, "no row").await.expect("an object");
        let (one, two) = tokio::join!(f.engine.run_until_idle(), f.other.run_until_idle());
        assert_eq!(one.expect("jobs").jobs + two.expect("jobs").jobs, 0, "not yet");
        f.clock.advance(TimeDelta::hours(24));
        let (one, two) = tokio::join!(f.engine.run_until_idle(), f.other.run_until_idle());
        assert_eq!(one.expect("jobs").jobs + two.expect("jobs").jobs, 1, "day {day}");
        assert!(!f.objects().await.contains(&strange));
    }
    let open = f.count("select count(*) from jobs where kind = 'list-objects' and finished_at is null").await;
    assert_eq!(open, 1);
}

async fn the_listing_outlives_a_crash_loop(f: &Fixture) {
    let digest = f.upload(&bytes(21, 10)).await;
    let key = f.engine.blob_objects(&digest).await.expect("objects").remove(0).key;
    let strange = key.replace(".00001.1", ".00001.7");
    f.store.write(&strange, "no row").await.expect("an object");
    f.sql("update jobs set crashes = 5 where kind = 'list-objects'").await.expect("a job");
    for _ in 0..4 {
        f.clock.advance(TimeDelta::hours(24));
        f.engine.run_until_idle().await.expect("jobs");
    }
    assert!(!f.objects().await.contains(&strange), "some day it is tried again");
}
