use imgsrv_core::Engine;
use imgsrv_core::model::JobId;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;

use super::Tag;
use super::respond::Accepted;
use crate::extract::CanWriteContent;
use crate::problem::Problem;
use crate::text::Id;
use crate::view::PublishJob;

pub(crate) struct JobsApi;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Publishing")]
impl JobsApi {
    /// Show a publish job
    ///
    /// With its steps in their order.
    #[oai(path = "/publish-jobs/:job_id", method = "get", operation_id = "get_job")]
    async fn get_job(
        &self,
        engine: Data<&Engine>,
        _may: CanWriteContent,
        job_id: Path<Id<JobId>>,
    ) -> Result<Json<PublishJob>, Problem> {
        Ok(Json(engine.get_job(job_id.0.0).await?.into()))
    }

    /// Retry a failed publish job
    ///
    /// From the first step that is not done.
    #[oai(path = "/publish-jobs/:job_id/retry", method = "post", operation_id = "retry_job")]
    async fn retry_job(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        job_id: Path<Id<JobId>>,
    ) -> Result<Accepted<PublishJob>, Problem> {
        Ok(Accepted::new(engine.acting_as(may.actor()).retry_job(job_id.0.0).await?))
    }

    /// Abandon a publish job
    ///
    /// The version is a draft again. Abandoning again changes nothing.
    #[oai(path = "/publish-jobs/:job_id/abandon", method = "post", operation_id = "abandon_job")]
    async fn abandon_job(
        &self,
        engine: Data<&Engine>,
        may: CanWriteContent,
        job_id: Path<Id<JobId>>,
    ) -> Result<Json<PublishJob>, Problem> {
        Ok(Json(engine.acting_as(may.actor()).abandon_job(job_id.0.0).await?.into()))
    }
}
