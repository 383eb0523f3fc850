use imgsrv_core::Engine;
use imgsrv_core::model::{AliasName, Cursor, ImageName, Reference};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use super::respond::NoContent;
use super::{Tag, page};
use crate::caching::Cached;
use crate::extract::{CanWriteContent, Reader};
use crate::number::Limit;
use crate::problem::Problem;
use crate::text::Text;
use crate::view::{Alias, Aliases, PutAlias, Version};

pub(crate) struct AliasesApi;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Aliases")]
impl AliasesApi {
    /// List the aliases of an image
    ///
    /// By name.
    #[oai(path = "/images/:image/aliases", method = "get", operation_id = "list_aliases")]
    async fn list_aliases(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        image: Path<Text<ImageName>>,
        /// At most so many, 1 to 1000.
        limit: Query<Option<Limit>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<Text<Cursor>>>,
        request: &Request,
    ) -> Result<Cached<Aliases>, Problem> {
        let aliases = engine.list_aliases(&image.0.0, reader.scope(), page(&limit, cursor)?).await?;
        Ok(Cached::for_reader(request, &reader, &aliases.into()))
    }

    /// Show an alias
    ///
    /// With the version that it points at now.
    #[oai(path = "/images/:image/aliases/:alias", method = "get", operation_id = "get_alias")]
    async fn get_alias(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        image: Path<Text<ImageName>>,
        alias: Path<Text<AliasName>>,
        request: &Request,
    ) -> Result<Cached<Alias>, Problem> {
        let alias = engine.get_alias(&image.0.0, &alias.0.0, reader.scope()).await?;
        Ok(Cached::for_reader(request, &reader, &alias.into()))
    }

    /// Create or move an alias
    ///
    /// Its target has to be published.
    #[oai(path = "/images/:image/aliases/:alias", method = "put", operation_id = "put_alias")]
    async fn put_alias(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        alias: Path<Text<AliasName>>,
        body: Json<PutAlias>,
    ) -> Result<Json<Alias>, Problem> {
        let engine = engine.acting_as(may.actor());
        Ok(Json(engine.put_alias(&image.0.0, &alias.0.0, &body.0.version.0).await?.into()))
    }

    /// Delete an alias
    ///
    /// The version that it points at stays.
    #[oai(path = "/images/:image/aliases/:alias", method = "delete", operation_id = "delete_alias")]
    async fn delete_alias(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        image: Path<Text<ImageName>>,
        alias: Path<Text<AliasName>>,
    ) -> Result<NoContent, Problem> {
        engine.acting_as(may.actor()).delete_alias(&image.0.0, &alias.0.0).await?;
        Ok(NoContent::Done)
    }

    /// Find the version that a name stands for
    ///
    /// An exact published version wins over an alias of the same text.
    #[oai(path = "/images/:image/refs/:reference", method = "get", operation_id = "resolve")]
    async fn resolve(
        &self,
        engine: Data<&Engine>,
        image: Path<Text<ImageName>>,
        reference: Path<Text<Reference>>,
        request: &Request,
    ) -> Result<Cached<Version>, Problem> {
        let version = engine.resolve(&image.0.0, &reference.0.0).await?;
        Ok(Cached::for_everybody(request, &version.into()))
    }
}
