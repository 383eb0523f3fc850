use imgsrv_core::Engine;
use imgsrv_core::model::{ArtifactId, Cursor, ImageName, Scope, VersionName, file_name};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use super::respond::{Created, NoContent};
use super::{Tag, page};
use crate::caching::Cached;
use crate::download::{Download, File};
use crate::extract::{CanWriteContent, Reader};
use crate::number::Limit;
use crate::problem::Problem;
use crate::text::{Id, Text};
use crate::view::{AddArtifact, Artifact, Artifacts};

pub(crate) struct ArtifactsApi;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Artifacts")]
impl ArtifactsApi {
    /// Add an artifact to a draft
    ///
    /// Its blob need not exist before the version is published.
    #[oai(path = "/images/:image/versions/:version/artifacts", method = "post", operation_id = "add_artifact")]
    async fn add_artifact(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        body: Json<AddArtifact>,
    ) -> Result<Created<Artifact>, Problem> {
        let new = body.0.try_into()?;
        Ok(Created::new(engine.acting_as(may.actor()).add_artifact(&image.0.0, &version.0.0, new).await?))
    }

    /// List the artifacts of a version
    ///
    /// In the order in which they were added. Without a token only those of a published version exist.
    #[oai(path = "/images/:image/versions/:version/artifacts", method = "get", operation_id = "list_artifacts")]
    #[expect(clippy::too_many_arguments, reason = "one for each parameter of the request")]
    async fn list_artifacts(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        /// At most so many, 1 to 1000.
        limit: Query<Option<Limit>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<Text<Cursor>>>,
        request: &Request,
    ) -> Result<Cached<Artifacts>, Problem> {
        let page = page(&limit, cursor)?;
        let artifacts = engine.list_artifacts(&image.0.0, &version.0.0, reader.scope(), page).await?;
        Ok(Cached::for_reader(request, &reader, &artifacts.into()))
    }

    /// Show an artifact
    ///
    /// Without a token only one of a published version exists.
    #[oai(
        path = "/images/:image/versions/:version/artifacts/:artifact_id",
        method = "get",
        operation_id = "get_artifact"
    )]
    async fn get_artifact(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        artifact_id: Path<Id<ArtifactId>>,
        request: &Request,
    ) -> Result<Cached<Artifact>, Problem> {
        let artifact = engine.get_artifact(&image.0.0, &version.0.0, artifact_id.0.0, reader.scope()).await?;
        Ok(Cached::for_reader(request, &reader, &artifact.into()))
    }

    /// Remove an artifact from a draft
    ///
    /// What is attached to it goes with it.
    #[oai(
        path = "/images/:image/versions/:version/artifacts/:artifact_id",
        method = "delete",
        operation_id = "remove_artifact"
    )]
    async fn remove_artifact(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        artifact_id: Path<Id<ArtifactId>>,
    ) -> Result<NoContent, Problem> {
        engine.acting_as(may.actor()).remove_artifact(&image.0.0, &version.0.0, artifact_id.0.0).await?;
        Ok(NoContent::Done)
    }

    /// Download an artifact
    ///
    /// Of a published version only, whoever asks.
    #[oai(
        path = "/images/:image/versions/:version/artifacts/:artifact_id/download",
        method = "get",
        operation_id = "download_artifact"
    )]
    async fn download_artifact(
        &self,
        engine: Data<&Engine>,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        artifact_id: Path<Id<ArtifactId>>,
        request: &Request,
    ) -> Result<Download, Problem> {
        let (image, version) = (&image.0.0, &version.0.0);
        let artifact = engine.get_artifact(image, version, artifact_id.0.0, Scope::Published).await?;
        let name = file_name(image, version.as_ref(), &artifact);
        File::published(&artifact.blob, artifact.created_at, name).send(&engine, request).await
    }
}
