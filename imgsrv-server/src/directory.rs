//! The directory of a version: what lists its files, for programs and for people.

use imgsrv_core::model::{Manifest, NamedFile, Reference};
use maud::{DOCTYPE, html};
use poem::error::NotFoundError;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Request, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponses, Registry};
use poem_openapi::types::Type;

use crate::api::SUMS;
use crate::caching::REVALIDATE;
use crate::download::Download;
use crate::meta;
use crate::view::Directory;

/// The page runs nothing and asks nobody.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font-family:system-ui,sans-serif;margin:2rem;max-width:70rem}table{border-collapse:collapse}\
                     td,th{padding:.25rem 1rem .25rem 0;text-align:left}td.size{text-align:right}code{word-break:break-all}";

/// The framework knows no path that ends in a slash, and a directory's does: the links in it are relative.
pub(crate) async fn route(mut request: Request) -> poem::Result<Request> {
    let path = request.uri().path();
    if path.starts_with("/d/")
        && path.matches('/').count() == 4
        && let Some(bare) = path.strip_suffix('/')
    {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri = format!("{bare}{query}").parse();
        *request.uri_mut() = uri.map_err(|_| NotFoundError)?;
    }
    Ok(request)
}

/// Where the list of the files is that was asked for without the slash.
pub(crate) fn with_slash(request: &Request) -> Option<Response> {
    let (_, last) = request.original_uri().path().rsplit_once('/')?;
    if last.is_empty() {
        return None;
    }
    let found =
        Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, format!("./{last}/"));
    Some(found.header(header::CACHE_CONTROL, REVALIDATE).finish())
}

/// The files as a page. A link begins with `./`, because what stands before a colon would else be taken for a scheme.
pub(crate) fn page(manifest: &Manifest, reference: &Reference, files: &[NamedFile<'_>]) -> String {
    let (image, version) = (&manifest.image, &manifest.version.version);
    let title = format!("{} {reference}", image.name);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (STYLE) }
            }
            body {
                h1 { (title) }
                @if let Some(name) = &image.display_name { p { (name) } }
                @if let Some(text) = &image.description { p { (text) } }
                @if reference.as_ref() != version.as_ref() {
                    p { "Now " a href={ "../" (version) "/" } { (version) } "." }
                }
                table {
                    tr { th { "File" } th { "Bytes" } th { "SHA-256" } }
                    @for file in files {
                        tr {
                            td { a href={ "./" (file.name) } { (file.name) } }
                            td.size { (file.blob().size) }
                            td { code { (file.blob().digest.hex()) } }
                        }
                    }
                    tr { td { a href=(SUMS) { (SUMS) } } }
                }
            }
        }
    };
    page.into_string()
}

/// The list of a version's files, as JSON or as a page: 200 or 304.
pub(crate) struct DirectoryPage(pub(crate) Response);

impl IntoResponse for DirectoryPage {
    fn into_response(self) -> Response {
        let mut response = self.0;
        let headers = response.headers_mut();
        headers.insert(header::VARY, header::ACCEPT.into());
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    }
}

impl ApiResponse for DirectoryPage {
    fn meta() -> MetaResponses {
        let headers = || {
            let own = [meta::header("ETag", "Names this state."), meta::header("Cache-Control", "`no-cache`")];
            own.into_iter().chain(of_alias(false)).collect()
        };
        let json = MetaMediaType { content_type: "application/json", schema: Directory::schema_ref() };
        let content = vec![json, meta::content("text/html", "string")];
        MetaResponses {
            responses: vec![
                meta::answer(200, "The files, in the order in which they were added", content, headers()),
                meta::answer(304, meta::UNCHANGED, vec![], headers()),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        Directory::register(registry);
    }
}

/// A file of a directory: 200, 206, 304, or 302 to where it stays.
pub(crate) struct FileAnswer(pub(crate) Response);

impl IntoResponse for FileAnswer {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for FileAnswer {
    fn meta() -> MetaResponses {
        let mut answers = Download::meta();
        for response in &mut answers.responses {
            // Checksums are short texts without most of what is said of images.
            response
                .headers
                .iter_mut()
                .for_each(|header| header.required = matches!(header.name.as_str(), "ETag" | "Cache-Control"));
            response.headers.extend(of_alias(false));
            if response.status == Some(200) {
                response.content.push(meta::content("text/plain", "string"));
            }
        }
        let place =
            std::iter::once(meta::header("Location", "Relative to the request.")).chain(of_alias(true)).collect();
        let moved = "The file of the version that the alias means now";
        answers.responses.push(meta::answer(302, moved, vec![], place));
        answers
    }

    fn register(registry: &mut Registry) {
        Download::register(registry);
    }
}

/// What only the answers of an alias say.
fn of_alias(required: bool) -> [MetaHeader; 2] {
    [
        meta::header("X-Imgsrv-Version", "The version that the alias means now."),
        meta::header("Link", "`rel=\"canonical\"`: the same in the directory of that version."),
    ]
    .map(|header| MetaHeader { required, ..header })
}
