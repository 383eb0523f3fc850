//! The bytes of blobs, artifacts and attachments.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use imgsrv_core::Engine;
use imgsrv_core::model::{BlobRef, Digest, MediaType};
use poem::http::{StatusCode, header};
use poem::{Body, IntoResponse, Request, Response, ResponseBuilder};
use poem_openapi::ApiResponse;
use poem_openapi::payload::{Binary, Payload};
use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponses, Registry};

use crate::caching::PRIVATE;
use crate::capacity::Capacity;
use crate::conditional::Validators;
use crate::edge;
use crate::meta;
use crate::problem::Problem;
use crate::range::{self, Selection};

/// Published bytes never change.
pub(crate) const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Who may be given the same bytes by a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Everybody, on a route that knows no tokens.
    Everybody,
    /// Everybody, on a route that shows more to some.
    EverybodyHere,
    /// Holders of a token.
    Writers,
}

/// A file to send.
#[derive(Clone, Debug)]
pub(crate) struct File<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    pub(crate) media_type: Option<&'a MediaType>,
    pub(crate) modified: DateTime<Utc>,
    /// What to save it as: letters, digits and `._+:-` only.
    pub(crate) name: String,
    pub(crate) audience: Audience,
}

impl<'a> File<'a> {
    /// A file of a published version.
    pub(crate) fn published(blob: &'a BlobRef, modified: DateTime<Utc>, name: String) -> Self {
        let (digest, size, media_type) = (&blob.digest, blob.size, Some(&blob.media_type));
        Self { digest, size, media_type, modified, name, audience: Audience::Everybody }
    }

    /// The answer to a request for this file.
    ///
    /// # Errors
    /// 412 when the client insists on other bytes; 416 when no byte is in the range; 503 when there are as many downloads
    /// as there may be; what the engine says when the bytes cannot be read.
    pub(crate) async fn send(&self, engine: &Engine, request: &Request) -> Result<Download, Problem> {
        let etag = format!("\"{}\"", self.digest);
        let validators = Validators { etag: &etag, modified: Some(self.modified) };
        if validators.failed(request.headers()) {
            return Err(Problem::precondition_failed());
        }
        if validators.not_modified(request.headers()) {
            return Ok(Download(self.head(&etag).status(StatusCode::NOT_MODIFIED).finish()));
        }
        if edge::is_head(request) {
            // What a GET would refuse is refused here too.
            engine.readable_blob(self.digest).await?;
            return Ok(Download(self.described(&etag).header(header::CONTENT_LENGTH, self.size).finish()));
        }
        let range = match range::select(request.headers(), self.size) {
            _ if !validators.allow_range(request.headers()) => None,
            Selection::Whole => None,
            Selection::Part(range) => Some(range),
            Selection::Unsatisfiable => return Err(Problem::range_not_satisfiable(self.size)),
        };
        let place = Capacity::download(request)?;
        // The engine has read the first chunk when it answers: what is missing is a problem and not a short body.
        let bytes = engine.read_blob(self.digest, range.clone()).await?;
        let response = self.described(&etag).header(header::CONTENT_LENGTH, bytes.range.end - bytes.range.start);
        let response = match range {
            Some(_) => response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, content_range(&bytes.range, bytes.size)),
            None => response,
        };
        Ok(Download(response.body(Body::from_bytes_stream(place.kept_by(bytes.body)))))
    }

    /// What 304 says too (RFC 9110 §15.4.5).
    fn head(&self, etag: &str) -> ResponseBuilder {
        let response = Response::builder()
            .header(header::ETAG, etag)
            .header(header::LAST_MODIFIED, httpdate::fmt_http_date(self.modified.into()));
        match self.audience {
            Audience::Everybody => response.header(header::CACHE_CONTROL, IMMUTABLE),
            Audience::EverybodyHere => {
                response.header(header::CACHE_CONTROL, IMMUTABLE).header(header::VARY, "Authorization")
            }
            Audience::Writers => response.header(header::CACHE_CONTROL, PRIVATE).header(header::VARY, "Authorization"),
        }
    }

    fn described(&self, etag: &str) -> ResponseBuilder {
        self.head(etag)
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_TYPE, self.media_type.map_or("application/octet-stream", AsRef::as_ref))
            .header(header::CONTENT_DISPOSITION, disposition(&self.name))
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header("repr-digest", format!("sha-256=:{}:", STANDARD.encode(self.digest.bytes())))
    }
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// RFC 6266. A colon is legal in a version, but not in a file name on every system: where it is, the name is the one that
/// checksums are listed under.
fn disposition(name: &str) -> String {
    let plain = name.replace(':', "_");
    if plain == name {
        return format!("attachment; filename=\"{name}\"");
    }
    let encoded = name.replace('+', "%2B").replace(':', "%3A");
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// 200, 206 or 304.
pub(crate) struct Download(Response);

impl IntoResponse for Download {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Download {
    fn meta() -> MetaResponses {
        // Generators of clients know no bytes but those of the first; what is declared may be anything.
        let bytes = || {
            [Binary::<Body>::CONTENT_TYPE, "*/*"]
                .map(|content_type| MetaMediaType { content_type, schema: Binary::<Body>::schema_ref() })
                .into()
        };
        let whole = "All bytes; the Content-Type is the declared media type";
        let one = "The bytes of one range; several ranges are answered with all bytes";
        let mut partial = described_headers();
        partial.push(meta::header("Content-Range", "Which bytes these are, and of how many."));
        MetaResponses {
            responses: vec![
                meta::answer(200, whole, bytes(), described_headers()),
                meta::answer(206, one, bytes(), partial),
                meta::answer(304, "The client has these bytes", vec![], kept_headers()),
            ],
        }
    }

    fn register(_registry: &mut Registry) {}
}

fn kept_headers() -> Vec<MetaHeader> {
    vec![
        meta::header("ETag", "The digest, in quotes: a strong validator."),
        meta::header("Last-Modified", "When the bytes came to be here."),
        meta::header("Cache-Control", "Immutable where published; `private, no-store` where only a token may see it."),
    ]
}

fn described_headers() -> Vec<MetaHeader> {
    let mut headers = kept_headers();
    headers.extend([
        meta::header("Accept-Ranges", "`bytes`"),
        meta::header("Content-Length", "How many bytes follow."),
        meta::header("Repr-Digest", "The SHA-256 of all bytes (RFC 9530)."),
        meta::header("Content-Disposition", "A useful file name (RFC 6266)."),
        meta::header("X-Content-Type-Options", "`nosniff`"),
    ]);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_inclusive() {
        assert_eq!(content_range(&(0..1), 100), "bytes 0-0/100");
        assert_eq!(content_range(&(90..100), 100), "bytes 90-99/100");
    }

    #[test]
    fn a_file_name_is_fit_for_every_system() {
        assert_eq!(disposition("a-1+2.qcow2"), "attachment; filename=\"a-1+2.qcow2\"");
        let both = "attachment; filename=\"a-1_2+3.qcow2\"; filename*=UTF-8''a-1%3A2%2B3.qcow2";
        assert_eq!(disposition("a-1:2+3.qcow2"), both);
    }
}
