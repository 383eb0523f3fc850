//! Tidying: sessions past their time, objects that nothing names, rows that nobody needs.
//!
//! Safe to run on every node at once. Blobs are collected by plans (`collect.rs`).

use chrono::TimeDelta;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tracing::Instrument;

use crate::db::jobs::Claimed;
use crate::db::{Tx, blobs, jobs, parts, sweeps, uploads};
use crate::engine::Change;
use crate::model::{Digest, JobKind, JobOutcome, Subject, UploadId, UploadState};
use crate::runner::{Failure, Performed};
use crate::store::{PROBES, part_prefixes, probe_time, upload_of};
use crate::{Engine, Error, Result};

/// How long finished work is remembered.
const MEMORY: TimeDelta = TimeDelta::days(30);

/// How many rows are taken at once.
const BATCH: u64 = 500;

/// The kinds of jobs that are forgotten; what published a version stays.
const FORGOTTEN: &[JobKind] = &[JobKind::Ingest, JobKind::CheckBlob, JobKind::ListObjects];

/// How often the store is listed.
const LISTING: TimeDelta = TimeDelta::hours(24);

/// A probe takes seconds; one that is older is left of a start that was cut short.
const PROBE_MAX: TimeDelta = TimeDelta::hours(24);

/// What the subject of the one listing job is called.
const STORE: &str = "store";

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sessions given up because they were past their time.
    pub uploads_expired: u64,
    /// Objects deleted.
    pub objects_deleted: u64,
    /// Damaged blobs that were found whole again.
    pub blobs_repaired: u64,
}

impl Engine {
    /// Gives up sessions past their time, deletes what they and others lost, and then lists the whole store for objects
    /// that no row knows. A running engine does the former every minute and the latter once a day.
    ///
    /// # Errors
    /// What the database or the store says; a later sweep goes on.
    pub async fn sweep(&self) -> Result<Swept> {
        let mut swept = self.sweep_rows().await?;
        swept.objects_deleted += self.delete_rowless().await?;
        Ok(swept)
    }

    /// The part of the sweep that works from rows.
    pub(crate) async fn sweep_rows(&self) -> Result<Swept> {
        let mut swept = Swept { uploads_expired: self.expire_uploads().await?, ..Swept::default() };
        swept.objects_deleted = self.delete_lost(None).await?;
        for digest in blobs::damaged(self.db().reader(), BATCH).await? {
            match self.check_blob(&digest).await {
                Ok(whole) => swept.blobs_repaired += u64::from(whole),
                Err(err) => tracing::warn!(error = err.chain(), %digest, "a damaged blob could not be checked"),
            }
        }
        self.prune().await?;
        Ok(swept)
    }

    async fn expire_uploads(&self) -> Result<u64> {
        let mut expired = 0;
        loop {
            let now = self.clock().now();
            let ids = uploads::expired(self.db().reader(), now, BATCH).await?;
            if ids.is_empty() {
                return Ok(expired);
            }
            for id in ids {
                expired += self
                    .detached(|engine| async move {
                        engine
                            .db()
                            .tx("expire_upload", async |tx| {
                                let Some(before) = uploads::expire(tx, id, now).await? else { return Ok(0) };
                                parts::all_attempts_lost(tx, id, now).await?;
                                let change = Change::new(Subject::Upload, id, "expired");
                                engine.record(tx, change.from(before.state).to(UploadState::Aborted)).await?;
                                Ok(1)
                            })
                            .await
                    })
                    .await?;
            }
        }
    }

    /// Deletes what a session has lost, while its client has its answer: there may be ten thousand objects.
    pub(crate) fn delete_lost_soon(&self, upload: UploadId) {
        let engine = self.clone();
        tokio::spawn(async move { engine.delete_lost_of(upload).await }.in_current_span());
    }

    /// Deletes the objects that a session has lost. What fails is left to the sweep.
    pub(crate) async fn delete_lost_of(&self, upload: UploadId) {
        if let Err(err) = self.delete_lost(Some(upload)).await {
            tracing::warn!(error = err.chain(), %upload, "lost objects are left to the sweep");
        }
    }

    /// Deletes the objects that one session has lost, or all have; how many. Those that cannot be deleted now are not in
    /// the way of the others.
    async fn delete_lost(&self, upload: Option<UploadId>) -> Result<u64> {
        let now = self.clock().now();
        let (mut deleted, mut behind) = (0, None);
        loop {
            let lost = parts::deletable(self.db().reader(), upload, now, behind, BATCH).await?;
            if lost.is_empty() {
                return Ok(deleted);
            }
            behind = lost.last().cloned();
            let count = self.delete_objects(lost.into_iter().map(|(_, key)| key).collect()).await;
            if count == 0 {
                // A store that is away ends it here, not after as many tries as there are objects.
                self.check_store().await?;
            }
            deleted += count;
        }
    }

    /// Deletes objects that are recorded as lost, then their rows; how many. What fails is left to the sweep.
    pub(crate) async fn delete_objects(&self, keys: Vec<String>) -> u64 {
        let deleted = self.store().delete_all(keys).await;
        let count = deleted.len() as u64;
        let engine = self.clone();
        let forgotten = crate::detached(async move {
            engine.db().tx("forget_attempts", async |tx| parts::forget_attempts(tx, &deleted).await).await
        });
        match forgotten.await {
            Ok(()) => count,
            Err(err) => {
                tracing::warn!(error = err.chain(), "the rows of deleted objects are left to the sweep");
                0
            }
        }
    }

    /// Forgets what ended long ago, some rows at a time, so that nobody waits long for their locks.
    async fn prune(&self) -> Result<()> {
        let before = self.clock().now() - MEMORY;
        loop {
            let batch = self.detached(|engine| async move {
                let prune = async |tx: &Tx| {
                    let mut most = parts::prune(tx, before, BATCH).await?;
                    if most < BATCH {
                        // Only now, because parts go along with their session, however many there are.
                        most = most.max(uploads::prune(tx, before, BATCH).await?);
                    }
                    sweeps::prune(tx, before).await?;
                    for kind in FORGOTTEN {
                        most = most.max(jobs::prune(tx, *kind, before, BATCH).await?);
                    }
                    Ok(most)
                };
                engine.db().tx("prune", prune).await
            });
            if batch.await? < BATCH {
                return Ok(());
            }
        }
    }

    /// Lists the store, prefix by prefix, and deletes objects that no row knows and no open session may still name, and
    /// what starts that were cut short have left.
    async fn delete_rowless(&self) -> Result<u64> {
        self.check_store().await?;
        let mut deleted = 0;
        for prefix in part_prefixes() {
            let mut listed = self.list_batches(&prefix).await?;
            while let Some(keys) = listed.try_next().await? {
                deleted += self.delete_unknown(keys).await?;
            }
        }
        let long_ago = self.clock().now() - PROBE_MAX;
        let mut listed = self.list_batches(PROBES).await?;
        while let Some(mut keys) = listed.try_next().await? {
            keys.retain(|key| probe_time(key).is_some_and(|at| at < long_ago));
            deleted += self.store().delete_all(keys).await.len() as u64;
        }
        Ok(deleted)
    }

    async fn list_batches(&self, prefix: &str) -> Result<BoxStream<'static, Result<Vec<String>>>> {
        let size = usize::try_from(BATCH).unwrap_or(1);
        Ok(self.store().list(prefix).await?.try_chunks(size).map_err(|err| err.1).boxed())
    }

    async fn delete_unknown(&self, keys: Vec<String>) -> Result<u64> {
        let known = parts::known_keys(self.db().reader(), &keys).await?;
        let mut unknown = Vec::new();
        for key in keys.into_iter().filter(|key| !known.contains(key)) {
            let Some(upload) = upload_of(&key) else {
                tracing::warn!(key, "an object that is not ours lies among the blobs");
                continue;
            };
            // A row may have been written since the listing, but never for a session that is at its end.
            match uploads::state(self.db().reader(), upload).await? {
                Some(state) if !state.is_terminal() => {}
                _ => {
                    tracing::info!(key, "deleting an object that no row knows");
                    unknown.push(key);
                }
            }
        }
        Ok(self.store().delete_all(unknown).await.len() as u64)
    }

    /// The listing as a job, and the collection of blobs: one node a day does it.
    pub(crate) async fn perform_listing(&self, job: &Claimed) -> Result<Performed, Failure> {
        self.delete_rowless().await?;
        self.collect_what_is_due().await?;
        let job = job.clone();
        let performed = self
            .detached(|engine| async move {
                let now = engine.clock().now();
                let next = engine.clock().new_id().into();
                engine
                    .db()
                    .tx("listed", async |tx| {
                        if !jobs::finish(tx, &job, JobOutcome::Succeeded, None, now).await? {
                            return Ok(Performed::LeaseLost);
                        }
                        jobs::enqueue(tx, next, JobKind::ListObjects, STORE, now, now + LISTING).await?;
                        Ok(Performed::Finished)
                    })
                    .await
            })
            .await?;
        Ok(performed)
    }

    /// Makes sure that a listing is due some day.
    pub(crate) async fn schedule_listing(&self) -> Result<()> {
        self.detached(|engine| async move {
            let now = engine.clock().now();
            let id = engine.clock().new_id().into();
            engine
                .db()
                .tx("schedule_listing", async |tx| {
                    jobs::enqueue(tx, id, JobKind::ListObjects, STORE, now, now + LISTING).await
                })
                .await?;
            Ok(())
        })
        .await
    }

    /// Asks for every object of a blob, because a client relied on it.
    pub(crate) async fn perform_check(&self, job: &Claimed) -> Result<Performed, Failure> {
        let digest: Digest = job.subject.parse().map_err(Error::from)?;
        self.check_blob(&digest).await?;
        let job = job.clone();
        let held = self
            .detached(|engine| async move {
                let now = engine.clock().now();
                let finish = async |tx: &Tx| jobs::finish(tx, &job, JobOutcome::Succeeded, None, now).await;
                engine.db().tx("checked", finish).await
            })
            .await?;
        Ok(if held { Performed::Finished } else { Performed::LeaseLost })
    }
}
