//! What the fuzz targets call, and nobody else: it may change at any time.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use imgsrv_core::Clock;
use imgsrv_core::model::{ImageName, Text as _, UploadId};
use poem::http::{HeaderMap, HeaderName, HeaderValue};
use poem::{Request, Response};
use poem_openapi::types::{ParseFromJSON, ParseFromParameter, ToJSON};
use serde_json::Value;
use uuid::Uuid;

use crate::auth::{self, OpaqueId, TokenText};
use crate::coding::Coding;
use crate::negotiation::Wishes;
use crate::number::{Limit, Number, Size};
use crate::request_id::RequestId;
use crate::text::{Id, Text, Timestamp};
use crate::{directory, redirect};

/// The token in the headers.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    auth::bearer(headers).ok()
}

/// The token with this text.
pub fn token(text: &str) -> Option<TokenText> {
    TokenText::parse(text)
}

/// The rule of the ids of principals and tokens.
pub const OPAQUE_ID: &str = OpaqueId::PATTERN;

/// The id of a principal or a token.
pub fn opaque_id(text: &str) -> Option<String> {
    text.parse().ok().map(|id: OpaqueId| id.to_string())
}

/// By which id the request goes on.
pub fn request_id(request: &Request) -> Option<HeaderValue> {
    RequestId::of(request, &Clock::system()).header_value()
}

/// What a header says of exactly this.
pub fn named(headers: &HeaderMap, header: &HeaderName, name: &str) -> Option<u16> {
    Wishes::of(headers, header).named(name)
}

/// What it says of this, or else of any of the `wildcards`.
pub fn weight(headers: &HeaderMap, header: &HeaderName, name: &str, wildcards: &[&str]) -> u16 {
    Wishes::of(headers, header).weight(name, wildcards)
}

/// The coding that a client likes best.
pub fn coding(headers: &HeaderMap) -> Option<&'static str> {
    Coding::wished(headers).map(Coding::name)
}

/// Where the same thing is over TLS.
pub fn redirect(request: &Request) -> Option<HeaderValue> {
    redirect::location(request)
}

/// The request as it is routed.
pub fn route(request: Request) -> Option<Request> {
    directory::route(request).now_or_never()?.ok()
}

/// Where the list of the files is that was asked for without the slash.
pub fn with_slash(request: &Request) -> Option<Response> {
    directory::with_slash(request)
}

/// What is taken from a parameter, and from a member of a body.
type Both<T> = (Option<T>, Option<T>);

fn both<T: ParseFromParameter + ParseFromJSON, U>(parameter: &str, member: Value, get: fn(T) -> U) -> Both<U> {
    (T::parse_from_parameter(parameter).ok().map(get), T::parse_from_json(Some(member)).ok().map(get))
}

/// A number of bytes.
pub fn size(parameter: &str, member: Value) -> Both<u64> {
    both(parameter, member, |Size(bytes)| bytes)
}

/// The number of a part.
pub fn part_number(parameter: &str, member: Value) -> Both<u16> {
    both(parameter, member, |Number(number)| number.get())
}

/// How many rows of a list.
pub fn limit(parameter: &str, member: Value) -> Both<i64> {
    both(parameter, member, |Limit(limit)| limit)
}

/// An id that is a UUID.
pub fn id(parameter: &str, member: Value) -> Both<Uuid> {
    both(parameter, member, |Id::<UploadId>(id)| id.0)
}

/// A text of the engine.
pub fn image_name(parameter: &str, member: Value) -> Both<ImageName> {
    both(parameter, member, |Text::<ImageName>(name)| name)
}

/// A moment.
pub fn timestamp(parameter: &str, member: Value) -> Both<DateTime<Utc>> {
    both(parameter, member, |Timestamp(at)| at)
}

/// A moment as an answer shows it.
pub fn show_timestamp(at: DateTime<Utc>) -> Option<Value> {
    Timestamp(at).to_json()
}
