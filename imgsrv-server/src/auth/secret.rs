//! The text of a token.

use std::fmt;

use imgsrv_core::{Clock, Error, Result};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "imgsrv_at_";
const SECRET_BYTES: usize = 32;

/// The text of a token: `imgsrv_at_<lookup id>_<secret>`, both in lower-case hex.
///
/// The lookup id finds the row in the database and is no secret; of the secret's 256 bits the database keeps the
/// SHA-256 only. That needs no salt and no slow hash, because nobody can guess at random bits.
#[derive(Clone)]
pub struct TokenText {
    lookup_id: String,
    secret: [u8; SECRET_BYTES],
}

impl TokenText {
    pub(super) fn generate(clock: &Clock) -> Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|err| Error::internal("random bits", err))?;
        Ok(Self { lookup_id: clock.new_secret_id().simple().to_string(), secret })
    }

    /// The token with this text, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (lookup_id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        if !(is_lower_hex(lookup_id) && is_lower_hex(secret)) || lookup_id.len() != 32 {
            return None;
        }
        let mut bytes = [0; SECRET_BYTES];
        hex::decode_to_slice(secret, &mut bytes).ok()?;
        Some(Self { lookup_id: lookup_id.to_owned(), secret: bytes })
    }

    pub(super) fn lookup_id(&self) -> &str {
        &self.lookup_id
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Whether the hash is of this secret, in a time that does not tell how much of it is.
    pub(super) fn hashes_to(&self, sha256: &[u8]) -> bool {
        self.sha256().ct_eq(sha256).into()
    }

    /// The text itself. Give it to whom it is for and to nobody else: no log, no error, no file.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.lookup_id, hex::encode(self.secret))
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenText").field("lookup_id", &self.lookup_id).finish_non_exhaustive()
    }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenText {
        TokenText::generate(&Clock::system()).unwrap()
    }

    #[test]
    fn what_is_revealed_parses_to_the_same() {
        let token = token();
        let text = token.reveal();
        assert_eq!(text.len(), PREFIX.len() + 32 + 1 + 64);
        let parsed = TokenText::parse(&text).unwrap();
        assert_eq!(parsed.lookup_id(), token.lookup_id());
        assert!(parsed.hashes_to(&token.sha256()));
    }

    #[test]
    fn another_secret_does_not_hash_to_it() {
        assert!(!token().hashes_to(&token().sha256()));
        assert!(!token().hashes_to(b""));
    }

    #[test]
    fn refuses_everything_else() {
        let text = token().reveal();
        let (head, tail) = text.split_at(text.len() - 1);
        for text in [
            "",
            "imgsrv_at_",
            "imgsrv_at__",
            head,
            &format!("{text}0"),
            &format!("{head}g"),
            &format!(" {text}"),
            &text.to_uppercase(),
            &text.replace("imgsrv_at_", "imgsrv_rt_"),
            &format!("{head}_{tail}"),
        ] {
            assert!(TokenText::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn debug_does_not_tell_the_secret() {
        let token = token();
        let shown = format!("{token:?}");
        assert!(!shown.contains(&hex::encode(token.secret)), "{shown}");
    }
}
