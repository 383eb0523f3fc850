//! The routes, one file a noun. A handler parses, makes one call of the engine and shows the outcome.
//!
//! Groups are unit structs and the engine arrives with the request, so the specification needs no engine.

mod aliases;
mod artifacts;
mod attachments;
mod blobs;
mod directories;
mod docs;
mod health;
mod images;
mod jobs;
pub(crate) mod respond;
mod streams;
mod uploads;
mod versions;

use imgsrv_core::model::{Cursor, Page};
use poem_openapi::param::Query;
use poem_openapi::{ContactObject, LicenseObject, OpenApi, OpenApiService, ServerObject, Tags};

pub(crate) use directories::SUMS;
pub use health::Readiness;
pub(crate) use streams::STREAMS;

use crate::number::Limit;
use crate::problem::Problem;
use crate::text::Text;

/// What the operations of the specification are grouped by.
#[derive(Tags)]
pub(crate) enum Tag {
    /// Sessions that deliver the bytes of one blob in parts.
    Uploads,
    /// Verified bytes, by digest.
    Blobs,
    /// Namespaces for versions.
    Images,
    /// Units of release.
    Versions,
    /// Files of a version.
    Artifacts,
    /// Files that go with an artifact.
    Attachments,
    /// Movable names for published versions.
    Aliases,
    /// Files of published versions, under names for people.
    Downloads,
    /// What Incus reads.
    Streams,
    /// Jobs that publish a version.
    Publishing,
    /// Principals, their roles and their tokens.
    Auth,
    /// The server itself.
    Server,
}

/// What holds for every operation.
const DESCRIPTION: &str = "\
Stores, catalogues, publishes and serves VM and disk images.

- Errors are problem documents (RFC 9457) on every path. `type` is the kind, for programs, and never changes; `instance` \
is the id of the request.
- A request may name itself by `X-Request-ID`, 1 to 128 visible ASCII characters.
- HEAD works wherever GET does. Another method is 405 with `Allow`, and a trailing slash is another path.
- Unknown members of a request are refused; answers may get more members. What has no value is left out, never null.
- A list is whole up to 10,000 rows. It is paged with `limit`, or where it is longer: `next_cursor` is the `cursor` of \
the next page.
- Where a token is optional, `content.write` shows drafts as well, and a token that is no use here is ignored.";

/// Every group of routes; a new one is added here and nowhere else.
fn groups() -> impl OpenApi {
    (
        uploads::UploadsApi,
        blobs::BlobsApi,
        images::ImagesApi,
        versions::VersionsApi,
        artifacts::ArtifactsApi,
        attachments::AttachmentsApi,
        aliases::AliasesApi,
        jobs::JobsApi,
        directories::DirectoriesApi,
        streams::StreamsApi,
        health::HealthApi,
        docs::DocsApi,
        crate::auth::AuthApi,
    )
}

/// The routes with their specification as the framework generates it.
pub(crate) fn service() -> OpenApiService<impl OpenApi, ()> {
    OpenApiService::new(groups(), "imgsrv", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .contact(ContactObject::new().name("imgsrv").url(concat!(env!("CARGO_PKG_REPOSITORY"), "/issues")))
        .license(LicenseObject::new(env!("CARGO_PKG_LICENSE")).url(concat!(env!("CARGO_PKG_REPOSITORY"), "#licence")))
        .server(ServerObject::new("/").description("The server that this document comes from"))
}

/// The page that `limit` and `cursor` ask for.
pub(crate) fn page(limit: &Query<Option<Limit>>, cursor: Query<Option<Text<Cursor>>>) -> Result<Page, Problem> {
    Page::new(limit.0.map(|limit| limit.0), cursor.0.map(|cursor| cursor.0))
        .ok_or_else(|| Problem::invalid("limit", format!("must be from 1 to {}", Page::MAX)))
}
