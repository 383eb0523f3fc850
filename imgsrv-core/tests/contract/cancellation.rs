//! Callers that stop waiting, as a handler does when its client goes away.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use imgsrv_core::model::{
    AliasName, Digest, JobId, NewImage, Page, PartRef, Scope, UploadFilter, UploadId, UploadState, VersionState,
};
use imgsrv_core::{Engine, PartClaim};
use tokio::sync::Mutex;

use crate::fixture::{Fixture, artifact, attachment, body, bytes, image, listed, number, promise, version};

crate::behaviours!(a_thousand_callers_go_away, what_was_begun_runs_to_its_end);

/// How many calls are made.
const CALLS: usize = 1_000;

/// How many are under way at once.
const AT_ONCE: usize = 12;

/// What is uploaded.
static CONTENTS: LazyLock<Vec<(Digest, Vec<u8>)>> = LazyLock::new(|| {
    let contents = [10, 70_000, 200_000, 300_000, 600_000].into_iter().enumerate();
    contents.map(|(seed, size)| bytes(seed as u64, size)).map(|bytes| (Digest::of(&bytes), bytes)).collect()
});

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What calls may name: answers of earlier calls.
#[derive(Default)]
struct Known {
    uploads: Vec<(UploadId, Vec<PartRef>)>,
    jobs: Vec<JobId>,
}

/// Some call with some arguments.
async fn some_call(engine: Engine, known: Arc<Mutex<Known>>, mut random: fastrand::Rng) -> Call {
    let (digest, content) = &CONTENTS[random.usize(..CONTENTS.len())];
    let (name, number_of) =
        (image(["debian", "ubuntu"][random.usize(..2)]), version(["1", "2", "3"][random.usize(..3)]));
    let alias: AliasName = "latest".parse().expect("an alias");
    let (upload, job) = {
        let known = known.lock().await;
        let upload = (!known.uploads.is_empty()).then(|| known.uploads[random.usize(..known.uploads.len())].clone());
        let job = (!known.jobs.is_empty()).then(|| known.jobs[random.usize(..known.jobs.len())]);
        (upload, job)
    };
    let (upload, list) = upload.unwrap_or_else(|| (engine.clock().new_secret_id().into(), Vec::new()));
    let job = job.unwrap_or_else(|| engine.clock().new_id().into());
    match random.u8(..26) {
        0..3 => async move {
            if let Ok(upload) = engine.begin_upload(promise(content)).await {
                known.lock().await.uploads.push((upload.id, Vec::new()));
            }
        }
        .boxed(),
        3..8 => async move {
            let Ok(expected) = engine.get_upload(upload).await else { return };
            let (_, bytes) = CONTENTS.iter().find(|known| known.0 == expected.expected_digest).expect("one of ours");
            let body = body(bytes);
            if let Ok(part) = engine.put_part(upload, number(1), PartClaim::default(), body).await {
                let mut known = known.lock().await;
                let session = known.uploads.iter_mut().find(|(id, _)| *id == upload).expect("it is known");
                session.1 = vec![listed(&part)];
            }
        }
        .boxed(),
        8..10 => engine.clone().put_part_of_nobody(upload).boxed(),
        10..12 => async move { drop(engine.complete_upload(upload, list).await) }.boxed(),
        12 => async move { drop(engine.abort_upload(upload).await) }.boxed(),
        13 => async move {
            drop(engine.list_parts(upload).await);
            drop(engine.list_uploads(UploadFilter::default()).await);
        }
        .boxed(),
        14 => async move {
            drop(engine.create_image(NewImage { name, display_name: None, description: None }).await);
        }
        .boxed(),
        15 => async move { drop(engine.create_version(&name, &number_of).await) }.boxed(),
        16 => async move {
            let format = ["raw", "iso"][usize::from(content.len() > 10)];
            if let Ok(made) = engine.add_artifact(&name, &number_of, artifact(format, content)).await {
                drop(engine.add_attachment(&name, &number_of, made.id, attachment("a", content)).await);
            }
        }
        .boxed(),
        17 => async move {
            if let Ok(queued) = engine.publish_version(&name, &number_of).await {
                known.lock().await.jobs.push(queued.job.id);
            }
        }
        .boxed(),
        18 => async move {
            drop(engine.get_job(job).await);
            drop(engine.retry_job(job).await);
        }
        .boxed(),
        19 => async move { drop(engine.abandon_job(job).await) }.boxed(),
        20 => async move {
            drop(engine.put_alias(&name, &alias, &number_of).await);
            drop(engine.resolve(&name, &"latest".parse().expect("a reference")).await);
            drop(engine.delete_alias(&name, &alias).await);
        }
        .boxed(),
        21 => async move {
            drop(engine.get_manifest(&name, &number_of, Scope::All).await);
            drop(engine.list_versions(&name, VersionState::Draft, Scope::All, Page::default()).await);
            drop(engine.list_images(Scope::All, Page::default()).await);
        }
        .boxed(),
        22 => async move {
            if let Ok(stream) = engine.read_blob(digest, None).await {
                drop(stream.body.try_for_each(|_| std::future::ready(Ok(()))).await);
            }
        }
        .boxed(),
        23 => async move { drop(engine.run_until_idle().await) }.boxed(),
        24 => async move { drop(engine.sweep().await) }.boxed(),
        _ => async move {
            drop(engine.check_store().await);
            drop(engine.check_database().await);
            drop(engine.delete_draft(&name, &number_of).await);
        }
        .boxed(),
    }
}

trait PutPart {
    async fn put_part_of_nobody(self, upload: UploadId);
}

impl PutPart for Engine {
    /// A part whose body never ends.
    async fn put_part_of_nobody(self, upload: UploadId) {
        let body = stream::iter([Ok(bytes::Bytes::from_static(b"x"))]).chain(stream::pending());
        drop(self.put_part(upload, number(2), PartClaim::default(), body).await);
    }
}

/// Polls a call some times, now and then after a pause, and drops it.
async fn give_up(mut call: Call, mut random: fastrand::Rng) {
    for _ in 0..random.u32(..30) {
        if futures_util::poll!(call.as_mut()).is_ready() {
            return;
        }
        match random.u8(..4) {
            0 => tokio::time::sleep(Duration::from_micros(random.u64(..2_000))).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Waits until nothing happens in the database any more.
async fn quiet(f: &Fixture) {
    let mut calm = 0;
    let mut before = 0;
    f.wait_until(async || {
        let writing = f.count("select count(*) from part_attempts where state = 'writing'").await;
        let busy = match f.pair.is_postgres() {
            true => {
                let others =
                    "datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
                f.count(&format!("select count(*) from pg_stat_activity where {others} and state <> 'idle'")).await
            }
            false => 0,
        };
        let events = f.count("select count(*) from events").await;
        calm = if writing == 0 && busy == 0 && events == before { calm + 1 } else { 0 };
        before = events;
        calm == 50
    })
    .await;
}

async fn a_thousand_callers_go_away(f: &Fixture) {
    let mut seeds = fastrand::Rng::with_seed(7);
    let known = Arc::new(Mutex::new(Known::default()));
    let calls = stream::iter(0..CALLS).map(|_| {
        let engine = if seeds.bool() { f.engine.clone() } else { f.other.clone() };
        let (random, patience, known) = (seeds.fork(), seeds.fork(), Arc::clone(&known));
        async move { give_up(some_call(engine, known, random).await, patience).await }
    });
    calls.buffer_unordered(AT_ONCE).collect::<()>().await;
    tokio::time::timeout(Duration::from_secs(30), quiet(f)).await.expect("all that was begun comes to its end");
    if f.pair.is_postgres() {
        let open = "select count(*) from pg_stat_activity where datname = current_database() \
                    and state like 'idle in transaction%'";
        assert_eq!(f.count(open).await, 0);
    }

    // Everything still works, on every connection.
    let probes = (0..40).map(|seed| {
        let engine = if seed % 2 == 0 { &f.engine } else { &f.other };
        async move {
            let upload = engine.begin_upload(promise(&bytes(1000 + seed, 10))).await.expect("a session");
            engine.abort_upload(upload.id).await.expect("abort");
            engine.get_manifest(&image("none"), &version("1"), Scope::All).await.expect_err("no such image");
        }
    });
    futures_util::future::join_all(probes).await;
    f.published_as("works", "1", b"still").await;
    f.engine.check_store().await.expect("the store answers");

    let probes = f.store.list("probe/").await.expect("a list");
    let probes: Vec<_> = probes.iter().map(|entry| entry.path()).filter(|path| !path.ends_with('/')).collect();
    assert_eq!(probes, [""; 0], "probes were left behind");
    let uploads = f.engine.list_uploads(UploadFilter::default()).await.expect("uploads").items;
    let made = uploads.len();
    assert!(made > 40, "only {made} sessions were begun");
    for upload in uploads {
        if matches!(upload.state, UploadState::Created | UploadState::Uploading) {
            f.engine.abort_upload(upload.id).await.expect("abort");
        }
    }
    // What dropped workers held is due again when their leases end.
    for _ in 0..8 {
        f.clock.advance(TimeDelta::minutes(1));
        f.engine.run_until_idle().await.expect("jobs");
    }
    assert_eq!(f.count("select count(*) from jobs where finished_at is null and kind <> 'list-objects'").await, 0);
    f.tidy().await;
}

async fn what_was_begun_runs_to_its_end(f: &Fixture) {
    let new = NewImage { name: image("debian"), display_name: None, description: None };
    let mut create = Box::pin(f.engine.create_image(new));
    let _ = futures_util::poll!(create.as_mut());
    drop(create);
    f.wait_until(async || f.engine.get_image(&image("debian"), Scope::All).await.is_ok()).await;
    let mut begin = Box::pin(f.engine.begin_upload(promise(b"bytes")));
    let _ = futures_util::poll!(begin.as_mut());
    drop(begin);
    let list = async || f.engine.list_uploads(UploadFilter::default()).await.expect("uploads").items;
    f.wait_until(async || list().await.len() == 1).await;
    let upload = list().await.remove(0);
    let part = f.part(upload.id, 1, b"bytes").await.expect("a part");
    let complete = f.engine.complete_upload(upload.id, vec![listed(&part)]);
    let ready = async || f.engine.get_upload(upload.id).await.expect("a session").state == UploadState::Ready;
    tokio::select! {
        _ = complete => {}
        () = f.wait_until(ready) => {}
    }
    assert_eq!(f.read(&upload.expected_digest).await.expect("a blob"), b"bytes");
}
