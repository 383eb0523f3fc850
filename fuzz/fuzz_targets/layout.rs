//! The size of a file and of its parts, then which parts there are, as `NUMBER SIZE`: the pieces are the file, and fit
//! what is there.

#![no_main]

use std::num::NonZeroU64;

use imgsrv_cli::fuzzing::pieces;
use imgsrv_client::types::Part;
use imgsrv_fuzz::head;
use libfuzzer_sys::{Corpus, fuzz_target};

fn part(line: &str) -> Option<Part> {
    let (number, size) = line.split_once(' ')?;
    let (number, size_bytes) = (number.parse::<NonZeroU64>().ok()?, size.parse().ok()?);
    Some(Part { etag: "0123456789abcdef-1".parse().ok()?, number, sha256: None, size_bytes })
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((sizes, rest)) = head(data) else { return Corpus::Reject };
    let Some((size, wanted)) = sizes.split_once(' ') else { return Corpus::Reject };
    let (Ok(size), Ok(wanted)) = (size.parse::<u64>(), wanted.parse::<u64>()) else { return Corpus::Reject };
    let Ok(rest) = std::str::from_utf8(rest) else { return Corpus::Reject };
    let stored: Vec<Part> = rest.lines().filter_map(part).collect();
    // No file is larger, and the flag takes no other sizes of parts.
    if i64::try_from(size).is_err() || !(5 << 20..=5120 << 20).contains(&wanted) {
        return Corpus::Reject;
    }
    let Some(pieces) = pieces(size, wanted, &stored) else {
        assert!(!stored.is_empty(), "{size} bytes cannot be cut");
        return Corpus::Keep;
    };
    let pieces: Vec<_> = pieces.collect();
    assert!((1..=10_000).contains(&pieces.len()), "{} parts", pieces.len());
    let mut end = 0;
    for (at, (number, offset, len)) in pieces.iter().enumerate() {
        assert_eq!((*number, *offset), (at as u64 + 1, end));
        assert!(*len > 0 || size == 0);
        assert!(*len >= 5 << 20 || at + 1 == pieces.len(), "{len} bytes are too few for part {number}");
        end += len;
    }
    assert_eq!(end, size);
    for part in &stored {
        let (_, _, len) = pieces[usize::try_from(part.number.get()).expect("a number") - 1];
        assert_eq!(i64::try_from(len), Ok(part.size_bytes), "part {}", part.number);
    }
    Corpus::Keep
});
