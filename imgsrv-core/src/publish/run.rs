//! A worker's way through the steps of a publish job.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{FINALIZE_PUBLISH, FIRST_ADDED, PublishStep, StepContext, StepError, StepOutput, version_of};
use crate::db::jobs::Claimed;
use crate::db::steps::Done;
use crate::db::{artifacts, catalog, jobs, steps};
use crate::engine::Change;
use crate::error::chain;
use crate::model::{
    JobOutcome, JobState, Manifest, Step, StepState, Subject, VersionEvent, VersionState, has_nul, without_nul,
};
use crate::runner::{Failure, Performed};
use crate::{Condition, Engine, Error, Result};

/// How long a step may run before the job shows that it does. Most take less, and each commit waits for the disk.
const SOON: Duration = Duration::from_millis(50);

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
        // While there are any, the step whose turn it is does not stand as running either.
        let mut done = Vec::new();
        loop {
            let is_open = |step: &Step| !matches!(step.state, StepState::Succeeded | StepState::Skipped);
            // Somebody else has brought the job to its end meanwhile.
            let Some(open) = steps.iter().position(is_open) else { return Ok(Performed::LeaseLost) };
            let current = steps[open].clone();
            if current.name == FINALIZE_PUBLISH {
                return self.finalize_publish(job, done, &current, &manifest).await;
            }
            let step = self.steps().iter().find(|step| step.name() == current.name);
            // Of a step that takes the process with it the job has to show that it was its turn.
            let at_once = current.sequence >= FIRST_ADDED || job.crashes > 0;
            if (at_once || step.is_none()) && !self.next_step(job, &mut done).await? {
                return Ok(Performed::LeaseLost);
            }
            let Some(step) = step else {
                let reason = format!("this node does not have the step {}", current.name);
                return Err(Failure::Retry(reason));
            };
            let begun_at = self.clock().now();
            let cx = StepContext { engine: self, manifest: &manifest, steps: &steps, cancelled };
            let Some((ran, took_long)) = self.run_step(step.as_ref(), &cx, job, &mut done).await? else {
                return Ok(Performed::LeaseLost);
            };
            let output = match ran {
                Ok(output) if !output.as_ref().is_some_and(has_nul) => output,
                failed => {
                    // Else it would be the failure of one that is done.
                    if !self.next_step(job, &mut done).await? {
                        return Ok(Performed::LeaseLost);
                    }
                    return Err(self.step_failure(job, &current, failed).await?);
                }
            };
            let begun_at = (!done.is_empty()).then_some(begun_at);
            done.push(Done { id: current.id, output: output.clone(), begun_at, at: self.clock().now() });
            if (at_once || took_long) && !self.next_step(job, &mut done).await? {
                return Ok(Performed::LeaseLost);
            }
            steps[open] = Step { state: StepState::Succeeded, output, ..current };
        }
    }

    /// Runs a step; what it came to, and whether it took long. When it does, what was done before it is written down
    /// meanwhile. None when the lease is lost.
    async fn run_step(
        &self,
        step: &dyn PublishStep,
        cx: &StepContext<'_>,
        job: &Claimed,
        done: &mut Vec<Done>,
    ) -> Result<Option<(Result<StepOutput, StepError>, bool)>> {
        let mut run = step.run(cx);
        if let Ok(ran) = timeout(SOON, &mut run).await {
            return Ok(Some((ran, false)));
        }
        let held = pin!(self.next_step(job, done));
        let (held, ran) = match select(run, held).await {
            Either::Left((ran, held)) => (held.await?, ran),
            Either::Right((Ok(true), run)) => (true, run.await),
            Either::Right((held, _)) => return held.map(|_| None),
        };
        Ok(held.then_some((ran, true)))
    }

    /// "Steps done" and "next step running" are one write; `false` when the lease is lost.
    async fn next_step(&self, job: &Claimed, done: &mut Vec<Done>) -> Result<bool> {
        if done.is_empty() {
            return Ok(true);
        }
        let (job, done) = (job.clone(), std::mem::take(done));
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("next_step", async |tx| {
                    if !jobs::hold(tx, &job, now).await? {
                        return Ok(false);
                    }
                    for done in done {
                        steps::succeed(tx, done).await?;
                    }
                    steps::start_next(tx, job.id, now).await?;
                    Ok(true)
                })
                .await
        })
        .await
    }

    async fn step_failure(&self, job: &Claimed, step: &Step, failed: Result<StepOutput, StepError>) -> Result<Failure> {
        match failed {
            Ok(_) => {
                let reason = format!("the output of {} holds a NUL character, which no database takes", step.name);
                Ok(Failure::Reject(reason))
            }
            Err(StepError::Reject(reason)) => Ok(Failure::Reject(reason)),
            Err(StepError::Retry(err)) => {
                // What clients see of the job names no path of the store and no text of a backend.
                self.note_step_failure(job, step, &without_nul(&err.to_string())).await?;
                Ok(Failure::Retry(chain(err.as_ref())))
            }
        }
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
    async fn finalize_publish(
        &self,
        job: &Claimed,
        mut done: Vec<Done>,
        step: &Step,
        manifest: &Manifest,
    ) -> Result<Performed, Failure> {
        let (claimed, mut all, step, manifest) = (job.clone(), done.clone(), step.id, manifest.clone());
        let finished = self
            .detached(|engine| async move {
                let now = engine.clock().now();
                let begun_at = (!all.is_empty()).then_some(now);
                all.push(Done { id: step, output: None, begun_at, at: now });
                engine
                    .db()
                    .tx("finalize_publish", async |tx| {
                        if !jobs::finish(tx, &claimed, JobOutcome::Succeeded, None, now).await? {
                            return Ok(Performed::LeaseLost);
                        }
                        catalog::lock_image(tx, manifest.image.id).await?;
                        for done in all {
                            steps::succeed(tx, done).await?;
                        }
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
        let err = match finished {
            Ok(performed) => return Ok(performed),
            Err(err) => err,
        };
        if !self.next_step(job, &mut done).await? {
            return Ok(Performed::LeaseLost);
        }
        Err(match err {
            Error::Precondition { .. } => Failure::Reject(explained(&err)),
            err => err.into(),
        })
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
