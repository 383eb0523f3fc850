//! Running checksums of an object: of its first block, of its first two, and so on up to the whole.
//!
//! What stands between two of them can be checked by these two, so the check of a range costs no more than its blocks,
//! and the last one is that of the whole object.

use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};

use crate::remembered::Weigh;

/// What is checked at once: bytes. Small enough for a range of 4 KiB, and 128 bytes of checksums for each MiB.
pub(crate) const BLOCK: usize = 64 << 10;

/// Where in its block a byte stands.
pub(crate) fn in_block(at: u64) -> usize {
    usize::try_from(at % BLOCK as u64).expect("less than a block")
}

const EACH: usize = size_of::<u64>();

/// CRC-64/NVME of everything so far, and what it was at the end of each block.
pub(crate) struct Running {
    crc: Crc,
    size: u64,
    after_blocks: Vec<u8>,
}

impl Default for Running {
    fn default() -> Self {
        Self { crc: Crc::new(CrcAlgorithm::Crc64Nvme), size: 0, after_blocks: Vec::new() }
    }
}

impl Running {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = in_block(self.size);
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - filled));
            self.crc.update(now);
            self.size += now.len() as u64;
            if filled + now.len() == BLOCK {
                self.after_blocks.extend(self.whole().to_be_bytes());
            }
            bytes = later;
        }
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The checksum of everything so far.
    pub(crate) fn whole(&self) -> u64 {
        self.crc.finalize()
    }

    /// All of them: eight bytes each, the most significant one first.
    pub(crate) fn save(&self) -> Vec<u8> {
        let mut saved = self.after_blocks.clone();
        if in_block(self.size) > 0 {
            saved.extend(self.whole().to_be_bytes());
        }
        saved
    }
}

/// The checksums of a whole object.
#[derive(Clone, Debug)]
pub(crate) struct Checksums(Arc<[u8]>);

impl Checksums {
    /// What [`Running::save`] gave.
    pub(crate) fn saved(saved: Vec<u8>) -> Self {
        Self(saved.into())
    }

    /// The checksum of the first so many blocks, or of the whole where the last one is no full one.
    fn of_first(&self, blocks: u64) -> Option<u64> {
        let Some(last) = blocks.checked_sub(1) else { return Some(0) };
        let at = usize::try_from(last).ok()?.checked_mul(EACH)?;
        Some(u64::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    /// Whether these are the bytes that stand in the object from `start` on; they begin and end with a block.
    pub(crate) fn agree(&self, start: u64, bytes: impl IntoIterator<Item = Bytes>) -> bool {
        let of_first = |bytes: u64| self.of_first(bytes.div_ceil(BLOCK as u64));
        let Some(before) = of_first(start) else { return false };
        // The state of this CRC is its value, inverted.
        let mut crc = Crc::new_with_init_state(CrcAlgorithm::Crc64Nvme, !before);
        for bytes in bytes {
            crc.update(&bytes);
        }
        of_first(start + crc.get_amount()) == Some(crc.finalize())
    }
}

/// What an object takes besides its checksums, about: bytes.
const ENTRY: u64 = 256;

impl Weigh for Checksums {
    fn weight(&self) -> u64 {
        ENTRY + self.0.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remembered::Remembered;

    fn random(size: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(size as u64);
        std::iter::repeat_with(|| random.u8(..)).take(size).collect()
    }

    fn checksums(bytes: &[u8], frame: usize) -> Checksums {
        let mut running = Running::default();
        for bytes in bytes.chunks(frame) {
            running.update(bytes);
        }
        assert_eq!(running.size(), bytes.len() as u64);
        assert_eq!(running.whole(), crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes));
        Checksums::saved(running.save())
    }

    const SIZES: [usize; 6] = [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 4321];

    #[test]
    fn there_is_one_for_each_block_whatever_came_at_once() {
        for size in SIZES {
            let bytes = random(size);
            for frame in [777, BLOCK, 3 * BLOCK + 1] {
                let saved = checksums(&bytes, frame);
                let each = bytes.chunks(BLOCK).scan(0, |end, block| {
                    *end += block.len();
                    Some(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes[..*end]).to_be_bytes())
                });
                assert_eq!(*saved.0, *each.collect::<Vec<_>>().concat());
            }
        }
    }

    #[test]
    fn what_the_largest_object_has_is_remembered() {
        let remembered = Remembered::<String, _>::default();
        for key in ["one", "two"] {
            remembered.put(key.to_owned(), Checksums::saved(vec![0; (5 << 30) / BLOCK * EACH]));
        }
        assert!(remembered.get("one").is_some() && remembered.get("two").is_some());
        remembered.forget("one");
        assert!(remembered.get("one").is_none() && remembered.get("two").is_some());
    }

    #[test]
    fn any_blocks_can_be_checked() {
        for size in SIZES {
            let bytes = random(size);
            let saved = checksums(&bytes, 1000);
            let ends: Vec<usize> = (0..size).step_by(BLOCK).skip(1).chain([size]).collect();
            for start in (0..size).step_by(BLOCK) {
                for end in ends.iter().copied().filter(|end| *end > start) {
                    let (first, second) = bytes[start..end].split_at((end - start) / 3);
                    let whole = [first, second].map(Bytes::copy_from_slice);
                    assert!(saved.agree(start as u64, whole));
                    for at in [0, (end - start) / 2, end - start - 1] {
                        let mut other = bytes[start..end].to_vec();
                        other[at] ^= 0x40;
                        assert!(!saved.agree(start as u64, [other.into()]));
                    }
                }
            }
            let behind = size.next_multiple_of(BLOCK) as u64;
            assert!(!saved.agree(behind, [vec![0; 7].into()]), "there is nothing behind the end");
        }
    }
}
