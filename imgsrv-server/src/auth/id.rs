//! Ids of principals and tokens.

use std::fmt;
use std::str::FromStr;

use imgsrv_core::model::{InvalidText, Text};
use sea_orm::{DbErr, TryFromU64};
use uuid::Uuid;

/// The id of a principal or a token. Clients must not read anything into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sea_orm::DeriveValueType)]
#[sea_orm(value_type = "String")]
pub struct OpaqueId(String);

impl OpaqueId {
    const LONGEST: usize = 128;
}

impl Text for OpaqueId {
    const NAME: &'static str = "OpaqueId";
    const WHAT: &'static str = "id";
    const PATTERN: &'static str = "^[A-Za-z0-9._:-]{1,128}$";
    const EXAMPLE: &'static str = "018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11";
}

impl FromStr for OpaqueId {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if (1..=Self::LONGEST).contains(&text.len()) && text.bytes().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidText::of::<Self>())
        }
    }
}

impl From<Uuid> for OpaqueId {
    fn from(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

impl TryFromU64 for OpaqueId {
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("OpaqueId"))
    }
}

impl fmt::Display for OpaqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for OpaqueId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_no_id_of_ours_is() {
        for id in ["", "a/b", "a b", "a\0", "ü", &"x".repeat(129)] {
            assert!(id.parse::<OpaqueId>().is_err(), "{id:?}");
        }
    }

    #[test]
    fn keeps_what_it_parsed() {
        for id in [OpaqueId::EXAMPLE, &"x".repeat(128), "issuer:subject"] {
            assert_eq!(id.parse::<OpaqueId>().unwrap().to_string(), id);
        }
    }
}
