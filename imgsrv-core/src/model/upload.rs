//! Upload sessions and their states.

use chrono::{DateTime, Utc};

use super::text::words;
use super::{Digest, FileName, InvalidTransition, MediaType, Page, UploadId};

words!(
    /// Where an upload session stands.
    UploadState, "upload state", {
        /// Begun, no part yet.
        Created = "created",
        /// Has at least one part.
        Uploading = "uploading",
        /// The client listed its parts; the digest is not known yet.
        Completed = "completed",
        /// A worker reads what no hash chain covers.
        Ingesting = "ingesting",
        /// Its bytes are a blob.
        Ready = "ready",
        /// Its bytes were not what was promised.
        Failed = "failed",
        /// Given up, by its client or by expiry.
        Aborted = "aborted",
    }
);

/// What can happen to an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadEvent {
    /// A part was stored.
    PartStored,
    /// The client listed the parts, and the digest must still be computed.
    Listed,
    /// A worker began to read.
    IngestStarted,
    /// The bytes are what was promised.
    Verified,
    /// The bytes are not what was promised.
    Mismatched,
    /// The client gave up, or the session expired.
    GivenUp,
}

impl UploadEvent {
    /// Every event.
    pub const ALL: &'static [Self] =
        &[Self::PartStored, Self::Listed, Self::IngestStarted, Self::Verified, Self::Mismatched, Self::GivenUp];

    /// The states in which it may happen.
    pub const fn sources(self) -> &'static [UploadState] {
        use UploadState::{Completed, Created, Ingesting, Uploading};
        match self {
            Self::PartStored | Self::GivenUp => &[Created, Uploading],
            Self::Listed => &[Uploading],
            Self::IngestStarted => &[Completed, Ingesting],
            Self::Verified | Self::Mismatched => &[Uploading, Completed, Ingesting],
        }
    }

    /// The state that it leads to.
    pub const fn target(self) -> UploadState {
        match self {
            Self::PartStored => UploadState::Uploading,
            Self::Listed => UploadState::Completed,
            Self::IngestStarted => UploadState::Ingesting,
            Self::Verified => UploadState::Ready,
            Self::Mismatched => UploadState::Failed,
            Self::GivenUp => UploadState::Aborted,
        }
    }
}

impl UploadState {
    /// The state after `event`.
    ///
    /// # Errors
    /// When the event may not happen in this state.
    pub fn after(self, event: UploadEvent) -> Result<Self, InvalidTransition> {
        if event.sources().contains(&self) {
            Ok(event.target())
        } else {
            Err(InvalidTransition { what: "upload", state: self.word() })
        }
    }

    /// Whether nothing can happen to it any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Ready | Self::Failed | Self::Aborted)
    }
}

/// What a client promises when it begins an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpload {
    /// The SHA-256 of all bytes.
    pub expected_digest: Digest,
    /// Bytes.
    pub expected_size: u64,
    /// The media type that the blob gets, if this upload makes it.
    pub media_type_hint: Option<MediaType>,
    /// What the file is called at the client.
    pub filename_hint: Option<FileName>,
}

/// A session that delivers one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id, which is also the right to read it.
    pub id: UploadId,
    /// The SHA-256 of all bytes.
    pub expected_digest: Digest,
    /// Bytes.
    pub expected_size: u64,
    /// The media type that the blob gets, if this upload makes it.
    pub media_type_hint: Option<MediaType>,
    /// What the file is called at the client.
    pub filename_hint: Option<FileName>,
    /// Where it stands.
    pub state: UploadState,
    /// Bytes in the parts that count now.
    pub received: u64,
    /// Why it failed, for people.
    pub failure_reason: Option<String>,
    /// When an idle session is given up.
    pub expires_at: DateTime<Utc>,
    /// When it was begun.
    pub created_at: DateTime<Utc>,
}

/// Which uploads to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadFilter {
    /// Only those for this digest.
    pub expected_digest: Option<Digest>,
    /// Only those in this state.
    pub state: Option<UploadState>,
    /// The page.
    pub page: Page,
}
