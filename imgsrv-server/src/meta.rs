//! What the specification says of answers that are made by hand.

use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponse, MetaSchema, MetaSchemaRef};
use poem_openapi::types::Type;

/// What 304 means.
pub(crate) const UNCHANGED: &str = "Nothing has changed since the state that If-None-Match names";

/// An answer with this status.
pub(crate) fn answer(
    status: u16,
    description: &'static str,
    content: Vec<MetaMediaType>,
    headers: Vec<MetaHeader>,
) -> MetaResponse {
    MetaResponse { description, status: Some(status), status_range: None, content, headers }
}

/// A header that an answer has.
pub(crate) fn header(name: &str, description: &str) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        schema: String::schema_ref(),
    }
}

/// A body of which no more is said than that it is an `object` or a `string`.
pub(crate) fn content(content_type: &'static str, is: &'static str) -> MetaMediaType {
    MetaMediaType { content_type, schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new(is))) }
}
