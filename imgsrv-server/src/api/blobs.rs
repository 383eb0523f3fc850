use imgsrv_core::model::Digest;
use imgsrv_core::model::Scope;
use imgsrv_core::{Engine, Error};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::Tag;
use crate::download::{Audience, Download, File};
use crate::extract::Reader;
use crate::problem::Problem;
use crate::text::Text;

pub(crate) struct BlobsApi;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Blobs")]
impl BlobsApi {
    /// Download a blob
    ///
    /// Without a token only blobs that a published version cites exist.
    #[oai(path = "/blobs/:digest", method = "get", operation_id = "read_blob")]
    async fn read_blob(
        &self,
        engine: Data<&Engine>,
        reader: Reader,
        digest: Path<Text<Digest>>,
        request: &Request,
    ) -> Result<Download, Problem> {
        let digest = &digest.0.0;
        // Published first, whoever asks: what everybody may have, caches may keep.
        let (blob, audience) = match engine.get_blob(digest, Scope::Published).await {
            Err(Error::NotFound(_)) if reader.scope() == Scope::All => {
                (engine.get_blob(digest, Scope::All).await?, Audience::Writers)
            }
            published => (published?, Audience::EverybodyHere),
        };
        let file = File {
            digest,
            size: blob.size,
            media_type: blob.media_type.as_ref(),
            modified: blob.created_at,
            name: digest.hex().to_owned(),
            audience,
        };
        file.send(&engine, request).await
    }
}
