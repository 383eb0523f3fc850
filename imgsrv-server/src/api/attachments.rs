use imgsrv_core::Engine;
use imgsrv_core::model::Scope;
use imgsrv_core::model::{ArtifactId, AttachmentId, ImageName, VersionName};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;

use super::Tag;
use super::respond::{Created, NoContent};
use crate::download::{Download, File};
use crate::extract::CanWriteContent;
use crate::problem::Problem;
use crate::text::{Id, Text};
use crate::view::{AddAttachment, Attachment};

pub(crate) struct AttachmentsApi;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Attachments")]
impl AttachmentsApi {
    /// Attach a file to an artifact of a draft
    ///
    /// Its blob need not exist before the version is published. One that is named `incus.tar.xz` lets Incus see the
    /// artifact.
    #[oai(
        path = "/images/:image/versions/:version/artifacts/:artifact_id/attachments",
        method = "post",
        operation_id = "add_attachment"
    )]
    async fn add_attachment(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        artifact_id: Path<Id<ArtifactId>>,
        body: Json<AddAttachment>,
    ) -> Result<Created<Attachment>, Problem> {
        let engine = engine.acting_as(may.actor());
        Ok(Created::new(engine.add_attachment(&image.0.0, &version.0.0, artifact_id.0.0, body.0.into()).await?))
    }

    /// Remove an attachment from a draft
    ///
    /// Its blob stays for as long as something else cites it.
    #[oai(
        path = "/images/:image/versions/:version/artifacts/:artifact_id/attachments/:attachment_id",
        method = "delete",
        operation_id = "remove_attachment"
    )]
    async fn remove_attachment(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        artifact_id: Path<Id<ArtifactId>>,
        attachment_id: Path<Id<AttachmentId>>,
    ) -> Result<NoContent, Problem> {
        let engine = engine.acting_as(may.actor());
        engine.remove_attachment(&image.0.0, &version.0.0, artifact_id.0.0, attachment_id.0.0).await?;
        Ok(NoContent::Done)
    }

    /// Download an attachment
    ///
    /// Of a published version only, whoever asks.
    #[oai(
        path = "/images/:image/versions/:version/artifacts/:artifact_id/attachments/:attachment_id/download",
        method = "get",
        operation_id = "download_attachment"
    )]
    async fn download_attachment(
        &self,
        engine: Data<&Engine>,
        image: Path<Text<ImageName>>,
        version: Path<Text<VersionName>>,
        artifact_id: Path<Id<ArtifactId>>,
        attachment_id: Path<Id<AttachmentId>>,
        request: &Request,
    ) -> Result<Download, Problem> {
        let (artifact, id) = (artifact_id.0.0, attachment_id.0.0);
        let attachment = engine.get_attachment(&image.0.0, &version.0.0, artifact, id, Scope::Published).await?;
        let name = attachment.name.to_string();
        File::published(&attachment.blob, attachment.created_at, name).send(&engine, request).await
    }
}
