//! Uploads: sessions that deliver one blob in numbered parts.

use chrono::TimeDelta;

use crate::db::entity::part;
use crate::db::{Tx, blobs, from_column, jobs, parts, uploads};
use crate::engine::Change;
use crate::model::{
    BlobState, Digest, HashChain, JobKind, NewUpload, Paged, PartRef, Subject, Upload, UploadEvent, UploadFilter,
    UploadId, UploadState,
};
use crate::scrub::SCRUB_AGAIN;
use crate::{Condition, Engine, Error, FieldError, Result};

/// The least size of a part that is not the last one: 5 MiB, as S3 has it.
pub const PART_SIZE_MIN: u64 = 5 << 20;

/// How many objects of a known blob a begin looks for before it answers that the blob is there.
const CHECKED_AT_ONCE: usize = 16;

/// Objects that a blob no longer consists of are kept for readers that have begun.
pub(crate) const SERVED_GRACE: TimeDelta = TimeDelta::hours(24);

impl Engine {
    /// Begins an upload. Where the digest is known with that size the session is `ready` at once.
    ///
    /// # Errors
    /// [`Condition::SizeMismatch`] when the digest is known with another size.
    pub async fn begin_upload(&self, new: NewUpload) -> Result<Upload> {
        self.detached(|engine| async move {
            engine.check_known(&new.expected_digest).await?;
            let now = engine.clock().now();
            let id = UploadId(engine.clock().new_secret_id());
            let ttl = engine.settings().upload_ttl;
            engine
                .db()
                .tx("begin_upload", async |tx| {
                    let state = match engine.cite(tx, &new.expected_digest).await? {
                        Some(size) if size != new.expected_size => return Err(wrong_size(new.expected_size, size)),
                        Some(_) => UploadState::Ready,
                        None => UploadState::Created,
                    };
                    let upload = Upload::begun(new, id, state, now, ttl);
                    uploads::insert(tx, upload.clone()).await?;
                    engine.record(tx, Change::new(Subject::Upload, id, "begun").to(state)).await?;
                    Ok(upload)
                })
                .await
        })
        .await
    }

    /// Before a known digest is answered as ready: are its objects there? What is missing makes the blob damaged, so
    /// that the bytes are asked for again.
    async fn check_known(&self, digest: &Digest) -> Result<()> {
        let Some(blob) = blobs::find(self.db().reader(), digest).await? else { return Ok(()) };
        let first = blobs::first_segments(self.db().reader(), digest, CHECKED_AT_ONCE as u64 + 1).await?;
        let (checked, rest) = first.split_at(first.len().min(CHECKED_AT_ONCE));
        self.check_objects(digest, checked).await?;
        let now = self.clock().now();
        if !rest.is_empty() && blob.checked_at < now - TimeDelta::hours(24) {
            let id = self.clock().new_id().into();
            self.db()
                .tx("queue_check", async |tx| {
                    jobs::enqueue(tx, id, JobKind::CheckBlob, digest.as_ref(), now, now).await
                })
                .await?;
            self.wake();
        }
        Ok(())
    }

    /// The session.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_upload(&self, id: UploadId) -> Result<Upload> {
        uploads::get(self.db().reader(), id).await
    }

    /// Sessions, newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another list.
    pub async fn list_uploads(&self, filter: UploadFilter) -> Result<Paged<Upload>> {
        uploads::list(self.db().reader(), &filter).await
    }

    /// Ends the session's receiving: these parts, in the order of their numbers, are the blob.
    ///
    /// The answer is `ready` or `failed` where the hash chain of the parts already tells, else `completed`, and a
    /// worker reads what it does not cover. A session that was completed before is answered as it stands.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a list that cannot be: empty, a number twice, a part other than the last under
    /// [`PART_SIZE_MIN`]; [`Condition::PartMismatch`] when a listed part is not the stored one;
    /// [`Condition::SizeMismatch`] when the sum is not the expected size; [`Condition::WrongState`];
    /// [`Condition::Expired`].
    pub async fn complete_upload(&self, id: UploadId, parts: Vec<PartRef>) -> Result<Upload> {
        let upload = self.get_upload(id).await?;
        if was_completed(upload.state) {
            return Ok(upload);
        }
        let mut listed = parts;
        listed.sort_by_key(|part| part.number);
        check_list(&listed)?;
        self.detached(|engine| async move {
            let now = engine.clock().now();
            let upload = engine
                .db()
                .tx("complete_upload", async |tx| {
                    let Some(upload) = uploads::transition_in_time(tx, id, UploadEvent::Listed, now).await? else {
                        let upload = uploads::get(tx, id).await?;
                        if was_completed(upload.state) {
                            return Ok(upload);
                        }
                        return Err(uploads::explain(tx, id, UploadEvent::Listed, now).await?);
                    };
                    engine.complete_listed(tx, &upload, &listed).await?;
                    uploads::get(tx, id).await
                })
                .await?;
            match upload.state {
                UploadState::Completed => engine.wake(),
                _ => engine.delete_lost_soon(id),
            }
            Ok(upload)
        })
        .await
    }

    async fn complete_listed(&self, tx: &Tx, upload: &Upload, listed: &[PartRef]) -> Result<()> {
        let (now, id) = (self.clock().now(), upload.id);
        let stored = parts::list(tx, id).await?;
        compare(listed, &stored)?;
        let sum: u64 = listed.iter().map(|part| part.size).sum();
        if sum != upload.expected_size {
            return Err(wrong_size(upload.expected_size, sum));
        }
        let (listed, unlisted): (Vec<_>, Vec<_>) = stored
            .into_iter()
            .partition(|part| listed.binary_search_by_key(&part.number, |listed| listed.number.get().into()).is_ok());
        let unlisted: Vec<i32> = unlisted.iter().map(|part| part.number).collect();
        parts::drop(tx, id, &unlisted).await?;
        parts::unnamed_attempts_lost(tx, id, now).await?;
        let change = Change::new(Subject::Upload, id, "completed").from(upload.state).to(UploadState::Completed);
        self.record(tx, change).await?;
        match verified_prefix(&listed)? {
            (verified, Some(chain)) if verified == listed.len() => self.conclude(tx, upload, &chain.digest()).await,
            _ => {
                let job = self.clock().new_id().into();
                jobs::enqueue(tx, job, JobKind::Ingest, &id.to_string(), now, now).await?;
                Ok(())
            }
        }
    }

    /// The digest of a completed upload's bytes is known: they are the blob, or they are not what was promised.
    pub(crate) async fn conclude(&self, tx: &Tx, upload: &Upload, found: &Digest) -> Result<()> {
        if *found == upload.expected_digest {
            return self.make_ready(tx, upload).await;
        }
        let reason = format!("the bytes have the digest {found}, expected was {}", upload.expected_digest);
        self.fail_upload(tx, upload.id, &reason).await
    }

    async fn make_ready(&self, tx: &Tx, upload: &Upload) -> Result<()> {
        let now = self.clock().now();
        let (id, digest) = (upload.id, &upload.expected_digest);
        let Some(before) = uploads::transition(tx, id, UploadEvent::Verified, now).await? else {
            return Err(uploads::explain(tx, id, UploadEvent::Verified, now).await?);
        };
        if self.take_segments(tx, upload).await? {
            blobs::insert_segments(tx, digest, id).await?;
        } else {
            // Another upload was faster: its bytes are the same, these are not needed.
            parts::all_attempts_lost(tx, id, now).await?;
        }
        self.record(tx, Change::new(Subject::Upload, id, "verified").from(before.state).to(UploadState::Ready)).await
    }

    /// Whether this upload's parts shall be the blob's segments.
    async fn take_segments(&self, tx: &Tx, upload: &Upload) -> Result<bool> {
        let now = self.clock().now();
        let digest = &upload.expected_digest;
        if self.cite(tx, digest).await?.is_some() {
            return Ok(false);
        }
        if let Some(before) = blobs::heal(tx, digest, now).await? {
            blobs::drop_segments(tx, digest, now + SERVED_GRACE).await?;
            blobs::checked(tx, digest, now).await?;
            self.record(tx, Change::new(Subject::Blob, digest, "healed").from(before.state).to(BlobState::Live))
                .await?;
            return Ok(true);
        }
        if blobs::insert(tx, digest, upload.expected_size, upload.media_type_hint.clone(), now, now + SCRUB_AGAIN)
            .await?
        {
            self.record(tx, Change::new(Subject::Blob, digest, "created").to(BlobState::Live)).await?;
            return Ok(true);
        }
        if self.cite(tx, digest).await?.is_some() {
            return Ok(false);
        }
        Err(Error::changed_meanwhile("the blob"))
    }

    pub(crate) async fn fail_upload(&self, tx: &Tx, id: UploadId, reason: &str) -> Result<()> {
        let now = self.clock().now();
        let Some(before) = uploads::transition(tx, id, UploadEvent::Mismatched, now).await? else {
            return Err(uploads::explain(tx, id, UploadEvent::Mismatched, now).await?);
        };
        uploads::set_failure(tx, id, reason).await?;
        parts::all_attempts_lost(tx, id, now).await?;
        self.record(tx, Change::new(Subject::Upload, id, "failed").from(before.state).to(UploadState::Failed)).await
    }

    /// Gives a session up; its bytes are freed a moment later. One that was given up before stays so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] once it is completed.
    pub async fn abort_upload(&self, id: UploadId) -> Result<Upload> {
        self.detached(|engine| async move {
            let now = engine.clock().now();
            let upload = engine
                .db()
                .tx("abort_upload", async |tx| {
                    let Some(before) = uploads::transition(tx, id, UploadEvent::GivenUp, now).await? else {
                        let upload = uploads::get(tx, id).await?;
                        if upload.state == UploadState::Aborted {
                            return Ok(upload);
                        }
                        return Err(uploads::explain(tx, id, UploadEvent::GivenUp, now).await?);
                    };
                    parts::all_attempts_lost(tx, id, now).await?;
                    let change = Change::new(Subject::Upload, id, "aborted");
                    engine.record(tx, change.from(before.state).to(UploadState::Aborted)).await?;
                    uploads::get(tx, id).await
                })
                .await?;
            engine.delete_lost_soon(id);
            Ok(upload)
        })
        .await
    }
}

fn was_completed(state: UploadState) -> bool {
    matches!(state, UploadState::Completed | UploadState::Ingesting | UploadState::Ready)
}

fn wrong_size(expected: u64, found: u64) -> Error {
    Error::precondition(Condition::SizeMismatch, format!("expected are {expected} bytes, not {found}"))
}

fn check_list(parts: &[PartRef]) -> Result<()> {
    let invalid = |reason: String| Err(Error::Invalid { what: "parts", reason });
    let Some((_, all_but_last)) = parts.split_last() else {
        return invalid("must list at least one part".to_owned());
    };
    if let Some(part) = parts.iter().find(|part| part.etag.trim().is_empty()) {
        return invalid(format!("part {} has a blank etag", part.number));
    }
    if let Some(twice) = parts.windows(2).find(|pair| pair[0].number == pair[1].number) {
        return invalid(format!("part {} is listed twice", twice[0].number));
    }
    if let Some(small) = all_but_last.iter().find(|part| part.size < PART_SIZE_MIN) {
        return invalid(format!("part {} is not the last one and has less than {PART_SIZE_MIN} bytes", small.number));
    }
    Ok(())
}

fn compare(listed: &[PartRef], stored: &[part::Model]) -> Result<()> {
    let mut errors = Vec::new();
    for part in listed {
        let number = i32::from(part.number.get());
        let reason = match stored.binary_search_by_key(&number, |stored| stored.number) {
            Err(_) => Some("this part was never sent".to_owned()),
            Ok(index) => {
                let stored = &stored[index];
                let same =
                    stored.etag.as_ref() == part.etag.trim_matches('"') && u64::try_from(stored.size) == Ok(part.size);
                (!same).then(|| format!("the stored part has the etag {} and {} bytes", stored.etag, stored.size))
            }
        };
        errors.extend(reason.map(|reason| FieldError { field: format!("parts/{number}"), reason }));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let reason = "listed parts are not the stored ones".to_owned();
    Err(Error::Precondition { condition: Condition::PartMismatch, reason, errors })
}

/// How many of these parts, from the first, one hash chain covers, and that chain.
///
/// A part's chain counts when it was computed on top of just the attempt that is listed before it.
pub(crate) fn verified_prefix(parts: &[part::Model]) -> Result<(usize, Option<HashChain>)> {
    let mut after = None;
    let mut size = 0;
    let mut verified = (0, None);
    for (index, part) in parts.iter().enumerate() {
        if part.chain_after != after {
            break;
        }
        let Some(chain) = part.chain.as_deref().and_then(HashChain::load) else { break };
        size += from_column::<u64>("parts", part.size)?;
        if chain.offset() != size {
            return Err(Error::bug("a hash chain is not where its parts end"));
        }
        after = Some(part.attempt);
        verified = (index + 1, Some(chain));
    }
    Ok(verified)
}
