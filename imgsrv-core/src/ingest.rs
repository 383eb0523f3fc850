//! The worker's half of an upload: reading what no hash chain covers.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::db::entity::part;
use crate::db::jobs::Claimed;
use crate::db::{from_column, jobs, parts, uploads};
use crate::engine::Change;
use crate::hashing::Hashes;
use crate::model::{Digest, JobOutcome, Subject, UploadEvent, UploadId, UploadState};
use crate::runner::{Failure, Performed};
use crate::stream::{By, Next, Piece, Reading};
use crate::uploads::verified_prefix;
use crate::{Engine, Error, Result};

/// How many chunks may not be hashed yet: one that is being, and one that waits so that no core does. With those that are
/// read and waited for a worker holds 16 MiB of a folder, and 35 MiB of a remote store.
const FED: usize = 2;

impl Engine {
    /// Hashes the parts behind the valid prefix and concludes the upload.
    pub(crate) async fn perform_ingest(&self, job: &Claimed) -> Result<Performed, Failure> {
        let id = upload_of(job)?;
        if !self.begin_ingest(job, id).await? {
            return Ok(Performed::LeaseLost);
        }
        let parts = parts::list(self.db().reader(), id).await?;
        let found = self.hash_parts(&parts).await?;
        let claimed = job.clone();
        let performed = self
            .detached(|engine| async move {
                let now = engine.clock().now();
                engine
                    .db()
                    .tx("conclude_upload", async |tx| {
                        if !jobs::finish(tx, &claimed, JobOutcome::Succeeded, None, now).await? {
                            return Ok(Performed::LeaseLost);
                        }
                        let upload = uploads::get(tx, id).await?;
                        if upload.state == UploadState::Ingesting {
                            engine.conclude(tx, &upload, &found).await?;
                        }
                        Ok(Performed::Finished)
                    })
                    .await
            })
            .await?;
        self.delete_lost_of(id).await;
        Ok(performed)
    }

    async fn begin_ingest(&self, job: &Claimed, id: UploadId) -> Result<bool> {
        let job = job.clone();
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("begin_ingest", async |tx| {
                    if !jobs::hold(tx, &job, now).await? {
                        return Ok(false);
                    }
                    let before = uploads::transition(tx, id, UploadEvent::IngestStarted, now).await?;
                    // A worker that takes over finds it begun.
                    if let Some(before) = before.filter(|before| before.state != UploadState::Ingesting) {
                        let change = Change::new(Subject::Upload, id, "ingest started");
                        engine.record(tx, change.from(before.state).to(UploadState::Ingesting)).await?;
                    }
                    Ok(true)
                })
                .await
        })
        .await
    }

    async fn hash_parts(&self, parts: &[part::Model]) -> Result<Digest, Failure> {
        let (verified, chain) = verified_prefix(parts)?;
        let pieces = parts[verified..]
            .iter()
            .map(|part| {
                let size = from_column("parts", part.size)?;
                Ok(Piece { key: part.key.clone(), start: 0, end: size, of: size })
            })
            .collect::<Result<_>>()?;
        let hashed = self.hash_pieces(chain.unwrap_or_default(), pieces, None).await?;
        hashed.map(|chain| chain.digest()).map_err(|piece| {
            tracing::error!(key = piece.key, "an object of an upload is missing or short");
            Failure::Reject("bytes of the upload were lost in the store: send them again".to_owned())
        })
    }

    /// Feeds these pieces to `hashes`, or gives the piece that is broken. Reads at most `rate` bytes a second.
    pub(crate) async fn hash_pieces<H: Hashes>(
        &self,
        hashes: H,
        pieces: VecDeque<Piece>,
        rate: Option<NonZeroU64>,
    ) -> Result<std::result::Result<H, Piece>> {
        let (begun, mut read) = (Instant::now(), 0);
        let mut reading = Reading::new(self, pieces, By::Worker);
        let hashing = self.hashing().begin(hashes, FED);
        loop {
            match reading.next().await? {
                Next::Bytes(buffer, grant) => {
                    read += buffer.len() as u64;
                    // The next chunk may have to wait for memory. Hashing does not, so what that holds comes free.
                    hashing.feed(buffer, Some(grant)).await?;
                    if let Some(rate) = rate {
                        sleep_until(begun + time_for(read, rate)).await;
                    }
                }
                Next::Broken(_, piece) => return Ok(Err(piece)),
                Next::End => return Ok(Ok(hashing.end().await?)),
            }
        }
    }

    pub(crate) async fn fail_ingest(&self, job: &Claimed, reason: &str) -> Result<()> {
        let id = upload_of(job)?;
        let (job, reason) = (job.clone(), reason.to_owned());
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("fail_ingest", async |tx| {
                    if jobs::finish(tx, &job, JobOutcome::Failed, Some(&reason), now).await? {
                        engine.fail_upload(tx, id, &reason).await?;
                    }
                    Ok(())
                })
                .await
        })
        .await?;
        self.delete_lost_of(id).await;
        Ok(())
    }
}

/// How long so many bytes take at so many a second.
fn time_for(bytes: u64, rate: NonZeroU64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

fn upload_of(job: &Claimed) -> Result<UploadId> {
    let id = job.subject.parse::<uuid::Uuid>().map_err(|err| Error::internal("the subject of an ingest job", err))?;
    Ok(id.into())
}
