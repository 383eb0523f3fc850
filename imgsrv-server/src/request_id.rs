//! The id by which a client, a log and a problem speak of one request.

use imgsrv_core::Clock;
use poem::Request;
use poem::http::HeaderValue;

/// The header that carries it, both ways.
pub(crate) const HEADER: &str = "x-request-id";

/// Longer ones are replaced, so that a client cannot fill the log.
const MAX: usize = 128;

/// The client's own id where it is usable, else a fresh one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(String);

impl RequestId {
    pub(crate) fn of(request: &Request, clock: &Clock) -> Self {
        Self(
            request.header(HEADER).filter(|id| is_usable(id)).map_or_else(|| clock.new_id().to_string(), str::to_owned),
        )
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

fn is_usable(id: &str) -> bool {
    (1..=MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_ascii_of_up_to_128_characters_is_kept() {
        assert!(is_usable("a"));
        assert!(is_usable(&"~".repeat(MAX)));
        assert!(!is_usable(""));
        assert!(!is_usable(&"a".repeat(MAX + 1)));
        assert!(!is_usable("a b"));
        assert!(!is_usable("tab\t"));
        assert!(!is_usable("é"));
    }
}
