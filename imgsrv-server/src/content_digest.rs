//! The `Content-Digest` header (RFC 9530): a dictionary of byte sequences (RFC 8941).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use poem::http::HeaderMap;

/// The name of the header, as the specification shows it.
pub(crate) const HEADER: &str = "Content-Digest";

/// RFC 8941 §4.2.7: parsers should not fail over padding or its bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A header that does not follow the grammar, or whose SHA-256 has not 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a dictionary of byte sequences such as sha-256=:<base64>:")]
pub struct Malformed;

/// The SHA-256 that the headers declare for the body, if they do. Digests by other algorithms are ignored.
///
/// # Errors
/// When the header is malformed: a digest that nobody can check must not look checked.
pub fn sha256(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Malformed> {
    let mut values = Vec::new();
    for value in headers.get_all(HEADER) {
        values.push(value.to_str().map_err(|_| Malformed)?);
    }
    // Several headers of one name are one list (RFC 9110 §5.2).
    if values.is_empty() { Ok(None) } else { parse(&values.join(", ")) }
}

/// The SHA-256 in one value of the header.
///
/// # Errors
/// As [`sha256`].
pub fn parse(value: &str) -> Result<Option<[u8; 32]>, Malformed> {
    let mut input = Input(value.trim_matches(' '));
    let mut found = None;
    while !input.0.is_empty() {
        let algorithm = input.key()?;
        input.expect('=')?;
        let digest = input.byte_sequence()?;
        input.parameters()?;
        if algorithm == "sha-256" {
            // The last member of a name wins (RFC 8941 §4.2.2).
            found = Some(digest.try_into().map_err(|_| Malformed)?);
        }
        input.separator()?;
    }
    Ok(found)
}

struct Input<'a>(&'a str);

impl<'a> Input<'a> {
    fn expect(&mut self, token: char) -> Result<(), Malformed> {
        self.0 = self.0.strip_prefix(token).ok_or(Malformed)?;
        Ok(())
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|next| !accept(next)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn key(&mut self) -> Result<&'a str, Malformed> {
        if !self.0.starts_with(|first: char| first.is_ascii_lowercase() || first == '*') {
            return Err(Malformed);
        }
        Ok(self.take_while(|next| next.is_ascii_lowercase() || next.is_ascii_digit() || "_-.*".contains(next)))
    }

    fn byte_sequence(&mut self) -> Result<Vec<u8>, Malformed> {
        self.expect(':')?;
        let encoded = self.take_while(|next| next != ':');
        self.expect(':')?;
        BASE64.decode(encoded).map_err(|_| Malformed)
    }

    /// None is defined for digests; those that come are skipped.
    fn parameters(&mut self) -> Result<(), Malformed> {
        while let Some(rest) = self.0.strip_prefix(';') {
            self.0 = rest.trim_start_matches(' ');
            self.key()?;
            if let Some(rest) = self.0.strip_prefix('=') {
                self.0 = rest;
                self.bare_item()?;
            }
        }
        Ok(())
    }

    fn bare_item(&mut self) -> Result<(), Malformed> {
        match self.0.chars().next() {
            Some('"') => self.string(),
            Some(':') => self.byte_sequence().map(drop),
            _ => {
                let item = self.take_while(|next| next.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/?".contains(next));
                if item.is_empty() { Err(Malformed) } else { Ok(()) }
            }
        }
    }

    fn string(&mut self) -> Result<(), Malformed> {
        self.expect('"')?;
        loop {
            self.take_while(|next| next != '"' && next != '\\');
            match self.0.strip_prefix('\\') {
                Some(escaped) => self.0 = escaped.strip_prefix(['"', '\\']).ok_or(Malformed)?,
                None => return self.expect('"'),
            }
        }
    }

    /// A comma with another member behind it, or the end.
    fn separator(&mut self) -> Result<(), Malformed> {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        if self.0.is_empty() {
            return Ok(());
        }
        self.expect(',')?;
        self.0 = self.0.trim_start_matches([' ', '\t']);
        if self.0.is_empty() { Err(Malformed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    /// Of `{"hello": "world"}`, from RFC 9530 appendix D.
    const SHA256: &str = "X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=";
    const BYTES: [u8; 32] = [
        0x5f, 0x8f, 0x04, 0xf6, 0xa3, 0xa8, 0x92, 0xaa, 0xab, 0xbd, 0xdb, 0x6c, 0xf2, 0x73, 0x89, 0x44, 0x93, 0x77,
        0x39, 0x60, 0xd4, 0xa3, 0x25, 0xb1, 0x05, 0xfe, 0xe4, 0x6e, 0xef, 0x43, 0x04, 0xf1,
    ];

    #[test]
    fn a_sha256_is_found_among_others() {
        for value in [
            format!("sha-256=:{SHA256}:"),
            format!("  sha-256=:{SHA256}:  "),
            format!("sha-512=:AAAA:, sha-256=:{SHA256}:"),
            format!("sha-256=:{SHA256}:\t ,unixsum=:AA==:"),
            format!("sha-256=:AAAA{}:,sha-256=:{SHA256}:", &SHA256[4..]),
            format!("sha-256=:{}:", SHA256.trim_end_matches('=')),
            format!("sha-256=:{SHA256}:;a;b=1; c=\"x\\\",y\";d=?1;e=:AA==:"),
        ] {
            assert_eq!(parse(&value), Ok(Some(BYTES)), "{value}");
        }
    }

    #[test]
    fn other_algorithms_are_ignored() {
        assert_eq!(parse("sha-512=:AAAA:"), Ok(None));
        assert_eq!(parse("*x_1.-*=::"), Ok(None));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for value in [
            "sha-256",
            "sha-256=",
            "sha-256=:",
            "sha-256=::",
            "sha-256=:AAAA:",
            "sha-256=:!!!!:",
            "sha-256=abc",
            "SHA-256=:AAAA:",
            "=:AAAA:",
            "sha-512=:AAAA:,",
            ",sha-512=:AAAA:",
            "sha-512=:AAAA:;",
            "sha-512=:AAAA:;a=",
            "sha-512=:AAAA:;a=\"",
            "sha-512=:AAAA:;a=\"\\x\"",
            "sha-512=:AAAA: sha-256=:AAAA:",
            "sha-512=:AAAA:x",
            "sha-512 =:AAAA:",
            "é=:AAAA:",
        ] {
            assert_eq!(parse(value), Err(Malformed), "{value}");
        }
    }

    #[test]
    fn several_headers_are_one_dictionary() {
        let mut headers = HeaderMap::new();
        assert_eq!(sha256(&headers), Ok(None));
        headers.append(HEADER, HeaderValue::from_static("sha-512=:AAAA:"));
        headers.append(HEADER, HeaderValue::from_str(&format!("sha-256=:{SHA256}:")).unwrap());
        assert_eq!(sha256(&headers), Ok(Some(BYTES)));
    }
}
