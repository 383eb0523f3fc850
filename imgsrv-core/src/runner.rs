//! Workers: they claim jobs, keep the leases while they work, and finish or give back what they hold.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::db::jobs::{self, Claimed, Crash};
use crate::db::{Tx, steps};
use crate::model::{JobKind, without_nul};
use crate::{Engine, Error, Result};

/// A job that so many workers in a row did not come back from, or met a bug in, will not be better by itself.
const CRASH_LOOP: u32 = 5;

/// How often each node sweeps.
const SWEEP: Duration = Duration::from_mins(1);

/// How work on a job ended.
pub(crate) enum Performed {
    /// The job's row says how.
    Finished,
    /// Another worker holds the job, or nobody does any more.
    LeaseLost,
}

/// Why work on a job did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that may be better later.
    Retry(String),
    /// A bug, which is tried a few times more.
    Bug(String),
    /// It will not be better by itself.
    Reject(String),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        match err {
            Error::Unavailable { .. } | Error::StorageFull => Self::Retry(err.chain()),
            err => Self::Bug(err.chain()),
        }
    }
}

/// What [`Engine::run_until_idle`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Claims of jobs.
    pub jobs: u64,
}

impl Engine {
    /// Works on jobs and sweeps until `stop` is cancelled; then gives back the leases that it holds. While the store does
    /// not answer, no job is claimed.
    ///
    /// Any number of nodes may run at once. A node whose requests only read or write need not run at all.
    pub async fn run(&self, stop: CancellationToken) {
        let sweeping = AbortOnDropHandle::new(tokio::spawn(self.clone().sweep_now_and_then(stop.clone())));
        let scrubbing = AbortOnDropHandle::new(tokio::spawn(self.clone().scrub(stop.clone())));
        let permits = Arc::new(Semaphore::new(self.settings().workers.max(1)));
        let mut working = JoinSet::new();
        let cancel = CancellationToken::new();
        let heart = self.heartbeat();
        let free = || heart.during(Arc::clone(&permits).acquire_owned());
        while let Some(Ok(permit)) = stop.run_until_cancelled(free()).await {
            while working.try_join_next().is_some() {}
            let store = heart.during(self.circuit().closed(|| self.check_store()));
            if stop.run_until_cancelled(store).await.is_none() {
                break;
            }
            match self.claim().await {
                Ok(Some(job)) => {
                    let (engine, cancel) = (self.clone(), cancel.child_token());
                    working.spawn(async move {
                        engine.work_on(job, cancel).await;
                        drop(permit);
                    });
                }
                Ok(None) => {
                    let idle = timeout(self.settings().poll_interval, self.work().notified());
                    stop.run_until_cancelled(heart.during(idle)).await;
                }
                Err(err) => {
                    tracing::warn!(error = err.chain(), "no job could be claimed");
                    stop.run_until_cancelled(heart.during(sleep(self.settings().poll_interval))).await;
                }
            }
        }
        heart.end();
        let finished = async { while working.join_next().await.is_some() {} };
        if timeout(self.settings().stop_grace, finished).await.is_err() {
            cancel.cancel();
            while working.join_next().await.is_some() {}
        }
        for (what, task) in [("sweeping", sweeping), ("scrubbing", scrubbing)] {
            if let Err(err) = task.await {
                tracing::error!(error = %err, what, "background work ended by itself");
            }
        }
    }

    async fn sweep_now_and_then(self, stop: CancellationToken) {
        let mut ticks = interval_at(Instant::now() + Duration::from_millis(fastrand::u64(0..10_000)), SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let sweep = AssertUnwindSafe(self.sweep_rows()).catch_unwind();
            match stop.run_until_cancelled(sweep).await {
                None | Some(Ok(Ok(_))) => {}
                Some(Ok(Err(err))) => tracing::warn!(error = err.chain(), "the sweep is tried again in a minute"),
                Some(Err(_)) => tracing::error!("the sweep panicked and is tried again in a minute"),
            }
        }
    }

    /// Works on jobs until none is due. What is delayed stays.
    ///
    /// # Errors
    /// When a job cannot be claimed.
    pub async fn run_until_idle(&self) -> Result<Ran> {
        let mut ran = Ran::default();
        while let Some(job) = self.claim().await? {
            self.work_on(job, CancellationToken::new()).await;
            ran.jobs += 1;
        }
        Ok(ran)
    }

    async fn claim(&self) -> Result<Option<Claimed>> {
        self.detached(|engine| async move {
            let now = engine.clock().now();
            let lease = engine.clock().new_secret_id().into();
            let until = now + engine.settings().lease;
            let claim = async |tx: &Tx| {
                let job = jobs::claim(tx, lease, now, until).await?;
                // Whatever is wrong with a job must not show here: it would be claimed for ever, and no other one.
                if let Some(job) = job.as_ref().filter(|job| job.kind == JobKind::Publish && job.crashes < CRASH_LOOP) {
                    steps::start_next(tx, job.id, now).await?;
                }
                Ok(job)
            };
            engine.db().tx("claim", claim).await
        })
        .await
    }

    #[tracing::instrument(name = "job", skip_all, fields(id = %job.id, kind = %job.kind, subject = job.subject, attempt = job.attempts))]
    async fn work_on(&self, job: Claimed, cancel: CancellationToken) {
        let renewing = AbortOnDropHandle::new(tokio::spawn(self.clone().keep_lease(job.clone(), cancel.clone())));
        let performed = if job.crashes >= CRASH_LOOP {
            let reason = format!("crash-loop: {CRASH_LOOP} workers in a row did not come back from it, or met a bug");
            Some(Err(Failure::Reject(reason)))
        } else {
            let perform = AssertUnwindSafe(self.perform(&job, &cancel)).catch_unwind();
            cancel
                .run_until_cancelled(perform)
                .await
                .map(|performed| performed.unwrap_or_else(|_| Err(Failure::Bug("the job panicked".to_owned()))))
        };
        drop(renewing);
        let ended = match performed {
            Some(Ok(Performed::Finished)) => {
                tracing::debug!("done");
                Ok(())
            }
            Some(Ok(Performed::LeaseLost)) => {
                tracing::warn!("the lease was lost; what was done is dropped");
                Ok(())
            }
            Some(Err(Failure::Reject(reason))) => {
                let reason = without_nul(&reason);
                tracing::warn!(reason, "failed");
                self.reject(&job, &reason).await
            }
            Some(Err(Failure::Retry(reason))) => {
                let reason = without_nul(&reason);
                let delay = self.retry_delay(job.attempts);
                self.circuit().doubt();
                tracing::warn!(reason, delay_ms = delay.num_milliseconds(), "will be tried again");
                self.give_back(&job, delay, Some(reason), Crash::No).await
            }
            Some(Err(Failure::Bug(reason))) => {
                let reason = without_nul(&reason);
                let delay = self.retry_delay(job.attempts);
                tracing::error!(reason, delay_ms = delay.num_milliseconds(), "a bug; will be tried again");
                self.give_back(&job, delay, Some(reason), Crash::Yes).await
            }
            None => self.give_back(&job, TimeDelta::zero(), None, Crash::No).await,
        };
        if let Err(err) = ended {
            tracing::warn!(error = err.chain(), "the job is left to whoever claims it when its lease ends");
        }
    }

    async fn keep_lease(self, job: Claimed, cancel: CancellationToken) {
        let often = (self.settings().lease / 3).to_std().unwrap_or(Duration::from_secs(1));
        let mut ticks = interval_at(Instant::now() + often, often);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (engine, held) = (self.clone(), job.clone());
            let now = self.clock().now();
            let renewed = crate::detached(async move {
                engine
                    .db()
                    .tx("renew", async |tx| jobs::renew(tx, &held, now, now + engine.settings().lease).await)
                    .await
            });
            match renewed.await {
                Ok(true) => {}
                Ok(false) => return cancel.cancel(),
                Err(err) => tracing::warn!(error = err.chain(), "the lease could not be renewed yet"),
            }
        }
    }

    async fn perform(&self, job: &Claimed, cancel: &CancellationToken) -> Result<Performed, Failure> {
        match job.kind {
            JobKind::Ingest => self.perform_ingest(job).await,
            JobKind::Publish => self.perform_publish(job, cancel).await,
            JobKind::CheckBlob => self.perform_check(job).await,
            JobKind::ListObjects => self.perform_listing(job).await,
        }
    }

    async fn reject(&self, job: &Claimed, reason: &str) -> Result<()> {
        match job.kind {
            JobKind::Ingest => self.fail_ingest(job, reason).await,
            JobKind::Publish => self.fail_publish(job, reason).await,
            JobKind::CheckBlob | JobKind::ListObjects => {
                // Nobody could retry it, and another one comes only when this one is done.
                self.give_back(job, TimeDelta::hours(24), Some(reason.to_owned()), Crash::No).await
            }
        }
    }

    async fn give_back(&self, job: &Claimed, delay: TimeDelta, error: Option<String>, crash: Crash) -> Result<()> {
        let job = job.clone();
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("give_back", async |tx| {
                    jobs::release(tx, &job, now, now + delay, error.as_deref(), crash).await?;
                    Ok(())
                })
                .await
        })
        .await
    }

    /// Doubles from the first failure on, up to a limit, and is then shortened by up to a half at random, so that jobs
    /// which failed together do not come back together.
    fn retry_delay(&self, attempts: u32) -> TimeDelta {
        let settings = self.settings();
        let doubled = settings.retry_delay * 2_i32.saturating_pow(attempts.saturating_sub(1).min(20));
        let capped = doubled.min(settings.retry_delay_max).num_milliseconds().max(1);
        TimeDelta::milliseconds(capped - fastrand::i64(0..=capped / 2))
    }
}
