//! Numbers of requests and answers; adapters as in [`text`](crate::text).

use std::borrow::Cow;

use imgsrv_core::model::{Page, PartNumber};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type};
use serde_json::Value;

use crate::text::raw_is_self;

/// The conversions of a type that is a whole number outside, from its `checked`, `get`, `MIN`, `MAX` and `EXAMPLE`.
macro_rules! integer {
    ($name:ident, $schema:literal) => {
        impl Type for $name {
            raw_is_self!();

            fn name() -> Cow<'static, str> {
                $schema.into()
            }

            #[expect(clippy::cast_precision_loss, reason = "the framework keeps limits as floating point")]
            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new(MetaSchema {
                    minimum: Some(Self::MIN as f64),
                    maximum: Self::MAX.map(|max| max as f64),
                    example: Some(Self::EXAMPLE.into()),
                    ..MetaSchema::new_with_format("integer", "int64")
                }))
            }
        }

        impl ParseFromParameter for $name {
            fn parse_from_parameter(value: &str) -> ParseResult<Self> {
                value.parse().ok().and_then(Self::checked).ok_or_else(|| ParseError::custom(Self::RULE))
            }
        }

        impl ParseFromJSON for $name {
            fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                match value {
                    Some(Value::Number(number)) => {
                        number.as_i64().and_then(Self::checked).ok_or_else(|| ParseError::custom(Self::RULE))
                    }
                    Some(Value::Null) | None => Err(ParseError::custom(concat!($schema, " is missing"))),
                    Some(other) => Err(ParseError::expected_type(other)),
                }
            }
        }

        impl ToJSON for $name {
            fn to_json(&self) -> Option<Value> {
                Some(self.get().into())
            }
        }
    };
}

/// A number of bytes: 64 bits with a sign outside, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    const MIN: i64 = 0;
    const MAX: Option<i64> = None;
    const EXAMPLE: i64 = 20_971_520;
    const RULE: &str = "size in bytes must be a whole number, not negative";

    fn checked(number: i64) -> Option<Self> {
        u64::try_from(number).ok().map(Self)
    }

    fn get(self) -> u64 {
        self.0
    }
}

integer!(Size, "size in bytes");

/// The number of a part, 1 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) PartNumber);

impl Number {
    const MIN: i64 = PartNumber::MIN as i64;
    const MAX: Option<i64> = Some(PartNumber::MAX as i64);
    const EXAMPLE: i64 = 1;
    const RULE: &str = "part number must be from 1 to 10000";

    fn checked(number: i64) -> Option<Self> {
        PartNumber::try_from(number).ok().map(Self)
    }

    fn get(self) -> u16 {
        self.0.get()
    }
}

integer!(Number, "part number");

/// How many rows of a list, 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) i64);

impl Limit {
    const MIN: i64 = 1;
    const MAX: Option<i64> = Some(Page::MAX.cast_signed());
    const EXAMPLE: i64 = 100;
    const RULE: &str = "must be from 1 to 1000";

    fn checked(number: i64) -> Option<Self> {
        (Self::MIN..=Page::MAX.cast_signed()).contains(&number).then_some(Self(number))
    }

    fn get(self) -> i64 {
        self.0
    }
}

integer!(Limit, "limit");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_size_is_never_negative_and_fits_64_bits_with_a_sign() {
        assert_eq!(Size::parse_from_json(Some(json!(0))).unwrap(), Size(0));
        assert_eq!(Size::parse_from_json(Some(json!(i64::MAX))).unwrap(), Size(i64::MAX.unsigned_abs()));
        for bad in [json!(-1), json!(u64::MAX), json!(1.0), json!("1"), json!(null)] {
            assert!(Size::parse_from_json(Some(bad.clone())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_number_has_limits() {
        for good in ["1", "10000"] {
            assert!(Number::parse_from_parameter(good).is_ok(), "{good}");
        }
        for bad in ["0", "10001", "-1", "", "one", "1.0", "99999999999999999999"] {
            assert!(Number::parse_from_parameter(bad).is_err(), "{bad}");
        }
    }
}
