//! A member of a request that matters only sometimes: whether it keeps its rule is asked when it does.

use std::borrow::Cow;

use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;

use crate::problem::{Problem, bare};
use crate::text::raw_is_self;

/// What was said where a `T` is wanted, or the rule that it breaks. In the specification it is a `T`.
#[derive(Debug)]
pub(crate) struct Said<T>(Result<T, String>);

impl<T> Said<T> {
    /// # Errors
    /// 400 with the rule, about this member.
    pub(crate) fn keep(self, member: &str) -> Result<T, Problem> {
        self.0.map_err(|reason| Problem::invalid(member, bare(&reason)))
    }
}

impl<T: Type> Type for Said<T> {
    raw_is_self!();

    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: ParseFromJSON> ParseFromJSON for Said<T> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(Self(T::parse_from_json(value).map_err(ParseError::into_message)))
    }
}

/// The framework wants it of every member, though no answer has one of these.
impl<T: ToJSON> ToJSON for Said<T> {
    fn to_json(&self) -> Option<Value> {
        self.0.as_ref().ok().and_then(T::to_json)
    }
}
