//! Verified bytes.

use chrono::{DateTime, Utc};

use super::text::words;
use super::{Digest, MediaType};

words!(
    /// Whether a blob can be cited and read.
    BlobState, "blob state", {
        /// Can be cited and read.
        Live = "live",
        /// Not cited; will be collected unless somebody cites it first.
        Condemned = "condemned",
        /// Being collected: counts as absent.
        Deleting = "deleting",
        /// Bytes of it are missing: counts as absent until they are back or uploaded again.
        Damaged = "damaged",
        /// Its bytes are other ones: counts as absent until they are right again or uploaded again.
        Quarantined = "quarantined",
    }
);

impl BlobState {
    /// The states in which citing a blob makes it (or keeps it) live.
    pub const CITABLE: &'static [Self] = &[Self::Live, Self::Condemned];

    /// The states in which it counts as absent, though there are objects of it.
    pub const BROKEN: &'static [Self] = &[Self::Damaged, Self::Quarantined];
}

/// Verified bytes with a digest. A blob knows nothing about images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The hint of the upload that made it.
    pub media_type: Option<MediaType>,
    /// Whether it can be cited and read.
    pub state: BlobState,
    /// When it was first made.
    pub created_at: DateTime<Utc>,
    /// When it was last uploaded or cited.
    pub last_used_at: DateTime<Utc>,
}
