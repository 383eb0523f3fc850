//! How a file is cut into parts.

use std::num::NonZeroU64;

use imgsrv_client::types::Part;

/// Small enough to be sent again without regret, large enough that 100 GB are not ten thousand parts.
pub(crate) const USUAL_PART: u64 = 32 << 20;

/// What a server takes: parts of this size, but for the last one, and so many.
const LEAST_PART: u64 = 5 << 20;
const MOST_PARTS: u64 = 10_000;

/// Parts of one size, but for the last one. It follows from the size of the file alone, so that another machine, which
/// knows nothing but the file, cuts it the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    size: u64,
    part: u64,
}

/// Some bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Layout {
    /// Parts of this size, or of the next MiB of which there are not too many.
    pub(crate) fn new(size: u64, part: u64) -> Self {
        let least = size.div_ceil(MOST_PARTS).next_multiple_of(1 << 20);
        Self { size, part: part.max(least) }
    }

    /// The layout that parts which are there already were cut by: the one that is wanted, or that of part 1. (Where any
    /// other one begins is not known.)
    pub(crate) fn of(size: u64, wanted: u64, stored: &[Part]) -> Option<Self> {
        let first = stored.iter().find(|part| part.number == NonZeroU64::MIN);
        let first = first.and_then(|part| u64::try_from(part.size_bytes).ok());
        let as_first = first
            .map(|part| Self { size, part })
            .filter(|layout| layout.part == size || layout.part >= LEAST_PART && layout.count() <= MOST_PARTS);
        let layouts = [Some(Self::new(size, wanted)), as_first];
        layouts.into_iter().flatten().find(|layout| stored.iter().all(|part| layout.has(part)))
    }

    fn has(self, part: &Part) -> bool {
        let number = part.number.get();
        number <= self.count() && i64::try_from(self.piece(number).len) == Ok(part.size_bytes)
    }

    /// An empty file has one part, with nothing in it.
    fn count(self) -> u64 {
        self.size.div_ceil(self.part.max(1)).max(1)
    }

    fn piece(self, number: u64) -> Piece {
        let offset = (number - 1) * self.part;
        Piece { number, offset, len: self.part.min(self.size - offset) }
    }

    pub(crate) fn pieces(self) -> impl Iterator<Item = Piece> {
        (1..=self.count()).map(move |number| self.piece(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn stored(parts: &[(u64, u64)]) -> Vec<Part> {
        let part = |(number, size): &(u64, u64)| Part {
            etag: format!("0123456789abcdef-{size}").parse().unwrap(),
            number: NonZeroU64::new(*number).unwrap(),
            sha256: None,
            size_bytes: i64::try_from(*size).unwrap(),
        };
        parts.iter().map(part).collect()
    }

    #[test]
    fn the_pieces_are_the_file() {
        for (size, count) in
            [(0, 1), (1, 1), (USUAL_PART, 1), (USUAL_PART + 1, 2), (100 << 30, 3200), (10 << 40, 10_000)]
        {
            let pieces: Vec<_> = Layout::new(size, USUAL_PART).pieces().collect();
            assert!(pieces.len() as u64 <= count, "{size} bytes in {} parts", pieces.len());
            let mut end = 0;
            for (piece, number) in pieces.iter().zip(1..) {
                assert_eq!((piece.number, piece.offset), (number, end));
                end += piece.len;
            }
            assert_eq!(end, size);
        }
    }

    #[test]
    fn a_layout_is_recognised_by_what_is_there() {
        let size = 100 * MIB;
        let of = |parts: &[(u64, u64)]| Layout::of(size, USUAL_PART, &stored(parts)).map(|layout| layout.part);
        assert_eq!(of(&[]), Some(USUAL_PART));
        assert_eq!(of(&[(2, USUAL_PART), (4, 4 * MIB)]), Some(USUAL_PART));
        assert_eq!(of(&[(1, 8 * MIB), (3, 8 * MIB)]), Some(8 * MIB));
        assert_eq!(of(&[(1, 8 * MIB), (13, 4 * MIB)]), Some(8 * MIB));
        assert_eq!(of(&[(1, 8 * MIB), (2, 9 * MIB)]), None);
        assert_eq!(of(&[(13, 8 * MIB)]), None, "there are but four mebibytes left for it");
        assert_eq!(of(&[(2, 36 * MIB)]), None, "nobody knows where it begins");
        assert_eq!(of(&[(4, 1000)]), None);
        assert_eq!(of(&[(1, 1000)]), None, "no part but the last is as small");
        assert_eq!(of(&[(1, 0)]), None);
        assert_eq!(of(&[(1, size)]), Some(size));
        assert_eq!(Layout::of(100 << 30, USUAL_PART, &stored(&[(1, 5 * MIB)])), None, "too many parts");
        assert_eq!(Layout::of(0, USUAL_PART, &stored(&[(1, 0)])), Some(Layout::new(0, USUAL_PART)));
    }
}
