//! One budget of memory for the bytes of all transfers of this process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::checksums::BLOCK;

/// The least chunk that a reader is given: bytes. A thousand slow ones hold no more than a quarter of what there is by
/// default.
pub(crate) const LEAST: usize = UNIT;

/// The unit in which memory is counted: bytes. What is read is read and checked in whole blocks.
const UNIT: usize = BLOCK;

/// Memory that comes in and memory that goes out, apart: readers that take their time never stop a writer.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// For what is received, and for what workers read.
    pub inbound: Budget,
    /// For what readers are sent.
    pub outbound: Budget,
}

impl Memory {
    /// `bytes` in all, of which the inbound half is at least `inbound_least`.
    pub(crate) fn new(bytes: u64, inbound_least: usize) -> Self {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        Self { inbound: Budget::new(half, inbound_least), outbound: Budget::new(half, 4 * LEAST) }
    }
}

/// Hands out the right to hold bytes. Who waits for it reads nothing from its client meanwhile.
///
/// Half of it is kept for what a transfer cannot do without: those that were fast when they began, and hold much while
/// they are slow, keep no other one from beginning.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    kept: Arc<Semaphore>,
    free: Arc<Semaphore>,
}

impl Budget {
    /// `bytes` in all, of which at least `least` are kept.
    pub(crate) fn new(bytes: usize, least: usize) -> Self {
        let kept = (bytes / 2).max(least.next_multiple_of(UNIT));
        let semaphore = |bytes: usize| Arc::new(Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS)));
        Self { kept: semaphore(kept.max(UNIT)), free: semaphore(bytes.saturating_sub(kept)) }
    }

    /// Waits for `bytes`. Never wait while holding some: all could wait for each other.
    async fn wait_for(&self, bytes: usize) -> Grant {
        let of = |semaphore: &Arc<Semaphore>| Arc::clone(semaphore).acquire_many_owned(units(bytes));
        let permit = tokio::select! {
            biased;
            permit = of(&self.kept) => permit,
            permit = of(&self.free) => permit,
        };
        Grant(permit.expect("the budget is never closed"))
    }

    /// `bytes` if they are free now.
    pub(crate) fn more(&self, bytes: usize) -> Option<Grant> {
        Arc::clone(&self.free).try_acquire_many_owned(units(bytes)).ok().map(Grant)
    }

    /// For what is read ahead: `bytes`, or a quarter of what is free now if that is less, so that there is some for whoever
    /// comes.
    pub(crate) fn ahead(&self, bytes: usize) -> Option<Grant> {
        let share = self.free.available_permits() / 4 * UNIT;
        if share == 0 { None } else { self.more(bytes.min(share)) }
    }

    /// `bytes` if they are free now, else a half or a quarter of them and so on, and the least as soon as it is.
    pub(crate) async fn up_to(&self, bytes: usize) -> Grant {
        let mut bytes = bytes;
        while bytes > LEAST {
            if let Some(grant) = self.more(bytes) {
                return grant;
            }
            bytes /= 2;
        }
        self.wait_for(LEAST).await
    }

    /// Waits for what a transfer needs from its beginning to its end.
    pub(crate) async fn allowance(&self, base: usize) -> Allowance {
        Allowance { budget: self.clone(), base: self.wait_for(base).await, more: None }
    }

    /// How much nobody has: bytes.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        (self.kept.available_permits() + self.free.available_permits()) * UNIT
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

    /// The part of it that holds so many bytes.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(self.0.num_permits());
        Self(self.0.split(units).expect("no more than there is"))
    }
}

/// What one transfer may hold: a base that it has from its beginning, and more for as long as it makes use of it.
#[derive(Debug)]
pub(crate) struct Allowance {
    budget: Budget,
    base: Grant,
    more: Option<Grant>,
}

impl Allowance {
    pub(crate) fn bytes(&self) -> usize {
        self.base.bytes() + self.more.as_ref().map_or(0, Grant::bytes)
    }

    /// Doubles it, up to `most`, if that is free now.
    pub(crate) fn grow(&mut self, most: usize) {
        let wanted = (2 * self.bytes()).min(most);
        if wanted > self.bytes()
            && let Some(grant) = self.budget.more(wanted - self.bytes())
        {
            match &mut self.more {
                Some(more) => more.0.merge(grant.0),
                None => self.more = Some(grant),
            }
        }
    }

    /// Gives back all but the base.
    pub(crate) fn shrink(&mut self) {
        self.more = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn an_allowance_grows_into_what_is_free_and_shrinks_to_its_base() {
        let budget = Budget::new(32 * UNIT, 0);
        let mut one = budget.allowance(UNIT).now_or_never().expect("it is free");
        for units in [2, 4, 8, 10, 10] {
            one.grow(10 * UNIT);
            assert_eq!(one.bytes(), units * UNIT);
        }
        let mut two = budget.allowance(6 * UNIT).now_or_never().expect("it is kept");
        two.grow(100 * UNIT);
        assert_eq!(two.bytes(), 12 * UNIT);
        two.grow(100 * UNIT);
        assert_eq!(two.bytes(), 12 * UNIT, "what is kept is not for growing");
        one.shrink();
        assert_eq!(one.bytes(), UNIT);
        two.grow(15 * UNIT);
        assert_eq!(two.bytes(), 15 * UNIT);
    }

    #[tokio::test]
    async fn whoever_begins_waits_for_nobody_who_has_grown() {
        let budget = Budget::new(8 * LEAST, 0);
        let grown = budget.more(4 * LEAST).expect("it is free");
        let begun: Vec<Grant> = (0..4).filter_map(|_| budget.up_to(2 * LEAST).now_or_never()).collect();
        assert_eq!(begun.iter().map(Grant::bytes).collect::<Vec<_>>(), [LEAST; 4]);
        assert!(budget.up_to(LEAST).now_or_never().is_none(), "it has to wait");
        drop(grown);
        assert_eq!(budget.up_to(LEAST).await.bytes(), LEAST, "what is free is for whoever begins too");
    }

    #[test]
    fn half_is_for_each_direction_and_never_too_little() {
        let memory = Memory::new(64 << 20, 15 << 20);
        assert_eq!(memory.inbound.left() + memory.outbound.left(), 64 << 20);
        let memory = Memory::new(0, 15 << 20);
        assert!(memory.inbound.allowance(15 << 20).now_or_never().is_some());
        assert!(memory.outbound.allowance(4 * LEAST).now_or_never().is_some());
    }
}
