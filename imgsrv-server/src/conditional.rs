//! Conditions of a request (RFC 9110 §13).

use chrono::{DateTime, SubsecRound, Utc};
use poem::http::{HeaderMap, HeaderValue, header};

/// What the current representation is compared by.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// Its strong entity tag, with the quotes.
    pub etag: &'a str,
    /// When it last changed, where that is known.
    pub modified: Option<DateTime<Utc>>,
}

impl Validators<'_> {
    /// Whether the client insists on another representation than the current one (412).
    pub fn failed(&self, headers: &HeaderMap) -> bool {
        // If-Match decides alone where it is present (RFC 9110 §13.2.2). Weak tags never match it, and ours are strong.
        if headers.contains_key(header::IF_MATCH) {
            let lists_ours =
                |value: &HeaderValue| value.to_str().is_ok_and(|list| lists(list, self.etag, Weak::Differs));
            return !headers.get_all(header::IF_MATCH).iter().any(lists_ours);
        }
        let mut dates = headers.get_all(header::IF_UNMODIFIED_SINCE).iter();
        match (dates.next(), dates.next(), self.modified) {
            (Some(date), None, Some(modified)) => {
                date.to_str().ok().and_then(http_date).is_some_and(|date| modified.trunc_subsecs(0) > date)
            }
            _ => false,
        }
    }

    /// Whether the client has the current representation already (304).
    pub fn not_modified(&self, headers: &HeaderMap) -> bool {
        // If-None-Match decides alone where it is present, even when nothing in it matches (RFC 9110 §13.2.2).
        if headers.contains_key(header::IF_NONE_MATCH) {
            return headers
                .get_all(header::IF_NONE_MATCH)
                .iter()
                .any(|value| value.to_str().is_ok_and(|list| lists(list, self.etag, Weak::Equals)));
        }
        let mut dates = headers.get_all(header::IF_MODIFIED_SINCE).iter();
        match (dates.next(), dates.next(), self.modified) {
            (Some(date), None, Some(modified)) => {
                date.to_str().ok().and_then(http_date).is_some_and(|date| modified.trunc_subsecs(0) <= date)
            }
            _ => false,
        }
    }

    /// Whether a `Range` header may be heeded: there is no `If-Range`, or it names the current representation.
    pub fn allow_range(&self, headers: &HeaderMap) -> bool {
        let mut conditions = headers.get_all(header::IF_RANGE).iter();
        match (conditions.next(), conditions.next()) {
            (None, _) => true,
            (Some(condition), None) => condition.to_str().is_ok_and(|condition| self.is(condition.trim())),
            (Some(_), Some(_)) => false,
        }
    }

    /// Strong comparison; a date has to be the very one that was given out (RFC 9110 §13.1.5).
    fn is(&self, condition: &str) -> bool {
        condition == self.etag
            || self.modified.is_some_and(|modified| http_date(condition) == Some(modified.trunc_subsecs(0)))
    }
}

/// What a weak entity tag is to a strong one with the same text (RFC 9110 §8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weak {
    Equals,
    Differs,
}

/// Whether a list of entity tags holds this strong one. `*` holds every one.
fn lists(list: &str, etag: &str, weak: Weak) -> bool {
    if list.trim() == "*" {
        return true;
    }
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let opaque = rest.strip_prefix("W/").unwrap_or(rest);
        // The comma separates tags and may stand in one, so the closing quote decides where a tag ends.
        let Some(end) = opaque.strip_prefix('"').and_then(|inner| inner.find('"')) else { return false };
        let (tag, after) = opaque.split_at(end + 2);
        if tag == etag && (weak == Weak::Equals || !rest.starts_with("W/")) {
            return true;
        }
        rest = after;
    }
}

/// The three forms of RFC 9110 §5.6.7.
fn http_date(text: &str) -> Option<DateTime<Utc>> {
    httpdate::parse_http_date(text.trim()).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderName;

    use super::*;

    const ETAG: &str = "\"sha256:abc\"";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn validators() -> Validators<'static> {
        let modified: DateTime<Utc> = "1994-11-06T08:49:37.654321Z".parse().unwrap();
        Validators { etag: ETAG, modified: Some(modified) }
    }

    fn none_match(value: &str) -> bool {
        validators().not_modified(&headers(&[(header::IF_NONE_MATCH, value)]))
    }

    fn modified_since(value: &str) -> bool {
        validators().not_modified(&headers(&[(header::IF_MODIFIED_SINCE, value)]))
    }

    fn failed(name: HeaderName, value: &str) -> bool {
        validators().failed(&headers(&[(name, value)]))
    }

    fn if_range(value: &str) -> bool {
        validators().allow_range(&headers(&[(header::IF_RANGE, value)]))
    }

    #[test]
    fn if_match_compares_strongly_with_a_list() {
        for value in ["*", ETAG, "\"x\", \"sha256:abc\"", "W/\"x\",\"sha256:abc\""] {
            assert!(!failed(header::IF_MATCH, value), "{value}");
        }
        for value in ["", "x", "\"x\"", "W/\"sha256:abc\"", "sha256:abc"] {
            assert!(failed(header::IF_MATCH, value), "{value}");
        }
        let both = [(header::IF_MATCH, ETAG), (header::IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT")];
        assert!(!validators().failed(&headers(&both)), "the tag decides alone");
        assert!(!validators().failed(&HeaderMap::new()));
    }

    #[test]
    fn if_unmodified_since_fails_for_what_changed_later() {
        assert!(failed(header::IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT"));
        for value in [MODIFIED, "Sun, 06 Nov 1994 08:49:38 GMT", "yesterday"] {
            assert!(!failed(header::IF_UNMODIFIED_SINCE, value), "{value}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly_with_a_list() {
        for value in [
            "*",
            " * ",
            ETAG,
            "W/\"sha256:abc\"",
            "\"x\", \"sha256:abc\"",
            "\"x\",W/\"y\"  ,\t\"sha256:abc\", \"z\"",
            ", \"sha256:abc\"",
            "\"a,b\", \"sha256:abc\"",
            "\"\", \"sha256:abc\"",
        ] {
            assert!(none_match(value), "{value}");
        }
        for value in [
            "",
            "\"\"",
            "\"x\"",
            "sha256:abc",
            "\"sha256:abc",
            "w/\"sha256:abc\"",
            "\"x\", *",
            "\"SHA256:ABC\"",
            "\"x, \"sha256:abc\"",
            "W/",
            "W/\"",
        ] {
            assert!(!none_match(value), "{value}");
        }
    }

    #[test]
    fn if_none_match_may_come_in_several_headers() {
        let mut several = headers(&[(header::IF_NONE_MATCH, "\"x\"")]);
        several.append(header::IF_NONE_MATCH, HeaderValue::from_static(ETAG));
        assert!(validators().not_modified(&several));
    }

    #[test]
    fn if_modified_since_counts_whole_seconds() {
        assert!(modified_since(MODIFIED));
        assert!(modified_since("Sunday, 06-Nov-94 08:49:38 GMT"));
        assert!(modified_since("Sun Nov  6 08:49:37 1994"));
        assert!(!modified_since("Sun, 06 Nov 1994 08:49:36 GMT"));
        assert!(!modified_since("yesterday"));
        assert!(!modified_since(""));
    }

    #[test]
    fn if_none_match_silences_if_modified_since() {
        let both = headers(&[(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, MODIFIED)]);
        assert!(!validators().not_modified(&both));
    }

    #[test]
    fn nothing_is_conditional_without_a_condition() {
        assert!(!validators().not_modified(&HeaderMap::new()));
        assert!(validators().allow_range(&HeaderMap::new()));
        let undated = Validators { etag: ETAG, modified: None };
        assert!(!undated.not_modified(&headers(&[(header::IF_MODIFIED_SINCE, MODIFIED)])));
    }

    #[test]
    fn if_range_compares_strongly_or_by_the_exact_date() {
        assert!(if_range(ETAG));
        assert!(if_range(MODIFIED));
        for value in [
            "W/\"sha256:abc\"",
            "\"x\"",
            "*",
            "sha256:abc",
            "Sun, 06 Nov 1994 08:49:38 GMT",
            "",
            "\"x\", \"sha256:abc\"",
        ] {
            assert!(!if_range(value), "{value}");
        }
    }
}
