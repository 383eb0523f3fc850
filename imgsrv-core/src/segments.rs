//! Which bytes of which objects a blob consists of.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::db::entity::blob_segment;
use crate::db::from_column;
use crate::remembered::Weigh;
use crate::stream::Piece;
use crate::{Error, Result};

/// All segments of a blob, in order.
///
/// They change only as a whole: an upload replaces all objects by its own, or the blob is deleted; and no key is ever used
/// again. So they are never out of date for whoever has seen that the first object is the same.
pub(crate) type Segments = Arc<[blob_segment::Model]>;

/// What a segment takes, about: bytes.
const SEGMENT: u64 = 384;

impl Weigh for Segments {
    fn weight(&self) -> u64 {
        (1 + self.len() as u64) * SEGMENT
    }
}

/// Which bytes of which objects a range is.
pub(crate) fn pieces(segments: &[blob_segment::Model], range: &Range<u64>) -> Result<VecDeque<Piece>> {
    let behind =
        segments.partition_point(|segment| u64::try_from(segment.start).is_ok_and(|start| start <= range.start));
    let mut at = range.start;
    let mut pieces = VecDeque::new();
    for segment in &segments[behind.saturating_sub(1)..] {
        if at >= range.end {
            break;
        }
        let start: u64 = from_column("blob_segments", segment.start)?;
        let size: u64 = from_column("blob_segments", segment.size)?;
        if start > at {
            return Err(Error::bug("a blob has a hole"));
        }
        let end = range.end.min(start + size);
        pieces.push_back(Piece { key: segment.key.clone(), start: at - start, end: end - start, of: size });
        at = end;
    }
    if at == range.end { Ok(pieces) } else { Err(Error::bug("a blob ends before its end")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    fn segments(sizes: &[i64]) -> Vec<blob_segment::Model> {
        let mut start = 0;
        let segment = |(number, size): (usize, &i64)| {
            start += size;
            let digest = Digest::from_sha256([0; 32]);
            blob_segment::Model { digest, start: start - size, size: *size, key: number.to_string() }
        };
        sizes.iter().enumerate().map(segment).collect()
    }

    fn found(range: Range<u64>) -> Vec<(String, Range<u64>)> {
        let pieces = pieces(&segments(&[10, 1, 20]), &range).expect("all of it");
        pieces.into_iter().map(|piece| (piece.key, piece.start..piece.end)).collect()
    }

    #[test]
    fn a_range_is_pieces_of_the_segments_that_it_touches() {
        let piece = |key: &str, range| (key.to_owned(), range);
        assert_eq!(found(0..31), [piece("0", 0..10), piece("1", 0..1), piece("2", 0..20)]);
        assert_eq!(found(9..12), [piece("0", 9..10), piece("1", 0..1), piece("2", 0..1)]);
        assert_eq!(found(10..11), [piece("1", 0..1)]);
        assert_eq!(found(30..31), [piece("2", 19..20)]);
        assert_eq!(found(0..1), [piece("0", 0..1)]);
        assert_eq!(found(5..5), []);
    }

    #[test]
    fn a_hole_and_an_end_too_early_are_bugs() {
        let mut holed = segments(&[10, 1, 20]);
        holed.remove(1);
        assert!(pieces(&holed, &(9..12)).is_err());
        assert!(pieces(&holed, &(9..10)).is_ok());
        assert!(pieces(&holed, &(30..32)).is_err());
        assert!(pieces(&[], &(0..1)).is_err());
    }
}
