use imgsrv_core::model::{Cursor, Digest, UploadFilter, UploadId, UploadState};
use imgsrv_core::{Engine, PartClaim};
use poem::web::Data;
use poem::{Body, Request};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Binary, Json};
use poem_openapi::{ApiResponse, OpenApi};

use super::{Tag, page};
use crate::body::content_length;
use crate::capacity::Capacity;
use crate::content_digest;
use crate::extract::CanWriteContent;
use crate::number::{Limit, Number};
use crate::problem::Problem;
use crate::text::{Id, Text};
use crate::view::{BeginUpload, CompleteUpload, Parts, StoredPart, Upload, Uploads};

pub(crate) struct UploadsApi;

#[derive(ApiResponse)]
enum Begun {
    /// The bytes are known: nothing has to be sent
    #[oai(status = 200)]
    Ready(Json<Upload>),
    /// The session waits for parts
    #[oai(status = 201)]
    Created(Json<Upload>),
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Uploads")]
impl UploadsApi {
    /// Begin an upload
    ///
    /// A digest that is known with this size is ready at once. Sessions for one digest may run side by side.
    #[oai(path = "/uploads", method = "post", operation_id = "begin_upload")]
    async fn begin_upload(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        body: Json<BeginUpload>,
    ) -> Result<Begun, Problem> {
        let upload = engine.acting_as(may.actor()).begin_upload(body.0.into()).await?;
        Ok(match upload.state {
            UploadState::Ready => Begun::Ready(Json(upload.into())),
            _ => Begun::Created(Json(upload.into())),
        })
    }

    /// List uploads
    ///
    /// A program that was restarted finds its session by the digest.
    #[oai(path = "/uploads", method = "get", operation_id = "list_uploads")]
    async fn list_uploads(
        &self,
        engine: Data<&Engine>,
        _may: CanWriteContent,
        /// Only sessions for this digest.
        expected_digest: Query<Option<Text<Digest>>>,
        /// Only sessions in this state.
        state: Query<Option<Text<UploadState>>>,
        /// At most so many, 1 to 1000.
        limit: Query<Option<Limit>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<Text<Cursor>>>,
    ) -> Result<Json<Uploads>, Problem> {
        let filter = UploadFilter {
            expected_digest: expected_digest.0.map(|digest| digest.0),
            state: state.0.map(|state| state.0),
            page: page(&limit, cursor)?,
        };
        Ok(Json(engine.list_uploads(filter).await?.into()))
    }

    /// Show an upload
    ///
    /// Needs no token: the id cannot be guessed, and whoever knows it may look.
    #[oai(path = "/uploads/:upload_id", method = "get", operation_id = "get_upload")]
    async fn get_upload(&self, engine: Data<&Engine>, upload_id: Path<Id<UploadId>>) -> Result<Json<Upload>, Problem> {
        Ok(Json(engine.get_upload(upload_id.0.0).await?.into()))
    }

    /// Send a part
    ///
    /// In any order, at most 5 GiB each. A repeated number replaces the part. A part sent with `Content-Digest` is
    /// checked against its SHA-256.
    #[oai(path = "/uploads/:upload_id/parts/:number", method = "put", operation_id = "put_part")]
    async fn put_part(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        upload_id: Path<Id<UploadId>>,
        number: Path<Number>,
        request: &Request,
        body: Binary<Body>,
    ) -> Result<Json<StoredPart>, Problem> {
        let (id, number) = (upload_id.0.0, number.0.0);
        let claim = claim(request)?;
        let _place = Capacity::upload(request)?;
        let part = engine.acting_as(may.actor()).put_part(id, number, claim, body.0.into_bytes_stream()).await?;
        Ok(Json(StoredPart::of(id, part)))
    }

    /// List the parts of an upload
    ///
    /// A client that was interrupted sends what is not in the list.
    #[oai(path = "/uploads/:upload_id/parts", method = "get", operation_id = "list_parts")]
    async fn list_parts(
        &self,
        engine: Data<&Engine>,
        _may: CanWriteContent,
        upload_id: Path<Id<UploadId>>,
    ) -> Result<Json<Parts>, Problem> {
        Ok(Json(engine.list_parts(upload_id.0.0).await?.into()))
    }

    /// Complete an upload
    ///
    /// The session is `ready` or `failed` at once where the digest is known already, else `completed` until a worker
    /// has read the bytes.
    #[oai(path = "/uploads/:upload_id/complete", method = "post", operation_id = "complete_upload")]
    async fn complete_upload(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        upload_id: Path<Id<UploadId>>,
        body: Json<CompleteUpload>,
    ) -> Result<Json<Upload>, Problem> {
        let (engine, id) = (engine.acting_as(may.actor()), upload_id.0.0);
        let upload = match body.0.list() {
            Ok(list) => engine.complete_upload(id, list).await?,
            // A session that was completed before is answered as it stands, whatever the list says; no other takes none.
            Err(problem) => engine.complete_upload(id, Vec::new()).await.map_err(|_| problem)?,
        };
        Ok(Json(upload.into()))
    }

    /// Abort an upload
    ///
    /// Its bytes are deleted. Aborting again changes nothing.
    #[oai(path = "/uploads/:upload_id/abort", method = "post", operation_id = "abort_upload")]
    async fn abort_upload(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        upload_id: Path<Id<UploadId>>,
    ) -> Result<Json<Upload>, Problem> {
        Ok(Json(engine.acting_as(may.actor()).abort_upload(upload_id.0.0).await?.into()))
    }
}

/// What the headers say about the bytes of a part.
fn claim(request: &Request) -> Result<PartClaim, Problem> {
    let size = content_length(request);
    let sha256 = content_digest::sha256(request.headers())
        .map_err(|error| Problem::invalid(content_digest::HEADER, error.to_string()))?;
    Ok(PartClaim { size, sha256 })
}
