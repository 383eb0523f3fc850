//! The values of `Accept-Encoding` or `Accept`, one a line: weights are those of the grammar, and the best one wins.

#![no_main]

use std::sync::LazyLock;

use imgsrv_fuzz::{headers, values};
use imgsrv_server::fuzzing::{coding, named, weight};
use libfuzzer_sys::fuzz_target;
use poem::http::header::ACCEPT_ENCODING;
use regex::Regex;

const NAMES: [&str; 8] = ["zstd", "gzip", "identity", "*", "text/html", "text/*", "application/json", "*/*"];

/// A wish without parameters of its own (RFC 9110 §12.4.2).
static WISH: LazyLock<Regex> = LazyLock::new(|| {
    let pattern =
        r"^[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z/-]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*$";
    Regex::new(pattern).expect("a pattern")
});

/// A text that the grammar does not know.
struct Unknown;

/// What the grammar says of a name in thousandths, if anything.
fn by_grammar(text: &str, name: &str) -> Result<Option<u16>, Unknown> {
    let mut found = None;
    for element in text.split(',').filter(|element| !element.trim_matches([' ', '\t']).is_empty()) {
        let wish = WISH.captures(element).ok_or(Unknown)?;
        if found.is_none() && wish[1].eq_ignore_ascii_case(name) {
            let weight = wish.get(2).map_or("1", |weight| weight.as_str()).parse::<f64>().expect("a number") * 1000.0;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
            let weight = weight.round() as u16;
            found = Some(weight);
        }
    }
    Ok(found)
}

fuzz_target!(|data: &[u8]| {
    let values = values(data);
    let wishes = headers(&ACCEPT_ENCODING, &values);
    let text = values.iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    for name in NAMES {
        let said = named(&wishes, &ACCEPT_ENCODING, name);
        assert!(said.is_none_or(|weight| weight <= 1000), "{text:?}: {said:?}");
        assert!(said.is_none() || text.to_ascii_lowercase().contains(name), "{text:?} says nothing of {name}");
        if let Ok(expected) = by_grammar(&text, name) {
            assert_eq!(said, expected, "{text:?} of {name}");
        }
        let wild = named(&wishes, &ACCEPT_ENCODING, "*");
        assert_eq!(weight(&wishes, &ACCEPT_ENCODING, name, &["*"]), said.or(wild).unwrap_or(0));
    }
    let of = |name| weight(&wishes, &ACCEPT_ENCODING, name, &["*"]);
    let plain = named(&wishes, &ACCEPT_ENCODING, "identity").unwrap_or(0);
    let best = of("zstd").max(of("gzip"));
    match coding(&wishes) {
        Some(name) => assert!(of(name) == best && best > 0 && best >= plain, "{text:?}: {name}"),
        None => assert!(best == 0 || best < plain, "{text:?}"),
    }
});
