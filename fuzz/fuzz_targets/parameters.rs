//! A parameter of a request, or a member in JSON: both ways in take the same for the same.

#![no_main]

use chrono::Datelike;
use imgsrv_core::model::ImageName;
use imgsrv_server::fuzzing::{id, image_name, limit, part_number, show_timestamp, size, timestamp};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A whole number in the digits of a parameter.
fn whole(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What is longer is outside of all limits, but may begin with nothing but zeros.
    let significant = digits.trim_start_matches('0');
    let number = if significant.len() > 30 { i128::MAX } else { significant.parse().unwrap_or(0) };
    Some(if text.starts_with('-') { -number } else { number })
}

/// What a parameter is taken for, and what a member is.
type Both<T> = (Option<T>, Option<T>);

fn check_number<T: Copy + PartialEq + std::fmt::Debug + Into<i128>>(
    text: &str,
    member: &Value,
    parse: fn(&str, Value) -> Both<T>,
    limits: std::ops::RangeInclusive<i128>,
) {
    let (parameter, member_read) = parse(text, member.clone());
    let expected = whole(text).filter(|number| limits.contains(number));
    assert_eq!(parameter.map(Into::into), expected, "{text:?}");
    let expected = member.as_number().and_then(serde_json::Number::as_i128).filter(|number| limits.contains(number));
    assert_eq!(member_read.map(Into::into), expected, "{member}");
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let member = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    check_number(text, &member, size, 0..=i64::MAX.into());
    check_number(text, &member, part_number, 1..=10_000);
    check_number(text, &member, limit, 1..=1000);

    let same = Value::from(text);
    let (parameter, member) = id(text, same.clone());
    assert_eq!(parameter, member);
    assert!(parameter.is_none_or(|id| id.to_string() == text.to_ascii_lowercase()), "{text:?}");

    let (parameter, member) = image_name(text, same.clone());
    assert_eq!(parameter, member);
    assert_eq!(parameter, text.parse::<ImageName>().ok());

    let (parameter, member) = timestamp(text, same);
    assert_eq!(parameter, member);
    // At the ends of the calendar another offset is another year, which RFC 3339 cannot write.
    if let Some(at) = parameter.filter(|at| (0..=9999).contains(&at.year())) {
        let Some(Value::String(shown)) = show_timestamp(at) else { panic!("{at} is not shown") };
        assert!(shown.ends_with('Z') && shown.len() <= "2026-11-23T10:00:00.123456Z".len(), "{shown}");
        assert_eq!(timestamp(&shown, shown.clone().into()), (Some(at), Some(at)), "{text:?}");
    }
});
