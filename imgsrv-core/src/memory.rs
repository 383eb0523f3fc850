//! One budget of memory for the bytes of all transfers of this process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a transfer starts with, and the least that it keeps: bytes.
pub(crate) const LEAST: usize = 256 << 10;

/// The unit in which memory is counted: bytes.
const UNIT: usize = 64 << 10;

/// Hands out the right to hold bytes. Who waits for it reads nothing from its client meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    /// A budget of `bytes`, of at least two transfers.
    pub(crate) fn new(bytes: u64) -> Self {
        let units =
            usize::try_from(bytes / UNIT as u64).unwrap_or(usize::MAX).clamp(4 * LEAST / UNIT, Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(units)))
    }

    /// Waits for the least that a transfer needs.
    async fn least(&self) -> Grant {
        let permit = Arc::clone(&self.0).acquire_many_owned(units(LEAST)).await;
        Grant(permit.expect("the budget is never closed"))
    }

    /// `bytes` if they are free now. For what a transfer holds beside its least: it must not wait while it holds some,
    /// or all could wait for each other.
    pub(crate) fn more(&self, bytes: usize) -> Option<Grant> {
        Arc::clone(&self.0).try_acquire_many_owned(units(bytes)).ok().map(Grant)
    }

    /// `bytes` if they are free now, else the least as soon as it is.
    pub(crate) async fn up_to(&self, bytes: usize) -> Grant {
        match self.more(bytes) {
            Some(grant) => grant,
            None => self.least().await,
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The right to hold some bytes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Grant(OwnedSemaphorePermit);

impl Grant {
    pub(crate) fn bytes(&self) -> usize {
        self.0.num_permits() * UNIT
    }
}
