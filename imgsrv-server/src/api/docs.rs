use std::sync::LazyLock;

use poem::http::header;
use poem::{IntoResponse, Request, Response};
use poem_openapi::registry::{MetaMediaType, MetaResponses, Registry};
use poem_openapi::{ApiResponse, OpenApi, OpenApiService};

use super::Tag;
use crate::caching::document;
use crate::meta;
use crate::problem::Problem;
use crate::spec;

/// The page runs one script of its own and asks this server only, whatever a later version of it would like to load.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<String> = LazyLock::new(page);

pub(crate) struct DocsApi;

#[expect(clippy::unused_async, reason = "the framework takes async handlers only")]
#[OpenApi(tag = "Tag::Server")]
impl DocsApi {
    /// Get this specification
    ///
    /// OpenAPI 3.0. It changes with the version of the server only.
    #[oai(path = "/openapi.json", method = "get", operation_id = "get_specification")]
    async fn get_specification(&self, request: &Request) -> Result<Specification, Problem> {
        Ok(Specification(document(request, "application/json", spec::text().to_owned())))
    }

    /// Browse this specification
    ///
    /// Swagger UI, whole in one page: it asks nobody but this server.
    #[oai(path = "/docs", method = "get", operation_id = "browse_specification")]
    async fn browse_specification(&self, request: &Request) -> Result<Page, Problem> {
        Ok(Page(document(request, "text/html; charset=utf-8", PAGE.clone())))
    }
}

/// Swagger UI with its scripts and styles in the page, reading `openapi.json` beside it.
fn page() -> String {
    // The framework puts a whole specification into the page; ours is a document of its own.
    let empty = OpenApiService::new((), "imgsrv", env!("CARGO_PKG_VERSION"));
    empty
        .swagger_ui_html()
        .replacen(&empty.spec(), "undefined", 1)
        .replacen("spec: spec,", "url: \"openapi.json\", validatorUrl: null,", 1)
        .replacen("<title>Swagger UI</title>", "<title>imgsrv</title>", 1)
}

struct Specification(Response);

impl IntoResponse for Specification {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Specification {
    fn meta() -> MetaResponses {
        found("The specification (OpenAPI 3.0)", meta::content("application/json", "object"))
    }

    fn register(_registry: &mut Registry) {}
}

struct Page(Response);

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut response = self.0;
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static(POLICY));
        response
    }
}

impl ApiResponse for Page {
    fn meta() -> MetaResponses {
        found("A page that needs nothing from elsewhere", meta::content("text/html", "string"))
    }

    fn register(_registry: &mut Registry) {}
}

fn found(description: &'static str, content: MetaMediaType) -> MetaResponses {
    let headers = || vec![meta::header("ETag", "Names this state."), meta::header("Cache-Control", "`no-cache`")];
    MetaResponses {
        responses: vec![
            meta::answer(200, description, vec![content], headers()),
            meta::answer(304, meta::UNCHANGED, vec![], headers()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_reads_our_specification_and_asks_nobody_else() {
        assert!(PAGE.contains("url: \"openapi.json\", validatorUrl: null,"));
        assert!(PAGE.contains("let spec = undefined;"));
        for foreign in ["src=\"http", "href=\"http", "src='http", "href='http", "@import", "url(http"] {
            let head = PAGE.split("<script").next().unwrap_or_default();
            assert!(!head.contains(foreign), "{foreign}");
        }
    }
}
