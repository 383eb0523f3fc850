use std::collections::BTreeMap;

use imgsrv_core::Engine;
use imgsrv_core::model::{Cursor, ImageName, Scope, VersionName, VersionState};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use super::respond::{Accepted, Created, NoContent};
use super::{STREAMS, Tag, page};
use crate::caching::Cached;
use crate::extract::{CanWriteContent, Reader, VersionsReader};
use crate::number::Limit;
use crate::problem::Problem;
use crate::text::Text;
use crate::view::{CreateVersion, Manifest, PublishJob, Version, Versions};

pub(crate) struct VersionsApi;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Versions")]
impl VersionsApi {
    /// Create a version
    ///
    /// A draft, which only writers see.
    #[oai(path = "/images/:image/versions", method = "post", operation_id = "create_version")]
    async fn create_version(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        body: Json<CreateVersion>,
    ) -> Result<Created<Version>, Problem> {
        Ok(Created::new(engine.acting_as(may.actor()).create_version(&image.0.0, &body.0.version.0).await?))
    }

    /// List versions
    ///
    /// Newest published first. Other states than `published` need `content.write`.
    #[oai(path = "/images/:image/versions", method = "get", operation_id = "list_versions")]
    #[expect(clippy::too_many_arguments, reason = "one for each parameter of the request")]
    async fn list_versions(
        &self,
        engine: Data<&Engine>,
        reader: VersionsReader,
        image: Path<Text<ImageName>>,
        /// Versions in this state; `published` when absent.
        state: Query<Option<Text<VersionState>>>,
        /// At most so many, 1 to 1000.
        limit: Query<Option<Limit>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<Text<Cursor>>>,
        request: &Request,
    ) -> Result<Cached<Versions>, Problem> {
        let VersionsReader(reader) = reader;
        let state = state.0.map_or(VersionState::Published, |state| state.0);
        let versions = engine.list_versions(&image.0.0, state, reader.scope(), page(&limit, cursor)?).await?;
        Ok(Cached::for_reader(request, &reader, &versions.into()))
    }

    /// Show a version with everything in it
    ///
    /// Its artifacts with what is attached to each. Without a token only a published version exists.
    #[oai(path = "/images/:image/versions/:version", method = "get", operation_id = "get_manifest")]
    async fn get_manifest(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        request: &Request,
    ) -> Result<Cached<Manifest>, Problem> {
        let manifest = engine.get_manifest(&image.0.0, &version.0.0, reader.scope()).await?;
        let not_listed = match reader.scope() {
            Scope::All => engine.left_out(STREAMS, &manifest).await?,
            Scope::Published => BTreeMap::new(),
        };
        Ok(Cached::for_reader(request, &reader, &Manifest::new(manifest, not_listed)))
    }

    /// Delete a draft
    ///
    /// With its artifacts and attachments. A version that is published, or about to be, stays (412).
    #[oai(path = "/images/:image/versions/:version", method = "delete", operation_id = "delete_draft")]
    async fn delete_draft(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
    ) -> Result<NoContent, Problem> {
        engine.acting_as(may.actor()).delete_draft(&image.0.0, &version.0.0).await?;
        Ok(NoContent::Done)
    }

    /// Publish a version
    ///
    /// The draft is frozen and a job takes over. Publishing again answers with the job that exists.
    #[oai(path = "/images/:image/versions/:version/publish", method = "post", operation_id = "publish_version")]
    async fn publish_version(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
    ) -> Result<Accepted<PublishJob>, Problem> {
        Ok(Accepted::new(engine.acting_as(may.actor()).publish_version(&image.0.0, &version.0.0).await?))
    }
}
