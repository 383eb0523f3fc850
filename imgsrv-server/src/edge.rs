//! The outermost layer: whatever happens inside, the client gets one well-formed answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use imgsrv_core::Clock;
use poem::http::{HeaderValue, Method, header};
use poem::{Endpoint, Request, Response, Result};
use tracing::Instrument;

use crate::problem::Problem;
use crate::request_id::{self, RequestId};

/// Marks a HEAD request. The framework hands those to the handlers of GET, as GET.
#[derive(Clone, Copy, Debug)]
struct Head;

/// Whether only the headers of the answer will be sent.
pub(crate) fn is_head(request: &Request) -> bool {
    request.data::<Head>().is_some()
}

/// Names the request, logs it, and turns errors and panics into problems.
pub(crate) async fn answer<E>(clock: Clock, inner: Arc<E>, mut request: Request) -> Result<Response>
where
    E: Endpoint<Output = Response>,
{
    let started = Instant::now();
    let id = RequestId::of(&request, &clock);
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("request", method = %request.method(), path, request_id = id.as_str());
    if request.method() == Method::HEAD {
        request.set_data(Head);
    }
    async move {
        let mut response = match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_from_response() => error.into_response(),
            Ok(Err(error)) => Problem::of_framework(error, &path).respond(Some(id.as_str())),
            Err(panic) => Problem::panicked(&*panic).respond(Some(id.as_str())),
        };
        complete(&mut response, &id, &path);
        let status = response.status().as_u16();
        tracing::info!(status, latency_ms = started.elapsed().as_secs_f64() * 1000.0, "answered");
        Ok(response)
    }
    .instrument(span)
    .await
}

/// What every answer carries, and what it carries where its handler was silent.
fn complete(response: &mut Response, id: &RequestId, path: &str) {
    let headers = response.headers_mut();
    if let Some(id) = id.header_value() {
        headers.insert(request_id::HEADER, id);
    }
    // JSON has no charset parameter (RFC 8259 §11), and clients compare the type as a whole.
    if headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json; charset=utf-8") {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    // An answer whose handler said nothing about caches is one that a token was needed for.
    let policy = headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
    let never_stored = policy.to_str().is_ok_and(|policy| policy.contains("no-store"));
    if never_stored && path.starts_with("/v1/") && !headers.contains_key(header::VARY) {
        headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
    }
}

#[cfg(test)]
mod tests {
    use poem::http::StatusCode;
    use poem::{EndpointExt, Route, get, handler};

    use super::*;

    #[handler]
    fn fine() -> &'static str {
        "fine"
    }

    #[handler]
    #[expect(clippy::panic, reason = "panics are what is tested")]
    fn bug() {
        panic!("at the disco");
    }

    async fn ask(method: Method, path: &'static str, id: Option<&str>) -> Response {
        let app = Route::new()
            .at("/fine", get(fine))
            .at("/bug", get(bug))
            .around(|inner, request| answer(Clock::system(), inner, request));
        let mut request = Request::builder().method(method).uri_str(path);
        if let Some(id) = id {
            request = request.header(request_id::HEADER, id);
        }
        app.call(request.finish()).await.unwrap()
    }

    #[tokio::test]
    async fn every_answer_names_its_request() {
        let response = ask(Method::GET, "/fine", Some("mine")).await;
        assert_eq!(response.header(request_id::HEADER), Some("mine"));
        let fresh = ask(Method::GET, "/fine", Some("not usable")).await;
        assert_eq!(fresh.header(request_id::HEADER).map(str::len), Some(36));
    }

    #[tokio::test]
    async fn an_unknown_route_a_wrong_method_and_a_panic_are_problems() {
        for (method, path, status) in [
            (Method::GET, "/nowhere", StatusCode::NOT_FOUND),
            (Method::GET, "/fine/", StatusCode::NOT_FOUND),
            (Method::POST, "/fine", StatusCode::METHOD_NOT_ALLOWED),
            (Method::GET, "/bug", StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let response = ask(method, path, Some("mine")).await;
            assert_eq!(response.status(), status, "{path}");
            assert_eq!(response.content_type(), Some(crate::problem::MEDIA_TYPE));
            assert_eq!(response.header("cache-control"), Some("no-store"));
            assert_eq!(response.header(request_id::HEADER), Some("mine"));
        }
    }
}
