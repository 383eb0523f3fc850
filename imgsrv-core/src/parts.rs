//! The parts of an upload: received, hashed on the way, and made durable.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::db::entity::part_attempt::AttemptState;
use crate::db::entity::{part, part_attempt};
use crate::db::{from_column, parts, to_column, uploads};
use crate::engine::Change;
use crate::hashing::PartHashes;
use crate::model::{Digest, HashChain, Part, PartNumber, Subject, UploadEvent, UploadId, UploadState};
use crate::receive::{Receiver, interrupted, too_large, too_many};
use crate::store::Key;
use crate::{Condition, Engine, Error, Result};

/// The largest part: 5 GiB, the most that S3 takes in one piece.
pub const PART_SIZE_MAX: u64 = 5 << 30;

/// For how long a part in progress holds its session open, and how often it says so.
const HOLD: TimeDelta = TimeDelta::seconds(60);
const HOLD_AGAIN: Duration = Duration::from_secs(20);

/// What a client says of a part's bytes before it sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartClaim {
    /// How many there are.
    pub size: Option<u64>,
    /// Their SHA-256.
    pub sha256: Option<[u8; 32]>,
}

impl Engine {
    /// The parts that count now, by number.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn list_parts(&self, id: UploadId) -> Result<Vec<Part>> {
        self.get_upload(id).await?;
        parts::list(self.db().reader(), id).await?.into_iter().map(Part::try_from).collect()
    }

    /// Receives a part and stores it durably. A part that was sent before is replaced.
    ///
    /// `body` is read to its end unless it is refused or the caller stops waiting; then nothing has changed.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] or [`Condition::Expired`] when the session takes no parts;
    /// [`Condition::SizeMismatch`] at the first byte by which the parts exceed the expected size;
    /// [`Condition::DigestMismatch`] when it has another SHA-256 than claimed; [`Error::Invalid`] when it has or claims
    /// more than [`PART_SIZE_MAX`], has another size than claimed, or ends before its end; [`Error::StorageFull`].
    pub async fn put_part(
        &self,
        id: UploadId,
        number: PartNumber,
        claim: PartClaim,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Part> {
        if claim.size.is_some_and(|size| size > PART_SIZE_MAX) {
            return Err(too_large(PART_SIZE_MAX));
        }
        let gone = CancellationToken::new();
        let _guard = gone.clone().drop_guard();
        self.detached(|engine| async move {
            let attempt = engine.open_attempt(id, number, &claim).await?;
            match engine.store_part(&attempt, &claim, body, &gone).await {
                Ok(part) => Ok(part),
                // Whatever is away would be waited for once more, by a client that wants to know.
                Err(err @ Error::Unavailable { .. }) => {
                    let tidying = async move { engine.drop_attempt(&attempt.key).await };
                    tokio::spawn(tidying.in_current_span());
                    Err(err)
                }
                Err(err) => {
                    engine.drop_attempt(&attempt.key).await;
                    Err(err)
                }
            }
        })
        .await
    }

    /// Records the attempt before its first byte.
    async fn open_attempt(&self, id: UploadId, number: PartNumber, claim: &PartClaim) -> Result<Attempt> {
        let digest = self.get_upload(id).await?.expected_digest;
        let claimed = claim.size.unwrap_or(0);
        self.store().check_room(self.settings().min_free.saturating_add(claimed)).await?;
        let now = self.clock().now();
        self.db()
            .tx("open_attempt", async |tx| {
                if !uploads::open_attempt(tx, id, now, now + HOLD).await? {
                    return Err(uploads::explain(tx, id, UploadEvent::PartStored, now).await?);
                }
                let upload = uploads::get(tx, id).await?;
                let replaced = parts::get(tx, id, number).await?.map_or(0, |part| part.size);
                let others = upload.received.saturating_sub(from_column("parts", replaced)?);
                let room = upload.expected_size.saturating_sub(others);
                if claim.size.is_some_and(|size| size > room) {
                    return Err(too_many());
                }
                let before = parts::before(tx, id, number).await?;
                let ordinal = uploads::attempts(tx, id).await?;
                let key = Key::Part { digest: &digest, upload: id, number, attempt: ordinal }.to_string();
                let row = part_attempt::Model {
                    key: key.clone(),
                    upload_id: id,
                    number: number.get().into(),
                    attempt: ordinal,
                    state: AttemptState::Writing,
                    checksums: None,
                    deletable_at: None,
                    created_at: now,
                };
                parts::insert_attempt(tx, row).await?;
                let (chain, chain_after) = match before {
                    None => (Some(HashChain::default()), None),
                    Some(part) => (part.chain.as_deref().and_then(HashChain::load), Some(part.attempt)),
                };
                Ok(Attempt { upload: id, number, ordinal, key, room, chain, chain_after })
            })
            .await
    }

    async fn store_part(
        &self,
        attempt: &Attempt,
        claim: &PartClaim,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
        gone: &CancellationToken,
    ) -> Result<Part> {
        let ended = gone.child_token();
        let receiver = Receiver {
            store: self.store(),
            budget: &self.memory().inbound,
            hashing: self.hashing(),
            gone: &ended,
            announced: claim.size,
            room: attempt.room,
            part_max: PART_SIZE_MAX,
            min_free: self.settings().min_free,
        };
        let hashes = PartHashes::new(attempt.chain.clone(), claim.sha256.is_some());
        let body = pin!(body);
        let mut receiving = pin!(receiver.receive(&attempt.key, body, hashes));
        let outcome = tokio::select! {
            outcome = &mut receiving => outcome,
            err = self.hold_open(attempt.upload) => {
                // Not dropped: what it has sent must be taken back before its object is deleted.
                ended.cancel();
                receiving.await.ok();
                Err(err)
            }
        };
        let hashes = match outcome {
            Ok(hashes) => hashes,
            Err(err) => {
                // No commit can have named the object, and on a full disk its room is needed to record anything.
                self.store().delete(&attempt.key).await.ok();
                return Err(self.or_ended(attempt.upload, err).await);
            }
        };
        let size = hashes.size();
        if let Some(claimed) = claim.size
            && claimed != size
        {
            return Err(interrupted(format_args!("{claimed} bytes were announced, {size} came")));
        }
        let sha256 = hashes.own();
        if let (Some(claimed), Some(found)) = (claim.sha256, &sha256)
            && Digest::from_sha256(claimed) != *found
        {
            let reason = format!("the part's SHA-256 is {}, Content-Digest says {}", found.hex(), hex::encode(claimed));
            return Err(Error::precondition(Condition::DigestMismatch, reason));
        }
        self.commit_part(attempt, hashes, sha256).await
    }

    /// Keeps a session from expiring for as long as this is polled; the error tells that it takes no more parts.
    async fn hold_open(&self, id: UploadId) -> Error {
        loop {
            tokio::time::sleep(HOLD_AGAIN).await;
            let now = self.clock().now();
            let held = self.detached(|engine| async move {
                engine.db().tx("hold_upload", async |tx| uploads::hold(tx, id, now + HOLD).await).await
            });
            match held.await {
                Ok(true) => {}
                Ok(false) => {
                    return Error::precondition(Condition::WrongState, "the upload takes no more parts");
                }
                // The part's own commit decides; a database that is away for a moment must not cost gigabytes.
                Err(err) => tracing::warn!(error = err.chain(), upload = %id, "an upload could not be held open"),
            }
        }
    }

    /// Points the part at this attempt.
    async fn commit_part(&self, attempt: &Attempt, hashes: PartHashes, sha256: Option<Digest>) -> Result<Part> {
        let now = self.clock().now();
        let id = attempt.upload;
        let row = part::Model {
            upload_id: id,
            number: attempt.number.get().into(),
            attempt: attempt.ordinal,
            key: attempt.key.clone(),
            size: to_column(hashes.size())?,
            etag: hashes.etag(),
            sha256,
            chain: hashes.chain().map(HashChain::save),
            chain_after: attempt.chain_after,
            stored_at: now,
        };
        let stored = Part::try_from(row.clone())?;
        let checksums = hashes.checksums().save();
        let replaced = self
            .db()
            .tx("store_part", async |tx| {
                let Some(upload) = uploads::transition(tx, id, UploadEvent::PartStored, now).await? else {
                    return Err(uploads::explain(tx, id, UploadEvent::PartStored, now).await?);
                };
                let replaced = parts::get(tx, id, attempt.number).await?;
                let replaced_size = replaced.as_ref().map_or(Ok(0), |part| from_column("parts", part.size))?;
                let received = upload.received.saturating_sub(replaced_size) + stored.size;
                if received > upload.expected_size {
                    return Err(too_many());
                }
                if stored.size == 0 {
                    parts::forget_empty_attempt(tx, &attempt.key).await?;
                } else if !parts::attempt_stored(tx, &attempt.key, checksums.clone()).await? {
                    return Err(Error::bug("the row of an attempt vanished while its session was open"));
                }
                if let Some(replaced) = &replaced {
                    parts::attempt_lost(tx, &replaced.key, AttemptState::Stored, now).await?;
                }
                uploads::part_stored(tx, id, received, now + self.settings().upload_ttl).await?;
                parts::put(tx, row).await?;
                // The rows of `parts` tell of each part; ten thousand events would tell no more.
                if upload.state != UploadState::Uploading {
                    let change = Change::new(Subject::Upload, id, "receiving");
                    self.record(tx, change.from(upload.state).to(UploadState::Uploading)).await?;
                }
                Ok(replaced.filter(|part| part.size > 0).map(|part| part.key))
            })
            .await?;
        if let Some(key) = replaced {
            self.delete_objects(vec![key]).await;
        }
        Ok(stored)
    }

    /// Whoever ends a session deletes its objects, those in the making too, at which a store may well balk: then the
    /// session's end is what the client must hear of.
    async fn or_ended(&self, id: UploadId, err: Error) -> Error {
        if !err.retryable() {
            return err;
        }
        match self.get_upload(id).await.map(|upload| upload.state.after(UploadEvent::PartStored)) {
            Ok(Err(ended)) => Error::precondition(Condition::WrongState, ended.to_string()),
            _ => err,
        }
    }

    /// Takes back an attempt that came to nothing. What fails here is left to the sweep.
    async fn drop_attempt(&self, key: &str) {
        let now = self.clock().now();
        let still_named = self
            .db()
            .tx("drop_attempt", async |tx| {
                // A commit whose answer was lost has made it `stored`; then the part is what counts.
                parts::attempt_lost(tx, key, AttemptState::Writing, now).await?;
                Ok(parts::attempt(tx, key).await?.is_some_and(|row| row.state == AttemptState::Stored))
            })
            .await;
        match still_named {
            Ok(true) => {}
            Ok(false) => {
                self.delete_objects(vec![key.to_owned()]).await;
            }
            Err(err) => tracing::warn!(error = err.chain(), key, "an attempt is left to the sweep"),
        }
    }
}

/// An attempt at a part, recorded before its first byte.
struct Attempt {
    upload: UploadId,
    number: PartNumber,
    ordinal: i32,
    key: String,
    room: u64,
    chain: Option<HashChain>,
    chain_after: Option<i32>,
}
