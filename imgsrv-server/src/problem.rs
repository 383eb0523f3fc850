//! Errors as clients see them (RFC 9457), made in one place from the engine's errors and from the framework's.

use std::any::Any;
use std::time::Duration;

use imgsrv_core::{Error, FieldError};
use poem::error::{MethodNotAllowedError, NotFoundError, ReadBodyError, ResponseError};
use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{Body, Response};
use poem_openapi::error::{
    AuthorizationError, ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError,
};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{ToJSON, Type};
use poem_openapi::{ApiResponse, Object};

use crate::{body, spec};

/// The media type of every error answer.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// The framework's messages repeat what the client sent, which may be a megabyte.
const DETAIL_MAX: usize = 600;

/// Why a request was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{slug}: {}", detail.as_deref().unwrap_or_default())]
pub(crate) struct Problem {
    status: StatusCode,
    slug: &'static str,
    detail: Option<String>,
    errors: Vec<FieldError>,
    // Boxed, because every handler returns a problem or its answer, and few problems have a header.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    /// A problem of its own kind; the slug is part of the API for ever.
    pub(crate) fn new(status: StatusCode, slug: &'static str, detail: impl Into<String>) -> Self {
        Self { status, slug, detail: Some(shorten(detail.into())), errors: Vec::new(), header: None }
    }

    /// 400: a value of the request breaks a rule.
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (field, reason) = (field.into(), shorten(reason.into()));
        Self::new(StatusCode::BAD_REQUEST, "invalid", format!("{field}: {reason}"))
            .with_errors(vec![FieldError { field, reason }])
    }

    /// 401: no valid credential.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: a valid credential of somebody who may not do this.
    pub(crate) fn forbidden(missing_action: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", format!("the action {missing_action} is required"))
    }

    /// 404.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 412: the client insists on another representation than there is.
    pub(crate) fn precondition_failed() -> Self {
        let detail = "If-Match or If-Unmodified-Since asks for another representation than there is";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", detail)
    }

    /// 413: a body of more than `limit` bytes.
    pub(crate) fn too_large(limit: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("the body may hold {limit} bytes"))
    }

    /// 416: no byte of a representation of `size` bytes is in the range.
    pub(crate) fn range_not_satisfiable(size: u64) -> Self {
        let problem = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range-not-satisfiable",
            format!("the representation has {size} bytes"),
        );
        match HeaderValue::try_from(format!("bytes */{size}")) {
            Ok(value) => problem.with_header(header::CONTENT_RANGE, value),
            Err(_) => problem,
        }
    }

    /// 503: something that this needs does not answer now.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// 429: there were too many credentials that are of no use; none should come for so long.
    pub(crate) fn too_many_attempts(wait: Duration) -> Self {
        let detail = "the credential is of no use, and there were many such from this address: wait, then use another";
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", detail);
        match HeaderValue::try_from(seconds.to_string()) {
            Ok(seconds) => problem.with_header(header::RETRY_AFTER, seconds),
            Err(_) => problem,
        }
    }

    /// 500: nothing but the request id, by which the log tells the rest.
    pub(crate) fn internal() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            slug: "internal",
            detail: None,
            errors: Vec::new(),
            header: None,
        }
    }

    /// The answer to a request whose handler panicked.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        tracing::error!(panic = message, "a handler panicked");
        Self::internal()
    }

    /// The problem that an error of the framework stands for, or the stashed one that it carries.
    ///
    /// `path` is the request's: what a 405 allows depends on it.
    pub(crate) fn of_framework(error: poem::Error, path: &str) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(problem) => return problem,
            Err(error) => error,
        };
        if error.is::<NotFoundError>() {
            Self::not_found("no such route")
        } else if error.is::<MethodNotAllowedError>() {
            Self::method_not_allowed(path)
        } else if let Some(error) = error.downcast_ref::<ParsePathError>() {
            // The framework calls every path parameter `param0`, so only the reason is of use.
            Self::new(StatusCode::BAD_REQUEST, "invalid", bare(&error.reason))
        } else if let Some(error) = error.downcast_ref::<ParseParamError>() {
            Self::invalid(error.name, bare(&error.reason))
        } else if let Some(error) = error.downcast_ref::<ParseRequestPayloadError>() {
            Self::new(StatusCode::BAD_REQUEST, "invalid", bare(&error.reason))
        } else if let Some(error) = error.downcast_ref::<ContentTypeError>() {
            Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", error.to_string())
        } else if let Some(error) = error.downcast_ref::<ReadBodyError>() {
            Self::unreadable(error)
        } else if error.is::<AuthorizationError>() {
            Self::unauthorized("a valid token is required")
        } else if error.status().is_client_error() {
            Self::new(error.status(), "rejected", error.to_string())
        } else {
            tracing::error!(%error, "the framework failed");
            Self::internal()
        }
    }

    fn method_not_allowed(path: &str) -> Self {
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this route has no such method");
        match spec::allowed_methods(path) {
            Some(methods) => problem.with_header(header::ALLOW, methods),
            None => problem,
        }
    }

    fn unreadable(error: &ReadBodyError) -> Self {
        match error {
            ReadBodyError::Io(error) if body::is_too_large(error) => Self::too_large(body::JSON_LIMIT),
            ReadBodyError::Io(_) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid", "the body ended before it was complete")
            }
            ReadBodyError::Utf8(_) => Self::new(StatusCode::BAD_REQUEST, "invalid", "the body is not UTF-8"),
            error @ (ReadBodyError::PayloadTooLarge | ReadBodyError::BodyHasBeenTaken) => {
                tracing::error!(%error, "a body was read in a way that this server does not use");
                Self::internal()
            }
        }
    }

    /// Whether the fault is the server's.
    pub(crate) fn is_server_error(&self) -> bool {
        self.status.is_server_error()
    }

    fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// The answer to the request with this id.
    pub(crate) fn respond(self, request_id: Option<&str>) -> Response {
        let body = ProblemBody {
            kind: format!("urn:imgsrv:problem:{}", self.slug),
            title: title(self.slug),
            status: i32::from(self.status.as_u16()),
            detail: self.detail,
            instance: request_id.map(str::to_owned),
            errors: (!self.errors.is_empty()).then(|| self.errors.into_iter().map(Into::into).collect()),
        };
        let mut response = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::CACHE_CONTROL, "no-store")
            .body(Body::from_string(body.to_json_string()));
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (slug, detail) = (error.code(), error.to_string());
        match error {
            Error::NotFound(_) => Self::new(StatusCode::NOT_FOUND, slug, detail),
            Error::AlreadyExists(_) => Self::new(StatusCode::CONFLICT, slug, detail),
            Error::Invalid { what, reason } => Self::invalid(what, reason),
            Error::Precondition { errors, .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, slug, detail).with_errors(errors)
            }
            Error::StorageFull => {
                tracing::warn!("a request was refused because the store is full");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, detail)
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("60"))
            }
            Error::Unavailable { .. } => {
                tracing::warn!(error = error.chain(), "a request could not be done now");
                Self::unavailable(detail)
            }
            // Whatever the engine learns to say later is ours to mend, until somebody gives it a status here.
            error => {
                tracing::error!(error = error.chain(), "a request failed");
                Self::internal()
            }
        }
    }
}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn as_response(&self) -> Response {
        self.clone().respond(None)
    }
}

impl ApiResponse for Problem {
    /// One `default` answer; the specification replaces it by the statuses that the operation can have.
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: None,
                status_range: None,
                content: vec![MetaMediaType { content_type: MEDIA_TYPE, schema: ProblemBody::schema_ref() }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        ProblemBody::register(registry);
    }
}

/// Why a request was not done (RFC 9457).
#[derive(Debug, Object)]
#[oai(rename = "Problem", skip_serializing_if_is_none)]
struct ProblemBody {
    /// The kind of problem, `urn:imgsrv:problem:` and a slug that never changes.
    #[oai(rename = "type")]
    kind: String,
    /// The kind in words.
    title: String,
    /// The HTTP status.
    status: i32,
    /// What happened here, for people.
    detail: Option<String>,
    /// The id of the request, as in `X-Request-ID`.
    instance: Option<String>,
    /// The members of the request that it is about.
    errors: Option<Vec<FieldProblem>>,
}

/// A member of a request and what is wrong with it.
#[derive(Debug, Object)]
struct FieldProblem {
    /// Where, as a path.
    field: String,
    /// What is wrong.
    reason: String,
}

impl From<FieldError> for FieldProblem {
    fn from(error: FieldError) -> Self {
        Self { field: error.field, reason: error.reason }
    }
}

/// `wrong-state` reads `Wrong state`.
fn title(slug: &str) -> String {
    let mut title = slug.replace('-', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// The framework wraps every reason in names of schemas, inside out; the reasons of our types say enough alone.
pub(crate) fn bare(reason: &str) -> &str {
    let reason = reason
        .strip_prefix("failed to parse \"")
        .and_then(|rest| rest.split_once("\": "))
        .map_or(reason, |(_, reason)| reason);
    reason.split_once(" (occurred while parsing \"").map_or(reason, |(reason, _)| reason)
}

fn shorten(mut text: String) -> String {
    if text.len() > DETAIL_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_slug_in_words() {
        assert_eq!(title("range-not-satisfiable"), "Range not satisfiable");
        assert_eq!(title(""), "");
    }

    #[test]
    fn a_reason_loses_its_wrapping() {
        assert_eq!(bare(r#"failed to parse "ImageName": must match ^a$"#), "must match ^a$");
        assert_eq!(
            bare(
                r#"failed to parse "A": is missing (occurred while parsing "optional_A") (occurred while parsing "B")"#
            ),
            "is missing"
        );
        assert_eq!(bare("expected value at line 1"), "expected value at line 1");
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let detail = shorten("é".repeat(DETAIL_MAX));
        assert!(detail.len() <= DETAIL_MAX + '…'.len_utf8());
        assert!(detail.ends_with('…'));
    }

    #[tokio::test]
    async fn an_internal_error_says_nothing_but_the_request_id() {
        let problem = Problem::from(Error::internal("blob row", "s3://secret-bucket/key"));
        let response = problem.respond(Some("abc"));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body: serde_json::Value = response.into_body().into_json().await.unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:imgsrv:problem:internal", "title": "Internal", "status": 500, "instance": "abc",
            })
        );
    }

    #[test]
    fn a_full_store_says_when_to_come_back() {
        let response = Problem::from(Error::StorageFull).respond(None);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
