use imgsrv_core::Engine;
use imgsrv_core::model::{Cursor, ImageName};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use super::respond::{Created, NoContent};
use super::{Tag, page};
use crate::caching::Cached;
use crate::extract::{CanWriteContent, Reader};
use crate::number::Limit;
use crate::problem::Problem;
use crate::text::Text;
use crate::view::{CreateImage, Image, Images};

pub(crate) struct ImagesApi;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Images")]
impl ImagesApi {
    /// Create an image
    ///
    /// Its name is unique on the server. Until a version of it is published, only writers see it.
    #[oai(path = "/images", method = "post", operation_id = "create_image")]
    async fn create_image(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        body: Json<CreateImage>,
    ) -> Result<Created<Image>, Problem> {
        Ok(Created::new(engine.acting_as(may.actor()).create_image(body.0.into()).await?))
    }

    /// List images
    ///
    /// Without a token only images with a published version exist.
    #[oai(path = "/images", method = "get", operation_id = "list_images")]
    async fn list_images(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        /// At most so many, 1 to 1000.
        limit: Query<Option<Limit>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<Text<Cursor>>>,
        request: &Request,
    ) -> Result<Cached<Images>, Problem> {
        let images = engine.list_images(reader.scope(), page(&limit, cursor)?).await?;
        Ok(Cached::for_reader(request, &reader, &images.into()))
    }

    /// Show an image
    ///
    /// Without a token only an image with a published version exists.
    #[oai(path = "/images/:image", method = "get", operation_id = "get_image")]
    async fn get_image(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        image: Path<Text<ImageName>>,
        request: &Request,
    ) -> Result<Cached<Image>, Problem> {
        let image = engine.get_image(&image.0.0, reader.scope()).await?;
        Ok(Cached::for_reader(request, &reader, &image.into()))
    }

    /// Delete an image
    ///
    /// Only one without versions.
    #[oai(path = "/images/:image", method = "delete", operation_id = "delete_image")]
    async fn delete_image(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
    ) -> Result<NoContent, Problem> {
        engine.acting_as(may.actor()).delete_image(&image.0.0).await?;
        Ok(NoContent::Done)
    }
}
