//! Byte ranges of a request (RFC 9110 §14).

use std::ops::Range;

use poem::http::{HeaderMap, header};

/// Which bytes to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All: no range was asked for, or none that this server takes.
    Whole,
    /// These, never none.
    Part(Range<u64>),
    /// No byte is in the range that was asked for.
    Unsatisfiable,
}

/// What the `Range` header selects from a representation of `size` bytes.
pub fn select(headers: &HeaderMap, size: u64) -> Selection {
    let mut values = headers.get_all(header::RANGE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_or(Selection::Whole, |value| parse(value, size)),
        _ => Selection::Whole,
    }
}

/// What one value of the header selects from a representation of `size` bytes.
///
/// Several ranges select the whole: RFC 9110 §14.2 lets a server ignore what costs it more than it helps.
pub fn parse(value: &str, size: u64) -> Selection {
    let Some((unit, range)) = value.split_once('=') else { return Selection::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    match range.trim_matches([' ', '\t']).split_once('-') {
        Some(("", suffix)) => number(suffix).map_or(Selection::Whole, |length| last(length, size)),
        Some((first, "")) => number(first).map_or(Selection::Whole, |first| between(first, u64::MAX, size)),
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => between(first, last, size),
            _ => Selection::Whole,
        },
        None => Selection::Whole,
    }
}

fn between(first: u64, last: u64, size: u64) -> Selection {
    if first < size { Selection::Part(first..last.saturating_add(1).min(size)) } else { Selection::Unsatisfiable }
}

fn last(length: u64, size: u64) -> Selection {
    match (length, size) {
        (0, _) => Selection::Unsatisfiable,
        // Satisfiable, but a Content-Range cannot name the bytes of an empty representation.
        (_, 0) => Selection::Whole,
        _ => Selection::Part(size.saturating_sub(length)..size),
    }
}

/// Digits only; a number beyond 64 bits is beyond every representation too.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    #[test]
    fn one_range_is_taken_and_clamped() {
        for (value, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-99", 0..100),
            ("bytes=10-19", 10..20),
            ("bytes=90-1000", 90..100),
            ("bytes=99-", 99..100),
            ("bytes=0-", 0..100),
            ("bytes=-1", 99..100),
            ("bytes=-100", 0..100),
            ("bytes=-1000", 0..100),
            ("BYTES=1-2", 1..3),
            ("bytes= 1-2 ", 1..3),
            ("bytes=00001-2", 1..3),
            ("bytes=5-18446744073709551615", 5..100),
            ("bytes=5-99999999999999999999999", 5..100),
            ("bytes=-99999999999999999999999", 0..100),
        ] {
            assert_eq!(parse(value, 100), Selection::Part(expected), "{value}");
        }
    }

    #[test]
    fn a_range_without_bytes_is_unsatisfiable() {
        for value in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(parse(value, 100), Selection::Unsatisfiable, "{value}");
        }
        assert_eq!(parse("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(parse("bytes=0-0", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn what_is_malformed_or_several_selects_the_whole() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-a",
            "bytes=2-1",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=1-2,4-5",
            "bytes=,1-2",
            "bytes=1-2,",
            "bytes=--1",
            "bytes=1-2-3",
            "items=0-1",
            "bytes =0-1",
            "bytes=0x1-2",
            "bytes=１-2",
        ] {
            assert_eq!(parse(value, 100), Selection::Whole, "{value}");
        }
        assert_eq!(parse("bytes=-5", 0), Selection::Whole);
    }

    #[test]
    fn two_headers_select_the_whole() {
        let mut headers = HeaderMap::new();
        assert_eq!(select(&headers, 100), Selection::Whole);
        headers.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(select(&headers, 100), Selection::Part(0..2));
        headers.append(header::RANGE, HeaderValue::from_static("bytes=4-5"));
        assert_eq!(select(&headers, 100), Selection::Whole);
    }

    #[test]
    fn a_selected_part_is_never_empty_and_never_outside() {
        let numbers = ["", "0", "1", "4", "5", "6", "18446744073709551615", "18446744073709551616"];
        for first in numbers {
            for last in numbers {
                for size in [0, 1, 5, u64::MAX] {
                    if let Selection::Part(range) = parse(&format!("bytes={first}-{last}"), size) {
                        assert!(range.start < range.end && range.end <= size, "{first}-{last} of {size}");
                    }
                }
            }
        }
    }
}
