//! Whether the bytes that the store has are those that were published.

use std::num::NonZeroU64;

use crate::blobs::Mended;
use crate::checksums::Running;
use crate::db::entity::{blob, blob_segment};
use crate::db::{Tx, blobs, from_column, parts};
use crate::engine::Change;
use crate::hashing::Hashes;
use crate::model::{BlobState, Digest, HashChain, Subject};
use crate::segments::pieces;
use crate::{Engine, Error, Resource, Result};

/// What became of verifying a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its bytes are those of its digest.
    Whole,
    /// The store lacks bytes of it: it is damaged, and unavailable until they are back or uploaded again.
    Missing,
    /// Its bytes are those of another digest: it is quarantined, and unavailable until it is uploaded again, or verified
    /// when its bytes are right again.
    Different {
        /// What they are.
        found: Digest,
    },
}

/// Everything that is computed of a blob that is verified.
struct BlobHashes {
    chain: HashChain,
    objects: Vec<ObjectHashes>,
}

struct ObjectHashes {
    key: String,
    size: u64,
    checksums: Running,
}

impl BlobHashes {
    fn of(segments: &[blob_segment::Model]) -> Result<Self> {
        let object = |segment: &blob_segment::Model| {
            let size = from_column("blob_segments", segment.size)?;
            Ok(ObjectHashes { key: segment.key.clone(), size, checksums: Running::default() })
        };
        Ok(Self { chain: HashChain::default(), objects: segments.iter().map(object).collect::<Result<_>>()? })
    }
}

impl Hashes for BlobHashes {
    fn update(&mut self, mut bytes: &[u8]) {
        self.chain.update(bytes);
        for object in &mut self.objects {
            let left = usize::try_from(object.size - object.checksums.size()).unwrap_or(usize::MAX);
            let (of_it, behind) = bytes.split_at(bytes.len().min(left));
            object.checksums.update(of_it);
            bytes = behind;
        }
    }
}

impl Engine {
    /// The digests of all blobs, a page at a time: those behind this one, at most `limit`, in their order.
    ///
    /// # Errors
    /// What the database says.
    pub async fn blob_digests(&self, behind: Option<&Digest>, limit: u64) -> Result<Vec<Digest>> {
        blobs::digests(self.db().reader(), behind, limit).await
    }

    /// Reads all bytes of a blob and compares their digest. What is wrong is not served any more; what is right again is,
    /// and so is what only had wrong checksums.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a blob that there is not, or that is being deleted; [`Error::Unavailable`] when the store
    /// does not answer.
    pub async fn verify_blob(&self, digest: &Digest) -> Result<Verdict> {
        self.verify_at(digest, None).await
    }

    /// Verifies a blob, reading at most so many bytes a second.
    pub(crate) async fn verify_at(&self, digest: &Digest, rate: Option<NonZeroU64>) -> Result<Verdict> {
        loop {
            let unknown = || Error::NotFound(Resource::Blob(digest.clone()));
            let blob = blobs::find(self.db().reader(), digest).await?.ok_or_else(unknown)?;
            let size = from_column("blobs", blob.size)?;
            if blob.state == BlobState::Deleting {
                return Err(unknown());
            }
            let segments = blobs::segments(self.db().reader(), digest).await?;
            let hashed =
                match self.hash_pieces(BlobHashes::of(&segments)?, pieces(&segments, &(0..size))?, rate).await? {
                    Ok(hashed) => hashed,
                    Err(piece) => {
                        self.note_missing(digest.clone(), piece.key).await;
                        return Ok(Verdict::Missing);
                    }
                };
            let found = hashed.chain.digest();
            if found == *digest {
                let wrong = self.wrong_checksums(hashed).await?;
                if BlobState::BROKEN.contains(&blob.state) {
                    self.repair(digest, BlobState::BROKEN, wrong).await?;
                } else {
                    self.note_checked(digest, wrong).await?;
                }
                return Ok(Verdict::Whole);
            }
            if self.quarantine(blob, segments, &found).await? {
                return Ok(Verdict::Different { found });
            }
        }
    }

    /// The objects of which the database has other checksums than those of their bytes, which are right, and the right
    /// ones.
    async fn wrong_checksums(&self, hashed: BlobHashes) -> Result<Mended> {
        let mut wrong = Vec::new();
        for ObjectHashes { key, size, checksums } in hashed.objects {
            if checksums.size() != size {
                return Err(Error::bug("an object was not hashed to its end"));
            }
            let right = checksums.save();
            if parts::checksums(self.db().reader(), &key).await?.is_some_and(|known| known != right) {
                tracing::error!(key, "the checksums of an object are wrong, not its bytes: they are to be made anew");
                wrong.push((key, right));
            }
        }
        Ok(wrong)
    }

    /// Quarantines a blob, unless somebody has healed it or found it whole since it was read.
    async fn quarantine(&self, read: blob::Model, of: Vec<blob_segment::Model>, found: &Digest) -> Result<bool> {
        const FROM: &[BlobState] = &[BlobState::Live, BlobState::Condemned, BlobState::Damaged];
        tracing::error!(digest = %read.digest, %found, "a blob has other bytes than those that were uploaded");
        self.detached(move |engine| async move {
            let digest = &read.digest;
            let quarantine = async |tx: &Tx| {
                let before = blobs::hold(tx, digest, FROM).await?;
                let now = blobs::segments(tx, digest).await?;
                let same = now.iter().map(|segment| &segment.key).eq(of.iter().map(|segment| &segment.key));
                let checked_at = blobs::find(tx, digest).await?.map(|row| row.checked_at);
                if !same || checked_at != Some(read.checked_at) {
                    return Ok(false);
                }
                if let Some(before) = before {
                    blobs::set_state(tx, digest, BlobState::Quarantined).await?;
                    let change = Change::new(Subject::Blob, digest, "quarantined");
                    engine.record(tx, change.from(before).to(BlobState::Quarantined)).await?;
                }
                Ok(true)
            };
            engine.db().tx("quarantine_blob", quarantine).await
        })
        .await
    }

    /// One wrong read may have been the fault of the way here: the blob is read again before it is judged. Once, however
    /// many readers came upon it.
    pub(crate) async fn doubt(&self, digest: &Digest) {
        if !self.doubted().insert(digest.clone()) {
            return;
        }
        match self.verify_blob(digest).await {
            Ok(Verdict::Whole) => {
                tracing::error!(%digest, "a blob that was read wrong is whole: its checksums are not, or it was read wrong once");
            }
            Ok(_) => {}
            Err(err) => {
                tracing::error!(error = err.chain(), %digest, "a blob that was read wrong could not be verified");
            }
        }
        self.doubted().remove(digest);
    }
}
