//! Blobs: verified bytes, read by ranges.

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::task::{JoinError, JoinSet};

use crate::db::entity::blob_segment;
use crate::db::{Db, Tx, blobs, from_column, parts};
use crate::engine::Change;
use crate::model::{Blob, BlobState, Digest, Scope, Subject};
use crate::segments::{Segments, pieces};
use crate::stream::{BlobStream, By, Flaw, Next, Reading};
use crate::{Engine, Error, Resource, Result};

/// How many objects are asked for at once.
const STATS_AT_ONCE: usize = 32;

/// How long nobody needs to know that a blob was checked once more.
const NOTED_FOR: TimeDelta = TimeDelta::hours(1);

/// What is unavailable when the store answers but lacks bytes of a blob.
pub(crate) const LOST: &str = "blob";

/// What is unavailable when the store has other bytes than those of the blob.
pub(crate) const OTHER: &str = "blob with damaged bytes";

/// What is unavailable until it is known whether the store has other bytes, or gave other ones once.
const DOUBTFUL: &str = "blob with doubtful bytes";

/// An object that holds a piece of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobObject {
    /// Its path in the store.
    pub key: String,
    /// Where its first byte stands in the blob.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// The keys of objects that had wrong checksums, and the right ones.
pub(crate) type Mended = Vec<(String, Vec<u8>)>;

/// Notes that a blob is whole, and then the checksums of its objects: whoever holds both holds the blob first.
async fn found_whole(tx: &Tx, digest: &Digest, now: DateTime<Utc>, mended: &Mended) -> Result<()> {
    blobs::checked(tx, digest, now).await?;
    for (key, checksums) in mended {
        parts::set_checksums(tx, key, checksums.clone()).await?;
    }
    Ok(())
}

impl Engine {
    /// What is known of a blob.
    ///
    /// # Errors
    /// [`Error::NotFound`], in [`Scope::Published`] also when no published version cites it.
    pub async fn get_blob(&self, digest: &Digest, scope: Scope) -> Result<Blob> {
        let blob = blobs::get(self.db().reader(), digest).await?;
        if scope == Scope::Published && !blobs::is_published(self.db().reader(), digest).await? {
            return Err(Error::NotFound(Resource::Blob(digest.clone())));
        }
        Ok(blob)
    }

    /// A blob whose bytes can be read, as far as is known without reading them.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] when bytes of it are known to be missing or other ones.
    pub async fn readable_blob(&self, digest: &Digest) -> Result<Blob> {
        let blob = blobs::get(self.db().reader(), digest).await?;
        readable(&blob)?;
        Ok(blob)
    }

    /// The bytes of a blob, or those of a range, which must lie within it.
    ///
    /// The first chunk has been read when this answers, so an error can still be told. When a later object turns out to
    /// be missing, the stream ends with an error and the blob is marked as damaged. Whatever is read is read in blocks of
    /// 64 KiB and compared with the CRC-64/NVME of what was stored before it is given: where it differs the stream ends
    /// with an error, and the blob is verified.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] when the store does not have the bytes (now); [`Error::Invalid`] for
    /// a range that is not within the blob.
    pub async fn read_blob(&self, digest: &Digest, range: Option<Range<u64>>) -> Result<BlobStream> {
        let (blob, segments) = self.blob_with_segments(digest).await?;
        readable(&blob)?;
        let range = range.unwrap_or(0..blob.size);
        if range.start > range.end || range.end > blob.size {
            return Err(Error::Invalid { what: "range", reason: format!("must lie within the {} bytes", blob.size) });
        }
        let mut reading = Reading::new(self, pieces(&segments, &range)?, By::Reader);
        let body = match reading.next().await? {
            Next::End if range.is_empty() => stream::empty().boxed(),
            Next::End => return Err(Error::bug("a blob without segments")),
            Next::Broken(Flaw::Missing, piece) => {
                self.note_missing(digest.clone(), piece.key).await;
                return Err(damaged(digest));
            }
            Next::Broken(Flaw::Changed, _) => {
                // Which may take as long as a download.
                let (engine, doubtful) = (self.clone(), digest.clone());
                tokio::spawn(async move { engine.doubt(&doubtful).await });
                return Err(Error::Unavailable { what: DOUBTFUL, source: format!("{digest} was read wrong").into() });
            }
            Next::Bytes(buffer, grant) => {
                let (engine, digest) = (self.clone(), digest.clone());
                reading.into_stream((buffer, grant), move |flaw, piece| {
                    let (engine, digest) = (engine.clone(), digest.clone());
                    tokio::spawn(async move {
                        match flaw {
                            Flaw::Missing => engine.note_missing(digest, piece.key).await,
                            Flaw::Changed => engine.doubt(&digest).await,
                        }
                    });
                })
            }
        };
        Ok(BlobStream { size: blob.size, range, body })
    }

    /// A blob as it is now, and its segments.
    async fn blob_with_segments(&self, digest: &Digest) -> Result<(Blob, Segments)> {
        let read = |db: Db, digest| async move { blobs::with_first_key(db.reader(), &digest).await }.boxed();
        let found = self.blobs().read(self.db(), digest.clone(), read).await?;
        let (blob, first_key) = found.ok_or_else(|| Error::NotFound(Resource::Blob(digest.clone())))?;
        let remembered = self.segments().get(digest);
        if let Some(segments) =
            remembered.filter(|segments| segments.first().map(|first| &first.key) == first_key.as_ref())
        {
            return Ok((blob, segments));
        }
        let read = |db: Db, digest| async move { blobs::with_segments(db.reader(), &digest).await }.boxed();
        let (blob, segments) = self.whole_blobs().read(self.db(), digest.clone(), read).await?;
        self.segments().put(digest.clone(), Arc::clone(&segments));
        Ok((blob, segments))
    }

    /// Cites a blob; its size, if it can be used. The first statement of whatever relies on the blob.
    pub(crate) async fn cite(&self, tx: &Tx, digest: &Digest) -> Result<Option<u64>> {
        let Some(before) = blobs::cite(tx, digest, self.clock().now()).await? else { return Ok(None) };
        if before.state != BlobState::Live {
            let change = Change::new(Subject::Blob, digest, "revived");
            self.record(tx, change.from(before.state).to(BlobState::Live)).await?;
        }
        Ok(Some(before.size))
    }

    /// The objects that a blob consists of, in order.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn blob_objects(&self, digest: &Digest) -> Result<Vec<BlobObject>> {
        let (_, segments) = self.blob_with_segments(digest).await?;
        segments
            .iter()
            .map(|segment| {
                Ok(BlobObject {
                    key: segment.key.clone(),
                    offset: from_column("blob_segments", segment.start)?,
                    size: from_column("blob_segments", segment.size)?,
                })
            })
            .collect()
    }

    /// Asks the store for these objects of a blob; whether all are there in full size. A blob that lacks one is marked
    /// as damaged.
    pub(crate) async fn check_objects(&self, digest: &Digest, segments: &[blob_segment::Model]) -> Result<bool> {
        let missing = self.missing_object(segments).await?;
        if let Some(key) = &missing {
            self.mark_damaged(digest, key).await?;
        }
        Ok(missing.is_none())
    }

    /// Asks the store for every object of a blob.
    pub(crate) async fn check_blob(&self, digest: &Digest) -> Result<bool> {
        let Some(blob) = blobs::find(self.db().reader(), digest).await? else { return Ok(false) };
        let segments = blobs::segments(self.db().reader(), digest).await?;
        if blob.state == BlobState::Damaged {
            let whole = self.missing_object(&segments).await?.is_none();
            if whole {
                self.repair(digest, &[BlobState::Damaged], Vec::new()).await?;
            } else {
                self.note_checked(digest, Vec::new()).await?;
            }
            return Ok(whole);
        }
        let whole = self.check_objects(digest, &segments).await?;
        if blob.checked_at < self.clock().now() - NOTED_FOR {
            self.note_checked(digest, Vec::new()).await?;
        }
        Ok(whole)
    }

    /// Makes a blob live whose objects were found to be as they should be.
    pub(crate) async fn repair(&self, digest: &Digest, from: &'static [BlobState], mended: Mended) -> Result<()> {
        let digest = digest.clone();
        self.detached(move |engine| async move {
            let now = engine.clock().now();
            let tx = async |tx: &Tx| {
                if let Some(before) = blobs::hold(tx, &digest, from).await? {
                    blobs::set_state(tx, &digest, BlobState::Live).await?;
                    let change = Change::new(Subject::Blob, &digest, "found whole");
                    engine.record(tx, change.from(before).to(BlobState::Live)).await?;
                }
                found_whole(tx, &digest, now, &mended).await
            };
            engine.db().tx("repair_blob", tx).await
        })
        .await
    }

    pub(crate) async fn note_checked(&self, digest: &Digest, mended: Mended) -> Result<()> {
        let digest = digest.clone();
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine.db().tx("blob_checked", async |tx| found_whole(tx, &digest, now, &mended).await).await
        })
        .await
    }

    /// One object that is missing or has another size. One is enough to mark the blob, and to find out that it was healed
    /// meanwhile; the others are not asked for then.
    async fn missing_object(&self, segments: &[blob_segment::Model]) -> Result<Option<String>> {
        let mut asked = JoinSet::new();
        for segment in segments {
            if asked.len() == STATS_AT_ONCE
                && let Some(key) = answer(asked.join_next().await)?
            {
                return Ok(Some(key));
            }
            let (store, key, size) = (Arc::clone(self.store()), segment.key.clone(), segment.size);
            asked.spawn(async move {
                let there = store.size(&key).await?.is_some_and(|found| i64::try_from(found) == Ok(size));
                Ok((!there).then_some(key))
            });
        }
        while !asked.is_empty() {
            if let Some(key) = answer(asked.join_next().await)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    pub(crate) async fn note_missing(&self, digest: Digest, key: String) {
        if let Err(err) = self.mark_damaged(&digest, &key).await {
            tracing::error!(error = err.chain(), %digest, "a damaged blob could not be marked");
        }
    }

    /// Marks a blob as damaged, unless it was healed since and no longer consists of the missing object.
    async fn mark_damaged(&self, digest: &Digest, key: &str) -> Result<()> {
        tracing::error!(%digest, key, "an object of a blob is missing or short");
        let (digest, key) = (digest.clone(), key.to_owned());
        self.detached(|engine| async move {
            engine
                .db()
                .tx("mark_damaged", async |tx| {
                    let Some(before) = blobs::hold(tx, &digest, BlobState::CITABLE).await? else { return Ok(()) };
                    if !blobs::segment_exists(tx, &digest, &key).await? {
                        return Ok(());
                    }
                    blobs::set_state(tx, &digest, BlobState::Damaged).await?;
                    let change = Change::new(Subject::Blob, &digest, "damaged");
                    engine.record(tx, change.from(before).to(BlobState::Damaged)).await
                })
                .await
        })
        .await
    }
}

fn answer(joined: Option<Result<Result<Option<String>>, JoinError>>) -> Result<Option<String>> {
    match joined {
        Some(Ok(answer)) => answer,
        Some(Err(err)) => Err(Error::internal("asking for an object", err)),
        None => Ok(None),
    }
}

/// Whether the bytes can be read, as far as is known.
fn readable(blob: &Blob) -> Result<()> {
    match blob.state {
        BlobState::Live | BlobState::Condemned => Ok(()),
        BlobState::Damaged | BlobState::Deleting => Err(damaged(&blob.digest)),
        BlobState::Quarantined => Err(quarantined(&blob.digest)),
    }
}

fn damaged(digest: &Digest) -> Error {
    let source = format!("the store does not have all bytes of {digest}").into();
    Error::Unavailable { what: LOST, source }
}

fn quarantined(digest: &Digest) -> Error {
    let source = format!("what the store has of {digest} are other bytes").into();
    Error::Unavailable { what: OTHER, source }
}
