//! What a publish job runs.

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::blobs::{LOST, OTHER};
use crate::model::{ArtifactEntry, BlobRef, Image, Manifest, Step, StepState, Version};
use crate::stream::BlobStream;
use crate::{BoxError, Engine, Error};

/// A step of every publish job, run before the version becomes visible.
///
/// Steps compute facts or refuse: a policy, a virus scan, a signature. What a step finds out is stored and shown with
/// the job.
#[async_trait]
pub trait PublishStep: Send + Sync + 'static {
    /// Its name in the job, unique among the steps. Stored with the job: renaming a step is a migration.
    fn name(&self) -> &'static str;

    /// Does the work. It may be run again after a crash or a failure, so it must be idempotent.
    ///
    /// # Errors
    /// [`StepError::Retry`] to be run again later, for as long as it takes; [`StepError::Reject`] to fail the job.
    async fn run(&self, cx: &StepContext<'_>) -> Result<StepOutput, StepError>;
}

/// What a step found out: JSON that later steps, projections and the job's answer can use, or nothing.
pub type StepOutput = Option<Value>;

/// Why a step did not succeed.
///
/// Any error becomes [`Retry`](Self::Retry) by `?`; refusing is explicit.
#[derive(Debug)]
pub enum StepError {
    /// Something that may be better later.
    Retry(BoxError),
    /// The version must not be published as it is; the text is for people.
    Reject(String),
}

impl<E: Into<BoxError>> From<E> for StepError {
    fn from(err: E) -> Self {
        Self::Retry(err.into())
    }
}

/// What a step works on.
#[derive(Debug)]
pub struct StepContext<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) manifest: &'a Manifest,
    pub(crate) steps: &'a [Step],
    pub(crate) cancelled: &'a CancellationToken,
}

impl StepContext<'_> {
    /// The image of the version.
    pub fn image(&self) -> &Image {
        &self.manifest.image
    }

    /// The version that is being published.
    pub fn version(&self) -> &Version {
        &self.manifest.version
    }

    /// Its artifacts with their attachments.
    pub fn artifacts(&self) -> &[ArtifactEntry] {
        &self.manifest.artifacts
    }

    /// What an earlier step of this job found out.
    pub fn output(&self, step: &str) -> Option<&Value> {
        let done = self.steps.iter().find(|done| done.name == step && done.state == StepState::Succeeded)?;
        done.output.as_ref()
    }

    /// The bytes of an artifact or attachment.
    ///
    /// # Errors
    /// [`StepError::Reject`] when the store does not have them, which only another upload changes; else
    /// [`StepError::Retry`].
    pub async fn open(&self, blob: &BlobRef) -> Result<BlobStream, StepError> {
        match self.engine.read_blob(&blob.digest, None).await {
            Ok(stream) => Ok(stream),
            Err(Error::Unavailable { what: LOST | OTHER, .. }) => Err(super::lost(&blob.digest)),
            Err(err) => Err(err.into()),
        }
    }

    /// Cancelled when this node lost the job or shuts down; what the step answers then is dropped.
    pub fn cancelled(&self) -> &CancellationToken {
        self.cancelled
    }
}
