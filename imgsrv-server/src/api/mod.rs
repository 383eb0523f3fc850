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
use poem_openapi::{OpenApi, OpenApiService, Tags};

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
        .description("Stores, catalogues, publishes and serves VM and disk images.")
        .license(env!("CARGO_PKG_LICENSE"))
}

/// The page that `limit` and `cursor` ask for.
pub(crate) fn page(limit: &Query<Option<Limit>>, cursor: Query<Option<Text<Cursor>>>) -> Result<Page, Problem> {
    Page::new(limit.0.map(|limit| limit.0), cursor.0.map(|cursor| cursor.0))
        .ok_or_else(|| Problem::invalid("limit", format!("must be from 1 to {}", Page::MAX)))
}
