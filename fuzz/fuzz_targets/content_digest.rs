//! The values of `Content-Digest`, one a line: a digest that is found is written there, and another parser agrees.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imgsrv_fuzz::{headers, values};
use imgsrv_server::content_digest::{Malformed, parse, sha256};
use libfuzzer_sys::fuzz_target;
use poem::http::HeaderName;
use sfv::{BareItem, Dictionary, ListEntry, Parser, Version};

/// The SHA-256, if the header has one.
type Found = Result<Option<[u8; 32]>, Malformed>;

/// What `sfv` says; `None` where it finds no dictionary of byte sequences. It forgets a member when another one of its
/// name follows, and here each is looked at.
fn by_sfv(text: &str) -> Option<(Found, bool)> {
    let members = Parser::new(text).with_version(Version::Rfc8941).parse::<Dictionary>().ok()?;
    let (mut found, mut forgets) = (None, false);
    for (key, member) in &members {
        let ListEntry::Item(item) = member else { return None };
        let BareItem::ByteSequence(bytes) = &item.bare_item else { return None };
        forgets |= text.matches(key.as_str()).count() > 1;
        if key.as_str() == "sha-256" {
            found = Some(bytes.as_slice().try_into().map_err(|_| Malformed));
        }
    }
    Some((found.transpose(), forgets))
}

fuzz_target!(|data: &[u8]| {
    let values = values(data);
    let result = sha256(&headers(&HeaderName::from_static("content-digest"), &values));
    let Ok(texts) = values.iter().map(|value| value.to_str()).collect::<Result<Vec<_>, _>>() else {
        return assert_eq!(result, Err(Malformed));
    };
    let text = texts.join(", ");
    assert_eq!(result, parse(&text));

    if let Some((expected, forgets)) = by_sfv(&text) {
        assert!(result == expected || forgets && result == Err(Malformed), "{text:?}: {result:?}, not {expected:?}");
    }
    if let Ok(Some(found)) = result {
        // The bits that are left of the last character do not count.
        let encoded = STANDARD.encode(found);
        assert!(text.contains(&format!("sha-256=:{}", &encoded[..42])), "{text:?}: {encoded}");
        assert_eq!(parse(&format!("sha-256=:{encoded}:")), result);
    }
    if result.is_ok() && !text.trim_matches(' ').is_empty() {
        let another = [7; 32];
        let longer = format!("{}, sha-256=:{}:", text, STANDARD.encode(another));
        assert_eq!(parse(&longer), Ok(Some(another)), "{longer:?}");
    }
});
