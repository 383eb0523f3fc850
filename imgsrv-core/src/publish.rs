//! Publishing: a durable job of steps that makes a draft immutable and visible.

mod incus_index;
mod run;
mod step;
mod validate_catalog;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use step::{PublishStep, StepContext, StepError, StepOutput};

use crate::db::{Tx, artifacts, catalog, jobs, steps};
use crate::engine::Change;
use crate::error::unique;
use crate::model::incus::collisions;
use crate::model::{
    ArtifactEntry, BlobRef, Digest, ImageName, Job, JobId, JobKind, JobOutcome, JobState, Manifest, PublishJob,
    Subject, VersionEvent, VersionId, VersionName, VersionState,
};
use crate::{Condition, Engine, Error, FieldError, Resource, Result};

pub(crate) const VALIDATE_CATALOG: &str = "validate_catalog";
const FINALIZE_PUBLISH: &str = "finalize_publish";

/// Where the first of an embedder's steps stands, and the last step of all.
const FIRST_ADDED: i32 = 21;
const FINAL: i32 = 30;

/// How often a publish begins anew when the job that it found is abandoned at that moment.
const TRIES: usize = 5;

/// The built-in steps, then those of the embedder.
pub(crate) fn with_built_in(added: Vec<Arc<dyn PublishStep>>) -> Result<Vec<Arc<dyn PublishStep>>> {
    let mut steps: Vec<Arc<dyn PublishStep>> =
        vec![Arc::new(validate_catalog::ValidateCatalog), Arc::new(incus_index::IncusIndex)];
    steps.extend(added);
    let what = "publish steps";
    unique(what, steps.iter().map(|step| step.name()).chain([FINALIZE_PUBLISH]))?;
    let most = usize::try_from(FINAL - FIRST_ADDED).unwrap_or(0) + 2;
    if steps.len() > most {
        return Err(Error::Invalid { what, reason: format!("at most {} can be added", most - 2) });
    }
    Ok(steps)
}

/// The names of all steps with their places: 10, 20, then those of the embedder, then 30.
fn sequence(steps: &[Arc<dyn PublishStep>]) -> impl Iterator<Item = (i32, &'static str)> {
    let places = [10, 20].into_iter().chain(FIRST_ADDED..FINAL);
    let names = steps.iter().map(|step| step.name());
    places.zip(names).chain([(FINAL, FINALIZE_PUBLISH)])
}

/// The refusal to go on without the bytes of a blob.
fn lost(digest: &Digest) -> StepError {
    StepError::Reject(format!("the store does not have all bytes of {digest}: upload it again, then retry the job"))
}

/// Every blob that artifacts cite, with the member that cites it.
fn cited(entries: &[ArtifactEntry]) -> impl Iterator<Item = (String, &BlobRef)> {
    entries.iter().flat_map(|entry| {
        let artifact = &entry.artifact;
        let own = (format!("artifacts/{}/primary_blob_digest", artifact.id), &artifact.blob);
        let attached = entry.attachments.iter().map(move |attachment| {
            (format!("artifacts/{}/attachments/{}/blob_digest", artifact.id, attachment.id), &attachment.blob)
        });
        std::iter::once(own).chain(attached)
    })
}

impl Engine {
    /// Freezes a draft and queues the job that publishes it. For a version that is being published, or is, the answer
    /// is the job that does or did it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::NotPublishable`] naming each artifact or attachment that lacks something; then
    /// it is still a draft.
    pub async fn publish_version(&self, image: &ImageName, version: &VersionName) -> Result<PublishJob> {
        let (image, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            let (_, version) =
                catalog::version(engine.db().reader(), &image, &version, crate::model::Scope::All).await?;
            for _ in 0..TRIES {
                let queue = async |tx: &Tx| engine.queue_publish(tx, version.id).await;
                if let Some(job) = engine.db().tx("publish_version", queue).await? {
                    engine.wake();
                    return Ok(job);
                }
            }
            Err(Error::changed_meanwhile("the version"))
        })
        .await
    }

    /// The job that publishes the version; `None` when its job was abandoned a moment ago: then try again.
    async fn queue_publish(&self, tx: &Tx, id: VersionId) -> Result<Option<PublishJob>> {
        let now = self.clock().now();
        if !catalog::transition(tx, id, VersionEvent::PublishRequested, now).await? {
            if let Some(job) = jobs::current(tx, JobKind::Publish, &id.to_string()).await? {
                return publish_job(tx, job).await.map(Some);
            }
            // To the guard it was still frozen, and did not have to be waited for; now it is a draft, or gone.
            catalog::version_by_id(tx, id).await?;
            return Ok(None);
        }
        let (image, version) = catalog::version_by_id(tx, id).await?;
        let artifacts = artifacts::entries(tx, id).await?;
        let manifest = Manifest { image, version, artifacts };
        self.check_publishable(tx, &manifest).await?;
        let job: JobId = self.clock().new_id().into();
        jobs::enqueue(tx, job, JobKind::Publish, &id.to_string(), now, now).await?;
        let steps = sequence(self.steps()).map(|(place, name)| (self.clock().new_id().into(), place, name));
        let steps = steps::insert(tx, job, steps, now).await?;
        let change = Change::new(Subject::Version, id, "publish requested")
            .named_in(&manifest.image.name, &manifest.version.version);
        self.record(tx, change.from(VersionState::Draft).to(VersionState::Publishing)).await?;
        let Manifest { image, version, .. } = manifest;
        let job = jobs::get(tx, job).await?;
        Ok(Some(PublishJob { job, version_id: id, image: image.name, version: version.version, steps }))
    }

    async fn check_publishable(&self, tx: &Tx, manifest: &Manifest) -> Result<()> {
        let mut errors = Vec::new();
        if manifest.artifacts.is_empty() {
            errors.push(FieldError { field: "artifacts".to_owned(), reason: "there are none".to_owned() });
        }
        errors.extend(self.check_cited(tx, &manifest.artifacts).await?);
        errors.extend(collisions(&manifest.artifacts).into_iter().map(|(first, second)| FieldError {
            field: format!("artifacts/{second}"),
            reason: format!(
                "stands for the same product as artifact {first}: one variant and architecture may have one root file \
                 of each kind, with the same metadata"
            ),
        }));
        if errors.is_empty() {
            return Ok(());
        }
        let reason = format!("version {} cannot be published as it is", manifest.version.version);
        Err(Error::Precondition { condition: Condition::NotPublishable, reason, errors })
    }

    /// Cites every blob of the version, in the order of their digests; what is not there as declared.
    async fn check_cited(&self, tx: &Tx, entries: &[ArtifactEntry]) -> Result<Vec<FieldError>> {
        let mut by_digest = BTreeMap::<&Digest, Vec<(String, u64)>>::new();
        for (field, blob) in cited(entries) {
            by_digest.entry(&blob.digest).or_default().push((field, blob.size));
        }
        let mut errors = Vec::new();
        for (digest, citations) in by_digest {
            let size = self.cite(tx, digest).await?;
            for (field, declared) in citations {
                let reason = match size {
                    None => format!("{digest} has not been uploaded"),
                    Some(size) if size != declared => format!("{digest} has {size} bytes, declared are {declared}"),
                    Some(_) => continue,
                };
                errors.push(FieldError { field, reason });
            }
        }
        Ok(errors)
    }

    /// A publish job with its steps.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for jobs of other kinds.
    pub async fn get_job(&self, id: JobId) -> Result<PublishJob> {
        self.detached(|engine| async move {
            engine.db().snapshot("job", async |tx| publish_job(tx, jobs::get(tx, id).await?).await).await
        })
        .await
    }

    /// Queues a failed job again; it goes on with the first step that is not done.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] unless the job has failed and its version is frozen.
    pub async fn retry_job(&self, id: JobId) -> Result<PublishJob> {
        self.detached(|engine| async move {
            let now = engine.clock().now();
            let job = engine
                .db()
                .tx("retry_job", async |tx| {
                    let reopened = jobs::reopen(tx, id, now).await?;
                    let job = publish_job(tx, jobs::get(tx, id).await?).await?;
                    let (_, version) = catalog::version_by_id(tx, job.version_id).await?;
                    if !reopened || version.state != VersionState::Publishing {
                        return Err(wrong_state(&job, "only a failed job can be retried"));
                    }
                    steps::requeue_failed(tx, id, now).await?;
                    let change = Change::new(Subject::Job, id, "retried");
                    engine.record(tx, change.from(JobState::Failed).to(JobState::Queued)).await?;
                    publish_job(tx, jobs::get(tx, id).await?).await
                })
                .await?;
            engine.wake();
            Ok(job)
        })
        .await
    }

    /// Gives a job up; its version is a draft again. A job that was given up before stays so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] once it has succeeded.
    pub async fn abandon_job(&self, id: JobId) -> Result<PublishJob> {
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("abandon_job", async |tx| {
                    let before = jobs::abandon(tx, id, now).await?;
                    let job = publish_job(tx, jobs::get(tx, id).await?).await?;
                    let Some(before) = before else {
                        return match job.job.outcome {
                            Some(JobOutcome::Abandoned) => Ok(job),
                            _ => Err(wrong_state(&job, "what is published stays so")),
                        };
                    };
                    let version = job.version_id;
                    if !catalog::transition(tx, version, VersionEvent::Abandoned, now).await? {
                        return Err(catalog::explain(tx, version, VersionEvent::Abandoned).await?);
                    }
                    steps::skip_rest(tx, id, now).await?;
                    let change = Change::new(Subject::Version, version, "abandoned").named_in(&job.image, &job.version);
                    engine.record(tx, change.from(VersionState::Publishing).to(VersionState::Draft)).await?;
                    let change = Change::new(Subject::Job, id, "abandoned");
                    engine.record(tx, change.from(before.state()).to(JobOutcome::Abandoned)).await?;
                    publish_job(tx, jobs::get(tx, id).await?).await
                })
                .await
        })
        .await
    }
}

async fn publish_job(tx: &Tx, job: Job) -> Result<PublishJob> {
    if job.kind != JobKind::Publish {
        return Err(Error::NotFound(Resource::Job(job.id)));
    }
    let version_id = version_of(&job.subject)?;
    let (image, version) = catalog::version_by_id(tx, version_id).await?;
    let steps = steps::of_job(tx, job.id).await?;
    Ok(PublishJob { job, version_id, image: image.name, version: version.version, steps })
}

fn version_of(subject: &str) -> Result<VersionId> {
    let id = subject.parse::<uuid::Uuid>().map_err(|err| Error::internal("the subject of a publish job", err))?;
    Ok(id.into())
}

fn wrong_state(job: &PublishJob, rule: &str) -> Error {
    let reason = format!("the job is {} and its version {}: {rule}", job.job.state(), job.version);
    Error::precondition(Condition::WrongState, reason)
}
