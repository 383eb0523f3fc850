//! The etag, then when the file changed (microseconds), then headers, one a line: conditions hold for what they name.

#![no_main]

use std::sync::LazyLock;

use chrono::{DateTime, Datelike, NaiveDateTime, SubsecRound, Utc};
use imgsrv_fuzz::{head, headers, lines};
use imgsrv_server::conditional::Validators;
use libfuzzer_sys::{Corpus, fuzz_target};
use poem::http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use poem::http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

const NAMES: [HeaderName; 5] = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE];

/// An entity tag, and a list of them (RFC 9110 §8.8.3, §5.6.1), in visible ASCII.
const TAG: &str = r#"(?:W/)?"[!#-~]*""#;
static TAGS: LazyLock<Regex> = LazyLock::new(|| Regex::new(TAG).expect("a pattern"));
static LIST: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!(r"^[ \t]*(?:{TAG})?[ \t]*(?:,[ \t]*(?:{TAG})?[ \t]*)*$")).expect("a pattern"));

/// What a list of tags says, where it is one. What is none must at least name the tag to match it.
fn check_list(value: &HeaderValue, etag: &str, strong: bool, matches: bool) {
    let Ok(text) = value.to_str() else { return assert!(!matches, "{value:?}") };
    if text.trim() == "*" {
        assert!(matches, "{text:?}");
    } else if LIST.is_match(text) {
        let is_ours = |tag: &str| tag == etag || !strong && tag.strip_prefix("W/") == Some(etag);
        assert_eq!(matches, TAGS.find_iter(text).any(|tag| is_ours(tag.as_str())), "{text:?}");
    } else {
        assert!(!matches || text.contains(etag), "{text:?}");
    }
}

/// A date in the one form that is still written, of a year that files here can have.
fn date(text: &str) -> Option<DateTime<Utc>> {
    const FORM: &str = "%a, %d %b %Y %H:%M:%S GMT";
    let date = NaiveDateTime::parse_from_str(text, FORM).ok()?;
    // The parser of chrono takes more than what is written that way.
    let strict = date.format(FORM).to_string() == text && (1970..=9999).contains(&date.year());
    strict.then(|| date.and_utc())
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((etag, rest)) = head(data) else { return Corpus::Reject };
    let Some((modified, rest)) = head(rest) else { return Corpus::Reject };
    let inner = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"'));
    // Ours are strong, and visible ASCII without a quote.
    if !inner.is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')) {
        return Corpus::Reject;
    }
    let modified = modified.parse().ok().and_then(DateTime::from_timestamp_micros);
    let validators = Validators { etag, modified };

    let mut all = HeaderMap::new();
    for line in lines(rest) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = NAMES.into_iter().find(|name| line[..colon].eq_ignore_ascii_case(name.as_str().as_bytes()));
        let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii_start())) else {
            continue;
        };
        let alone = |name: HeaderName| headers(&name, std::slice::from_ref(&value));
        check_list(&value, etag, true, !validators.failed(&alone(IF_MATCH)));
        check_list(&value, etag, false, validators.not_modified(&alone(IF_NONE_MATCH)));
        let changed = validators.failed(&alone(IF_UNMODIFIED_SINCE));
        let unchanged = validators.not_modified(&alone(IF_MODIFIED_SINCE));
        let same = validators.allow_range(&alone(IF_RANGE));
        let text = value.to_str().unwrap_or_default().trim();
        match (date(text), modified.map(|modified| modified.trunc_subsecs(0))) {
            (Some(date), Some(modified)) => {
                assert_eq!((changed, unchanged), (modified > date, modified <= date), "{text:?}");
                assert_eq!(same, modified == date, "{text:?}");
            }
            (None, Some(_)) => {
                assert!(!(changed && unchanged), "{text:?}");
                assert!(!same || unchanged || text == etag, "{text:?}");
                assert!(text != etag || same);
            }
            (_, None) => assert_eq!((changed, unchanged, same), (false, false, text == etag), "{text:?}"),
        }
        all.append(name, value);
    }

    // Together: a tag decides alone where there is one, and what may stand there once is ignored where it stands twice.
    let each = |name: HeaderName| {
        all.get_all(&name).iter().map(|value| headers(&name, std::slice::from_ref(value))).collect::<Vec<_>>()
    };
    let failed = match (&each(IF_MATCH)[..], &each(IF_UNMODIFIED_SINCE)[..]) {
        ([], [date]) => validators.failed(date),
        ([], _) => false,
        (tags, _) => tags.iter().all(|tags| validators.failed(tags)),
    };
    assert_eq!(validators.failed(&all), failed, "{all:?}");
    let not_modified = match (&each(IF_NONE_MATCH)[..], &each(IF_MODIFIED_SINCE)[..]) {
        ([], [date]) => validators.not_modified(date),
        ([], _) => false,
        (tags, _) => tags.iter().any(|tags| validators.not_modified(tags)),
    };
    assert_eq!(validators.not_modified(&all), not_modified, "{all:?}");
    let allow_range = match &each(IF_RANGE)[..] {
        [] => true,
        [one] => validators.allow_range(one),
        _ => false,
    };
    assert_eq!(validators.allow_range(&all), allow_range, "{all:?}");
    Corpus::Keep
});
