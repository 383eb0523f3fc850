//! `IMAGE[:REF]`.

use std::fmt;
use std::str::FromStr;

use imgsrv_client::types::{ImageName, Reference};

/// An image, and one of its versions or aliases.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) image: ImageName,
    pub(crate) reference: Reference,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A version may have colons in it, an image may not.
        let (image, reference) = text.split_once(':').unwrap_or((text, "latest"));
        Ok(Self {
            image: image.parse().map_err(|err| format!("the image {err}"))?,
            reference: reference.parse().map_err(|err| format!("the version or alias {err}"))?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", *self.image, *self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (text, shown) in [("debian", "debian:latest"), ("debian:13", "debian:13"), ("a:1:2", "a:1:2")] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        for text in ["", ":", "debian:", ":latest", "Debian", "debian:a/b"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
