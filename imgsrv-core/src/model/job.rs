//! Durable work, and the steps of publishing.

use chrono::{DateTime, Utc};

use super::text::words;
use super::{ImageName, JobId, StepId, VersionId, VersionName};

words!(
    /// What a job does to its subject.
    JobKind, "job kind", {
        /// Reads the parts of an upload that no hash chain covers.
        Ingest = "ingest",
        /// Runs the steps that publish a version.
        Publish = "publish",
        /// Asks the store for every object of a blob.
        CheckBlob = "check-blob",
        /// Lists the store for objects that no row knows.
        ListObjects = "list-objects",
    }
);

words!(
    /// How a job ended.
    JobOutcome, "job outcome", {
        /// Did what it was for.
        Succeeded = "succeeded",
        /// Was refused; it can be retried.
        Failed = "failed",
        /// Was given up by somebody; it stays so.
        Abandoned = "abandoned",
    }
);

words!(
    /// Where a job stands, as clients see it.
    JobState, "job state", {
        /// Waits for a worker.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Did what it was for.
        Succeeded = "succeeded",
        /// Was refused or abandoned.
        Failed = "failed",
    }
);

words!(
    /// Where a step of a publish job stands.
    StepState, "step state", {
        /// Its turn has not come.
        Queued = "queued",
        /// Its turn has come.
        Running = "running",
        /// Done; its output is stored.
        Succeeded = "succeeded",
        /// Refused; a retry of the job begins here.
        Failed = "failed",
        /// Never ran, because the job was abandoned.
        Skipped = "skipped",
    }
);

/// A job as its row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// What it does it to: the id of an upload or a version, a digest.
    pub subject: String,
    /// How often it was claimed since it was queued or last retried.
    pub attempts: u32,
    /// How it ended.
    pub outcome: Option<JobOutcome>,
    /// Whether a worker holds it.
    pub leased: bool,
    /// Why it last failed, for people.
    pub last_error: Option<String>,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When a worker first claimed it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Job {
    /// The state that clients see.
    pub fn state(&self) -> JobState {
        match self.outcome {
            Some(JobOutcome::Succeeded) => JobState::Succeeded,
            Some(JobOutcome::Failed | JobOutcome::Abandoned) => JobState::Failed,
            None if self.leased => JobState::Running,
            None => JobState::Queued,
        }
    }
}

/// One step of a publish job.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its id.
    pub id: StepId,
    /// The job that it belongs to.
    pub job_id: JobId,
    /// The name that [`PublishStep::name`](crate::publish::PublishStep::name) gave when the job was made.
    pub name: String,
    /// Its place: steps run in ascending order.
    pub sequence: i32,
    /// Where it stands.
    pub state: StepState,
    /// How often it was run.
    pub attempts: u32,
    /// What it found out.
    pub output: Option<serde_json::Value>,
    /// Why it was refused, for people.
    pub failure_message: Option<String>,
    /// When it first ran.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// The job that publishes a version, with its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishJob {
    /// The job.
    pub job: Job,
    /// The version that it publishes.
    pub version_id: VersionId,
    /// The image of that version.
    pub image: ImageName,
    /// The name of that version.
    pub version: VersionName,
    /// In the order in which they run.
    pub steps: Vec<Step>,
}
