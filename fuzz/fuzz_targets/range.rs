//! The size of a file, then the values of `Range`, one a line: a part lies in the file and is what the text asks for.

#![no_main]

use std::sync::LazyLock;

use imgsrv_fuzz::{head, headers, values};
use imgsrv_server::range::{Selection, parse, select};
use libfuzzer_sys::{Corpus, fuzz_target};
use poem::http::header::RANGE;
use regex::Regex;

static ONE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?i:bytes)=[ \t]*([0-9]*)-([0-9]*)[ \t]*$").expect("a pattern"));

/// Numbers above 64 bits count as the greatest of them.
fn number(digits: &str) -> u128 {
    let digits = digits.trim_start_matches('0');
    if digits.len() > 20 { u64::MAX.into() } else { digits.parse().unwrap_or(0).min(u64::MAX.into()) }
}

/// The same in wide numbers, of one range with both ends inside.
fn expected(value: &str, size: u64) -> Selection {
    let Some((_, [first, last])) = ONE.captures(value).map(|found| found.extract()) else { return Selection::Whole };
    let size = u128::from(size);
    let (first, end) = match (first, last) {
        ("", "") => return Selection::Whole,
        ("", suffix) if size == 0 && number(suffix) > 0 => return Selection::Whole,
        ("", suffix) => (size - number(suffix).min(size), size),
        (first, "") => (number(first), size),
        (first, last) if number(first) > number(last) => return Selection::Whole,
        (first, last) => (number(first), size.min(number(last) + 1)),
    };
    if first < end {
        Selection::Part(first.try_into().expect("below the size")..end.try_into().expect("at most the size"))
    } else {
        Selection::Unsatisfiable
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((size, rest)) = head(data) else { return Corpus::Reject };
    let Ok(size) = size.parse::<u64>() else { return Corpus::Reject };
    let values = values(rest);
    let selected = select(&headers(&RANGE, &values), size);
    match &values[..] {
        [value] => match value.to_str() {
            Ok(value) => {
                assert_eq!(selected, expected(value, size), "{value:?} of {size}");
                assert_eq!(selected, parse(value, size));
            }
            Err(_) => assert_eq!(selected, Selection::Whole),
        },
        _ => assert_eq!(selected, Selection::Whole),
    }
    if let Selection::Part(range) = &selected {
        assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
        // What a Content-Range says can be asked for again.
        assert_eq!(parse(&format!("bytes={}-{}", range.start, range.end - 1), size), selected);
    }
    Corpus::Keep
});
