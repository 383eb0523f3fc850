use poem_openapi::ApiResponse;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON;

/// 201 with what was made.
#[derive(ApiResponse)]
pub(crate) enum Created<T: ToJSON> {
    /// Made
    #[oai(status = 201)]
    Created(Json<T>),
}

impl<T: ToJSON> Created<T> {
    pub(crate) fn new(made: impl Into<T>) -> Self {
        Self::Created(Json(made.into()))
    }
}

/// 202 with the job that does it.
#[derive(ApiResponse)]
pub(crate) enum Accepted<T: ToJSON> {
    /// Will be done
    #[oai(status = 202)]
    Accepted(Json<T>),
}

impl<T: ToJSON> Accepted<T> {
    pub(crate) fn new(job: impl Into<T>) -> Self {
        Self::Accepted(Json(job.into()))
    }
}

/// 204.
#[derive(ApiResponse)]
pub(crate) enum NoContent {
    /// Done
    #[oai(status = 204)]
    Done,
}
