//! A worker's way through the steps of a publish job.

use tokio_util::sync::CancellationToken;

use super::{FINALIZE_PUBLISH, StepContext, StepError, StepOutput, version_of};
use crate::db::jobs::Claimed;
use crate::db::{artifacts, catalog, jobs, steps};
use crate::engine::Change;
use crate::error::chain;
use crate::model::{
    JobOutcome, JobState, Manifest, Step, StepState, Subject, VersionEvent, VersionState, has_nul, without_nul,
};
use crate::runner::{Failure, Performed};
use crate::{Condition, Engine, Error, Result};

impl Engine {
    /// Runs the steps of a publish job that are not done.
    pub(crate) async fn perform_publish(
        &self,
        job: &Claimed,
        cancelled: &CancellationToken,
    ) -> Result<Performed, Failure> {
        let id = version_of(&job.subject)?;
        let (image, version) = catalog::version_by_id(self.db().reader(), id).await?;
        let artifacts = artifacts::entries(self.db().reader(), id).await?;
        let manifest = Manifest { image, version, artifacts };
        let mut steps = steps::of_job(self.db().reader(), job.id).await?;
        loop {
            let is_open = |step: &Step| !matches!(step.state, StepState::Succeeded | StepState::Skipped);
            // Somebody else has brought the job to its end meanwhile.
            let Some(open) = steps.iter().position(is_open) else { return Ok(Performed::LeaseLost) };
            let current = steps[open].clone();
            if current.name == FINALIZE_PUBLISH {
                return self.finalize_publish(job, &current, &manifest).await;
            }
            let Some(step) = self.steps().iter().find(|step| step.name() == current.name) else {
                let reason = format!("this node does not have the step {}", current.name);
                return Err(Failure::Retry(reason));
            };
            let cx = StepContext { engine: self, manifest: &manifest, steps: &steps, cancelled };
            let output = match step.run(&cx).await {
                Ok(output) if output.as_ref().is_some_and(has_nul) => {
                    let reason =
                        format!("the output of {} holds a NUL character, which no database takes", current.name);
                    return Err(Failure::Reject(reason));
                }
                Ok(output) => output,
                Err(StepError::Reject(reason)) => return Err(Failure::Reject(reason)),
                Err(StepError::Retry(err)) => {
                    // What clients see of the job names no path of the store and no text of a backend.
                    self.note_step_failure(job, &current, &without_nul(&err.to_string())).await?;
                    return Err(Failure::Retry(chain(err.as_ref())));
                }
            };
            if !self.next_step(job, &current, output.clone()).await? {
                return Ok(Performed::LeaseLost);
            }
            steps[open] = Step { state: StepState::Succeeded, output, ..current };
        }
    }

    /// "Step done" and "next step running" are one write; `false` when the lease is lost.
    async fn next_step(&self, job: &Claimed, done: &Step, output: StepOutput) -> Result<bool> {
        let (job, done) = (job.clone(), done.id);
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("next_step", async |tx| {
                    if !jobs::hold(tx, &job, now).await? {
                        return Ok(false);
                    }
                    steps::succeed(tx, done, output, now).await?;
                    steps::start_next(tx, job.id, now).await?;
                    Ok(true)
                })
                .await
        })
        .await
    }

    async fn note_step_failure(&self, job: &Claimed, step: &Step, reason: &str) -> Result<()> {
        let (job, step, reason) = (job.clone(), step.id, reason.to_owned());
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("step_failed", async |tx| {
                    if jobs::hold(tx, &job, now).await? {
                        steps::note_failure(tx, step, &reason, now).await?;
                    }
                    Ok(())
                })
                .await
        })
        .await
    }

    /// The last step: the version becomes visible, for ever.
    async fn finalize_publish(&self, job: &Claimed, step: &Step, manifest: &Manifest) -> Result<Performed, Failure> {
        let (claimed, step, manifest) = (job.clone(), step.id, manifest.clone());
        let finished = self
            .detached(|engine| async move {
                let now = engine.clock().now();
                engine
                    .db()
                    .tx("finalize_publish", async |tx| {
                        if !jobs::finish(tx, &claimed, JobOutcome::Succeeded, None, now).await? {
                            return Ok(Performed::LeaseLost);
                        }
                        catalog::lock_image(tx, manifest.image.id).await?;
                        steps::succeed(tx, step, None, now).await?;
                        let version = manifest.version.id;
                        if !catalog::transition(tx, version, VersionEvent::Published, now).await? {
                            return Err(catalog::explain(tx, version, VersionEvent::Published).await?);
                        }
                        let errors = engine.check_cited(tx, &manifest.artifacts).await?;
                        if !errors.is_empty() {
                            let reason = "bytes that the version cites were lost meanwhile".to_owned();
                            let condition = Condition::NotPublishable;
                            return Err(Error::Precondition { condition, reason, errors });
                        }
                        catalog::next_generation(tx, manifest.image.id).await?;
                        let change = Change::new(Subject::Version, version, "published")
                            .named_in(&manifest.image.name, &manifest.version.version);
                        engine.record(tx, change.from(VersionState::Publishing).to(VersionState::Published)).await?;
                        Ok(Performed::Finished)
                    })
                    .await
            })
            .await;
        match finished {
            Err(err @ Error::Precondition { .. }) => Err(Failure::Reject(explained(&err))),
            finished => Ok(finished?),
        }
    }

    /// Fails a publish job for good, until somebody retries or abandons it.
    pub(crate) async fn fail_publish(&self, job: &Claimed, reason: &str) -> Result<()> {
        let (job, reason) = (job.clone(), reason.to_owned());
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("fail_publish", async |tx| {
                    if !jobs::finish(tx, &job, JobOutcome::Failed, Some(&reason), now).await? {
                        return Ok(());
                    }
                    let steps = steps::of_job(tx, job.id).await?;
                    if let Some(step) = steps.iter().find(|step| step.state != StepState::Succeeded) {
                        steps::fail(tx, step.id, &reason, now).await?;
                    }
                    // Whoever holds a lease runs the job.
                    let change = Change::new(Subject::Job, job.id, "failed");
                    engine.record(tx, change.from(JobState::Running).to(JobState::Failed)).await
                })
                .await
        })
        .await
    }
}

fn explained(err: &Error) -> String {
    let Error::Precondition { errors, .. } = err else { return err.to_string() };
    let members = errors.iter().map(|error| format!("; {}: {}", error.field, error.reason));
    std::iter::once(err.to_string()).chain(members).collect()
}
