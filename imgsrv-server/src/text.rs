//! Adapters that let values of the engine stand in requests, answers and the specification.
//!
//! What a handler receives has been parsed: a client gets 400 before any code of ours runs.

use std::borrow::Cow;
use std::fmt::Display;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use imgsrv_core::model;
use poem::http::HeaderValue;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToHeader, ToJSON, Type};
use serde_json::Value;
use uuid::Uuid;

/// What `Type` wants to know of a value that is its own raw value.
macro_rules! raw_is_self {
    () => {
        const IS_REQUIRED: bool = true;
        type RawValueType = Self;
        type RawElementValueType = Self;

        fn as_raw_value(&self) -> Option<&Self> {
            Some(self)
        }

        fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
            Box::new(std::iter::once(self))
        }
    };
}
pub(crate) use raw_is_self;

/// The conversions of a type that is a string outside, from its `parse`, `show` and `what`.
macro_rules! string_conversions {
    ([$($generics:tt)*] $name:ty) => {
        impl<$($generics)*> ParseFromParameter for $name {
            fn parse_from_parameter(value: &str) -> ParseResult<Self> {
                Self::parse(value).map_err(ParseError::custom)
            }
        }

        impl<$($generics)*> ParseFromJSON for $name {
            fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                match value {
                    Some(Value::String(text)) => Self::parse(&text).map_err(ParseError::custom),
                    // The framework would name the schema; a person looks for the thing.
                    Some(Value::Null) | None => Err(ParseError::custom(format!("{} is missing", Self::what()))),
                    Some(other) => Err(ParseError::expected_type(other)),
                }
            }
        }

        impl<$($generics)*> ToJSON for $name {
            fn to_json(&self) -> Option<Value> {
                Some(Value::String(self.show()))
            }
        }

        impl<$($generics)*> ToHeader for $name {
            fn to_header(&self) -> Option<HeaderValue> {
                HeaderValue::try_from(self.show()).ok()
            }
        }
    };
}

/// A validated text of the engine: an image name, a digest, a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: model::Text> Text<T> {
    fn parse(text: &str) -> Result<Self, model::InvalidText> {
        text.parse().map(Self)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }

    const fn what() -> &'static str {
        T::WHAT
    }
}

impl<T: model::Text> Type for Text<T> {
    raw_is_self!();

    fn name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Reference(T::NAME.to_owned())
    }

    fn register(registry: &mut Registry) {
        registry.create_schema::<Self, _>(T::NAME.to_owned(), |_| match T::WORDS {
            words @ [_, ..] => {
                let enum_items = words.iter().copied().map(Value::from).collect();
                MetaSchema { enum_items, ..MetaSchema::new("string") }
            }
            [] => MetaSchema {
                pattern: Some(T::PATTERN.to_owned()),
                max_length: T::MAX_CHARS,
                example: Some(T::EXAMPLE.into()),
                ..MetaSchema::new("string")
            },
        });
    }
}

string_conversions!([T: model::Text] Text<T>);

/// Any text, and nothing but a text: the framework's own string takes numbers and booleans as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plain(pub(crate) String);

impl Plain {
    #[expect(clippy::unnecessary_wraps, reason = "what the conversions expect")]
    fn parse(text: &str) -> Result<Self, model::InvalidText> {
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    const fn what() -> &'static str {
        "text"
    }
}

impl Type for Plain {
    raw_is_self!();

    fn name() -> Cow<'static, str> {
        String::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        String::schema_ref()
    }
}

string_conversions!([] Plain);

/// An id that is a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id<T>(pub(crate) T);

impl<T: From<Uuid> + Display + Send + Sync> Id<T> {
    /// Hyphenated only: the crate also reads forms that no client was ever given.
    fn parse(text: &str) -> Result<Self, &'static str> {
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(id.into())),
            _ => Err("id must be a UUID"),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }

    const fn what() -> &'static str {
        "id"
    }
}

impl<T: From<Uuid> + Display + Send + Sync> Type for Id<T> {
    raw_is_self!();

    fn name() -> Cow<'static, str> {
        "string_uuid".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            example: Some("018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11".into()),
            ..MetaSchema::new_with_format("string", "uuid")
        }))
    }
}

string_conversions!([T: From<Uuid> + Display + Send + Sync] Id<T>);

/// A moment: RFC 3339, always UTC with `Z` and at most microseconds when written, any offset when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp(pub(crate) DateTime<Utc>);

impl Timestamp {
    fn parse(text: &str) -> Result<Self, &'static str> {
        DateTime::parse_from_rfc3339(text)
            .map(|moment| Self(moment.to_utc().trunc_subsecs(6)))
            .map_err(|_| "time must be written as in RFC 3339")
    }

    fn show(&self) -> String {
        self.0.trunc_subsecs(6).to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }

    const fn what() -> &'static str {
        "time"
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(moment: DateTime<Utc>) -> Self {
        Self(moment)
    }
}

impl Type for Timestamp {
    raw_is_self!();

    fn name() -> Cow<'static, str> {
        "string_date-time".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            example: Some("2026-11-23T10:00:00Z".into()),
            ..MetaSchema::new_with_format("string", "date-time")
        }))
    }
}

string_conversions!([] Timestamp);

#[cfg(test)]
mod tests {
    use imgsrv_core::model::{ImageName, UploadId};

    use super::*;

    #[test]
    fn a_text_is_checked_on_every_way_in() {
        assert!(Text::<ImageName>::parse_from_parameter("debian-13").is_ok());
        assert!(Text::<ImageName>::parse_from_parameter("Debian").is_err());
        assert!(Text::<ImageName>::parse_from_json(Some("debian-13".into())).is_ok());
        for bad in [None, Some(Value::Null), Some(1.into()), Some("".into()), Some("a/b".into())] {
            assert!(Text::<ImageName>::parse_from_json(bad).is_err());
        }
    }

    #[test]
    fn a_plain_text_is_no_number() {
        assert_eq!(Plain::parse_from_json(Some("".into())).unwrap(), Plain(String::new()));
        for bad in [None, Some(Value::Null), Some(1.into()), Some(true.into()), Some(Vec::<Value>::new().into())] {
            assert!(Plain::parse_from_json(bad).is_err());
        }
    }

    #[test]
    fn a_reason_says_the_rule() {
        let error = Text::<ImageName>::parse_from_parameter("Debian").unwrap_err();
        assert!(error.message().contains("image name must match ^[a-z0-9]"));
    }

    #[test]
    fn an_id_is_a_hyphenated_uuid() {
        let text = "018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11";
        let id = Id::<UploadId>::parse_from_parameter(text).unwrap();
        assert_eq!(id.to_json(), Some(text.into()));
        for bad in ["", "1", "018f3c1e7a5b7e018c1d2f5f3a9c0e11", "{018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11}"] {
            assert!(Id::<UploadId>::parse_from_parameter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_timestamp_is_utc_with_microseconds_at_most() {
        for (read, shown) in [
            ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
            ("2026-11-23T12:00:00.5+02:00", "2026-11-23T10:00:00.500Z"),
            ("2026-11-23T10:00:00.123456789Z", "2026-11-23T10:00:00.123456Z"),
        ] {
            assert_eq!(Timestamp::parse(read).unwrap().show(), shown);
        }
        for bad in ["", "2026-11-23", "2026-11-23T10:00:00", "now"] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }
}
