use imgsrv_core::model::{self, ImageName, JobId, JobState, StepId, StepState, VersionId, VersionName};
use poem_openapi::Object;

use crate::text::{Id, Text, Timestamp};

/// The job that publishes a version.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct PublishJob {
    /// Its id.
    id: Id<JobId>,
    /// Its id once more, under the name that some clients read.
    job_id: Id<JobId>,
    /// The version that it publishes.
    version_id: Id<VersionId>,
    /// The image of that version.
    image_name: Text<ImageName>,
    /// The name of that version.
    version: Text<VersionName>,
    /// Where it stands.
    state: Text<JobState>,
    /// When a worker first took it up.
    started_at: Option<Timestamp>,
    /// When it ended.
    finished_at: Option<Timestamp>,
    /// The step that was refused.
    failed_step: Option<String>,
    /// Why it failed.
    failure_message: Option<String>,
    /// When it was queued.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
    /// In the order in which they run.
    steps: Vec<Step>,
}

impl From<model::PublishJob> for PublishJob {
    fn from(publish: model::PublishJob) -> Self {
        let state = publish.job.state();
        let failed = state == JobState::Failed;
        let failed_step = publish.steps.iter().find(|step| step.state == StepState::Failed);
        Self {
            id: Id(publish.job.id),
            job_id: Id(publish.job.id),
            version_id: Id(publish.version_id),
            image_name: Text(publish.image),
            version: Text(publish.version),
            state: Text(state),
            started_at: publish.job.started_at.map(Into::into),
            finished_at: publish.job.finished_at.map(Into::into),
            failed_step: failed_step.map(|step| step.name.clone()),
            // A job that will be tried again has a last error, but has not failed.
            failure_message: publish.job.last_error.filter(|_| failed),
            created_at: publish.job.created_at.into(),
            updated_at: publish.job.updated_at.into(),
            steps: publish.steps.into_iter().map(Into::into).collect(),
        }
    }
}

/// One step of a publish job.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Step {
    /// Its id.
    id: Id<StepId>,
    /// The job that it belongs to.
    job_id: Id<JobId>,
    /// Its name, unique in the job.
    name: String,
    /// Where it stands.
    state: Text<StepState>,
    /// Whether the version stays unpublished when this step fails; it always does.
    blocking: bool,
    /// Its place: steps run in ascending order.
    sequence: i64,
    /// How often it was run.
    attempt_count: i64,
    /// When it first ran.
    started_at: Option<Timestamp>,
    /// When it ended.
    finished_at: Option<Timestamp>,
    /// Why it was refused.
    failure_message: Option<String>,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

impl From<model::Step> for Step {
    fn from(step: model::Step) -> Self {
        Self {
            id: Id(step.id),
            job_id: Id(step.job_id),
            name: step.name,
            state: Text(step.state),
            blocking: true,
            sequence: step.sequence.into(),
            attempt_count: step.attempts.into(),
            started_at: step.started_at.map(Into::into),
            finished_at: step.finished_at.map(Into::into),
            failure_message: step.failure_message,
            created_at: step.created_at.into(),
            updated_at: step.updated_at.into(),
        }
    }
}
