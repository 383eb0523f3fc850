//! Bytes that are known by a number, so that nobody has to keep them.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use bytes::Bytes;

use crate::server::{bytes, digest};

/// The least size of a part that is not the last one.
pub(super) const PART: usize = 5 << 20;

/// The largest part. A store that speaks S3 is given it in several pieces.
pub(super) const LARGEST: usize = 11 << 20;

/// The bytes that are a part's own.
const OWN: usize = 1000;

/// To make up so many bytes takes longer than anything that is done with them.
static COMMON: LazyLock<Bytes> = LazyLock::new(|| bytes(1, LARGEST).into());

/// Which bytes are meant, and in which parts they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Content {
    pub(super) seed: u64,
    pub(super) size: usize,
    pub(super) part_size: usize,
}

impl Content {
    pub(super) fn small(seed: u64) -> Self {
        Self { seed, size: 60_000, part_size: PART }
    }

    pub(super) fn of_two_parts(seed: u64) -> Self {
        Self { seed, size: PART + 1000, part_size: PART }
    }

    pub(super) fn of_one_large_part(seed: u64) -> Self {
        Self { seed, size: LARGEST, part_size: LARGEST }
    }

    /// As many bytes, in as many parts, and other ones.
    pub(super) fn other(self) -> Self {
        Self { seed: !self.seed, ..self }
    }

    pub(super) fn numbers(self) -> RangeInclusive<u32> {
        1..=u32::try_from(self.size.div_ceil(self.part_size)).expect("few parts")
    }

    pub(super) fn part(self, number: u32) -> Bytes {
        let size = self.part_size.min(self.size - (number as usize - 1) * self.part_size);
        let own = bytes(self.seed.wrapping_mul(31).wrapping_add(number.into()), OWN.min(size));
        [&own[..], &COMMON[own.len()..size]].concat().into()
    }

    pub(super) fn digest(self) -> String {
        let parts: Vec<Bytes> = self.numbers().map(|number| self.part(number)).collect();
        digest(&parts.concat())
    }
}
