//! Answers that caches may keep and clients may revalidate.

use std::marker::PhantomData;

use imgsrv_core::model::{Digest, Scope};
use poem::http::{StatusCode, header};
use poem::{Body, IntoResponse, Request, Response, ResponseBuilder};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaMediaType, MetaResponses, Registry};
use poem_openapi::types::ToJSON;

use crate::conditional::Validators;
use crate::extract::Reader;
use crate::meta;

/// An answer that may be kept, but has to be asked about before each use.
pub(crate) const REVALIDATE: &str = "no-cache";

/// An answer that only the holder of a token may see.
pub(crate) const PRIVATE: &str = "private, no-store";

/// 200 with an ETag, or 304.
pub(crate) struct Cached<T>(Response, PhantomData<fn() -> T>);

impl<T: ToJSON> Cached<T> {
    /// The same for everybody.
    pub(crate) fn for_everybody(request: &Request, view: &T) -> Self {
        Self(document_with(request, "application/json", view.to_json_string().into(), REVALIDATE), PhantomData)
    }

    /// What this reader may see.
    pub(crate) fn for_reader(request: &Request, reader: &Reader, view: &T) -> Self {
        let policy = match reader.scope() {
            Scope::Published => REVALIDATE,
            Scope::All => PRIVATE,
        };
        let mut response = document_with(request, "application/json", view.to_json_string().into(), policy);
        response.headers_mut().insert(header::VARY, header::AUTHORIZATION.into());
        Self(response, PhantomData)
    }
}

/// A document that is the same for everybody.
pub(crate) fn document(request: &Request, media_type: &'static str, body: String) -> Response {
    document_with(request, media_type, body.into_bytes(), REVALIDATE)
}

/// A document that caches may keep as the `policy` says.
pub(crate) fn document_with(
    request: &Request,
    media_type: &'static str,
    body: Vec<u8>,
    policy: &'static str,
) -> Response {
    revalidated(request, &Digest::of(&body), policy, |response, etag| {
        response
            .header(header::ETAG, etag)
            .header(header::CONTENT_TYPE, media_type)
            // Said here, because the answer to a HEAD loses its body on the way out.
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from_vec(body))
    })
}

/// What is named by the digest of its bytes: 304 to a client that has it, else the `whole` answer, which is given its
/// ETag.
pub(crate) fn revalidated(
    request: &Request,
    digest: &Digest,
    policy: &'static str,
    whole: impl FnOnce(ResponseBuilder, String) -> Response,
) -> Response {
    let etag = format!("\"{}\"", &digest.hex()[..32]);
    let response = Response::builder().header(header::CACHE_CONTROL, policy);
    if (Validators { etag: &etag, modified: None }).not_modified(request.headers()) {
        return response.header(header::ETAG, etag).status(StatusCode::NOT_MODIFIED).finish();
    }
    whole(response, etag)
}

impl<T: Send> IntoResponse for Cached<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: ToJSON> ApiResponse for Cached<T> {
    fn meta() -> MetaResponses {
        let headers = || {
            vec![
                meta::header("ETag", "Names this state; send it as If-None-Match."),
                meta::header("Cache-Control", "`no-cache`, or `private, no-store` for what only a token may see."),
            ]
        };
        let json = MetaMediaType { content_type: "application/json", schema: T::schema_ref() };
        MetaResponses {
            responses: vec![
                meta::answer(200, "What was asked for", vec![json], headers()),
                meta::answer(304, meta::UNCHANGED, vec![], headers()),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(condition: Option<&str>) -> Cached<String> {
        let mut request = Request::builder();
        if let Some(etag) = condition {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        Cached::for_everybody(&request.finish(), &"hello".to_owned())
    }

    #[tokio::test]
    async fn an_answer_is_revalidated_by_its_etag() {
        let first = ask(None).into_response();
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.header("cache-control"), Some("no-cache"));
        assert_eq!(first.header("content-length"), Some("7"));
        let etag = first.header("etag").unwrap().to_owned();
        let second = ask(Some(&etag)).into_response();
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(second.header("etag"), Some(etag.as_str()));
        assert!(second.into_body().is_empty());
        assert_eq!(ask(Some("\"other\"")).into_response().status(), StatusCode::OK);
    }
}
