//! The values of `Authorization`, one a line, and what else names somebody or something in a request: what is taken is
//! taken as it is, and the secret of a token is not shown.

#![no_main]

use std::sync::LazyLock;

use imgsrv_fuzz::{headers, lines, values};
use imgsrv_server::fuzzing::{OPAQUE_ID, bearer, opaque_id, request_id, token};
use libfuzzer_sys::fuzz_target;
use poem::Request;
use poem::http::header::AUTHORIZATION;
use regex::Regex;

static BEARER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[ \t]*(?i:bearer)[ \t]+([!-~]+)[ \t]*$").expect("a pattern"));
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^imgsrv_at_[0-9a-f]{32}_([0-9a-f]{64})$").expect("a pattern"));
static ID: LazyLock<Regex> = LazyLock::new(|| Regex::new(OPAQUE_ID).expect("a pattern"));

fn check_token(text: &str) {
    let found = token(text);
    let expected = TOKEN.captures(text);
    assert_eq!(found.is_some(), expected.is_some(), "{text:?}");
    if let (Some(token), Some(expected)) = (found, expected) {
        assert_eq!(token.reveal(), text);
        assert!(!format!("{token:?}").contains(&expected[1]), "{token:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let values = values(data);
    let headers = headers(&AUTHORIZATION, &values);
    let expected = match &values[..] {
        [value] => value.to_str().ok().and_then(|value| BEARER.captures(value)),
        _ => None,
    };
    let found = bearer(&headers);
    assert_eq!(found, expected.as_ref().and_then(|found| found.get(1)).map(|token| token.as_str()), "{values:?}");
    found.into_iter().for_each(check_token);

    for line in lines(data) {
        let Ok(text) = std::str::from_utf8(line) else { continue };
        check_token(text);
        assert_eq!(opaque_id(text).as_deref(), Some(text).filter(|text| ID.is_match(text)), "{text:?}");
    }
    for value in &values {
        let request = Request::builder().header("x-request-id", value).finish();
        let id = request_id(&request).expect("every id can stand in a header");
        assert!((1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic), "{id:?}");
        let usable = (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
        assert!(!usable || id == *value, "{value:?} became {id:?}");
    }
});
