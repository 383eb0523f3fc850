//! What is to be collected.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::text::words;
use super::{Digest, SweepPlanId};

words!(
    /// What a plan does with a blob.
    SweepAction, "sweep action", {
        /// Nobody has cited it for a long time: it is given notice.
        Condemn = "condemn",
        /// Nobody has cited it since it was given notice: it goes.
        Delete = "delete",
    }
);

/// A blob that a plan is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedBlob {
    /// Which one.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What becomes of it.
    pub action: SweepAction,
}

/// What a sweep would collect, as of a moment. It is kept, and carried out exactly or not at all: what somebody has used
/// since is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepPlan {
    /// Its id.
    pub id: SweepPlanId,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// A blob that was used later is not condemned.
    pub used_before: DateTime<Utc>,
    /// A blob that was condemned later is not deleted.
    pub condemned_before: DateTime<Utc>,
    /// Bytes of all blobs, for comparison.
    pub stored_bytes: u64,
    /// What becomes of which blob, in the order of their digests; nothing is said of all others.
    pub blobs: Vec<PlannedBlob>,
}

impl SweepPlan {
    /// The least that is much: bytes.
    const MUCH: u64 = 1 << 30;

    /// How many bytes the blobs have of which it deletes the last trace.
    pub fn deleted_bytes(&self) -> u64 {
        self.blobs.iter().filter(|blob| blob.action == SweepAction::Delete).map(|blob| blob.size).sum()
    }

    /// Whether it deletes more than a tenth of all bytes, and more than 1 GiB: somebody should look at it first, for a
    /// catalogue that was lost or replaced looks like this too.
    pub fn is_large(&self) -> bool {
        let deleted = self.deleted_bytes();
        deleted > Self::MUCH && deleted > self.stored_bytes / 10
    }
}
