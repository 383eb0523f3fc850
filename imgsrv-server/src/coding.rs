//! Rendered files in compressed form. Nobody waits for one: until it is made, the file is sent as it is.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::write::GzEncoder;
use imgsrv_core::model::Digest;
use imgsrv_core::projection::Rendered;
use poem::http::{HeaderMap, header};

use crate::negotiation::Wishes;

/// Smaller files fit into one packet anyway.
const WORTH_IT: u64 = 1400;

/// A content coding of HTTP (RFC 9110 §8.4.1, RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    /// The one that a client likes best, if it likes any at least as much as none.
    pub(crate) fn wished(headers: &HeaderMap) -> Option<Self> {
        let wishes = Wishes::of(headers, &header::ACCEPT_ENCODING);
        let weight = |coding: &Self| wishes.weight(coding.name(), &["*"]);
        let best = [Self::Zstd, Self::Gzip].into_iter().rev().max_by_key(weight)?;
        Some(best).filter(|best| weight(best) > 0 && weight(best) >= wishes.named("identity").unwrap_or(0))
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    fn encode(self, pieces: &[Bytes]) -> io::Result<Bytes> {
        let encoded = match self {
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
                pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
                encoder.finish()?
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
                encoder.finish()?
            }
        };
        Ok(encoded.into())
    }
}

/// The compressed forms that were made. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compressed(Arc<Mutex<HashMap<(&'static str, Coding), Form>>>);

#[derive(Debug, Default)]
struct Form {
    /// What it was made of; none before the first is done.
    of: Option<(Digest, Bytes)>,
    in_the_making: bool,
}

impl Compressed {
    /// The file in this coding. Where it is not there yet, it is made, one at a time for each path and coding: what
    /// changes faster than it can be compressed is not worth it.
    pub(crate) fn get(&self, path: &'static str, coding: Coding, file: &Arc<Rendered>) -> Option<Bytes> {
        if file.size < WORTH_IT {
            return None;
        }
        let mut forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let form = forms.entry((path, coding)).or_default();
        match &form.of {
            Some((digest, bytes)) if *digest == file.digest => return Some(bytes.clone()),
            _ if form.in_the_making => return None,
            _ => form.in_the_making = true,
        }
        let (all, file) = (self.clone(), Arc::clone(file));
        tokio::task::spawn_blocking(move || {
            let made = coding.encode(&file.body);
            let mut forms = all.0.lock().unwrap_or_else(PoisonError::into_inner);
            let form = forms.entry((path, coding)).or_default();
            form.in_the_making = false;
            match made {
                Ok(bytes) => form.of = Some((file.digest.clone(), bytes)),
                Err(err) => tracing::error!(path, coding = coding.name(), error = %err, "not compressed"),
            }
        });
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn wished(text: &'static str) -> Option<Coding> {
        Coding::wished(&[(header::ACCEPT_ENCODING, poem::http::HeaderValue::from_static(text))].into_iter().collect())
    }

    #[test]
    fn the_best_wish_is_granted() {
        for text in ["zstd", "gzip, zstd", "gzip;q=0.5, zstd", "*", "identity;q=0.5, *;q=0.6"] {
            assert_eq!(wished(text), Some(Coding::Zstd), "{text}");
        }
        for text in ["gzip", "gzip, deflate, br", "zstd;q=0.5, gzip", "zstd;q=0, *", "identity, gzip"] {
            assert_eq!(wished(text), Some(Coding::Gzip), "{text}");
        }
        for text in ["", "br", "gzip;q=0", "*;q=0", "identity, gzip;q=0.9", "gzip;q=x"] {
            assert_eq!(wished(text), None, "{text}");
        }
        assert_eq!(Coding::wished(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_compressed_is_what_was_rendered() {
        let pieces = [Bytes::from_static(b"hello, "), Bytes::from(vec![b'x'; 100_000]), Bytes::from_static(b"!")];
        let whole = pieces.concat();
        let zstd = Coding::Zstd.encode(&pieces).unwrap();
        assert_eq!(zstd::decode_all(zstd.as_ref()).unwrap(), whole);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(Coding::Gzip.encode(&pieces).unwrap().as_ref()).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, whole);
    }
}
