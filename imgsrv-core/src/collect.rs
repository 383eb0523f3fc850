//! Collecting blobs that nobody needs: in two phases, by a plan.
//!
//! A blob that the catalogue does not cite is condemned when it was last used long enough ago, and deleted a day after
//! that. Whoever cites it in between takes it back in the statement that cites it, so no citation can race a deletion.
//! The objects go through the same sweep as all others, another day later, when no reader can be at them any more.

use chrono::TimeDelta;

use crate::db::{Tx, blobs, sweeps};
use crate::engine::Change;
use crate::model::{BlobState, PlannedBlob, Subject, SweepAction, SweepPlan, SweepPlanId};
use crate::uploads::SERVED_GRACE;
use crate::{Engine, Result};

/// How long a blob has notice.
const NOTICE: TimeDelta = TimeDelta::hours(24);

/// The most that one plan is about, of each action.
const MOST: u64 = 10_000;

/// What carrying out a plan did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that were given notice.
    pub condemned: u64,
    /// Blobs that are gone. Their objects follow a day later.
    pub deleted: u64,
    /// Blobs that were left alone, because somebody has used them since the plan was made, or another one was faster.
    pub kept: u64,
}

impl Engine {
    /// Looks for blobs that nobody needs any more and keeps a plan to collect them, at most 10,000 of each kind; changes
    /// nothing else.
    ///
    /// # Errors
    /// What the database says.
    pub async fn plan_sweep(&self) -> Result<SweepPlan> {
        let now = self.clock().now();
        let (used_before, condemned_before) = (now - self.settings().blob_retention, now - NOTICE);
        let blobs = sweeps::due(self.db().reader(), used_before, condemned_before, MOST).await?;
        let stored_bytes = sweeps::stored_bytes(self.db().reader()).await?;
        let id = self.clock().new_id().into();
        let plan = SweepPlan { id, created_at: now, used_before, condemned_before, stored_bytes, blobs };
        let kept = plan.clone();
        self.detached(
            |engine| async move { engine.db().tx("keep_plan", async |tx| sweeps::insert(tx, &kept).await).await },
        )
        .await?;
        Ok(plan)
    }

    /// A plan that was made in the last thirty days.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_sweep_plan(&self, id: SweepPlanId) -> Result<SweepPlan> {
        sweeps::get(self.db().reader(), id).await
    }

    /// Carries out a plan: what is in it, unless somebody has used it since, and nothing else. May be done again, and by
    /// several at once.
    ///
    /// # Errors
    /// What the database says; what was done until then is done.
    pub async fn carry_out(&self, plan: &SweepPlan) -> Result<Collected> {
        let mut collected = Collected::default();
        for planned in &plan.blobs {
            if !self.collect(plan, planned).await? {
                collected.kept += 1;
            } else if planned.action == SweepAction::Condemn {
                collected.condemned += 1;
            } else {
                collected.deleted += 1;
            }
        }
        Ok(collected)
    }

    /// Plans, and carries out what need not be looked at first.
    pub(crate) async fn collect_what_is_due(&self) -> Result<()> {
        let plan = self.plan_sweep().await?;
        let (id, deleted_bytes) = (plan.id, plan.deleted_bytes());
        if plan.is_large() {
            tracing::warn!(plan = %id, deleted_bytes, plan.stored_bytes, "much is to be deleted: nothing is until somebody says so");
            return Ok(());
        }
        let Collected { condemned, deleted, kept } = self.carry_out(&plan).await?;
        if condemned + deleted > 0 {
            tracing::info!(plan = %id, condemned, deleted, deleted_bytes, kept, "collected blobs that nobody needs");
        }
        Ok(())
    }

    async fn collect(&self, plan: &SweepPlan, planned: &PlannedBlob) -> Result<bool> {
        let (plan, PlannedBlob { digest, action, .. }) = (plan.clone(), planned.clone());
        self.detached(|engine| async move {
            let now = engine.clock().now();
            let collect = async |tx: &Tx| {
                if !sweeps::hold(tx, &digest, action, &plan).await? {
                    return Ok(false);
                }
                let change = match action {
                    SweepAction::Condemn => {
                        sweeps::condemn(tx, &digest, now).await?;
                        Change::new(Subject::Blob, &digest, "condemned").from(BlobState::Live).to(BlobState::Condemned)
                    }
                    SweepAction::Delete => {
                        blobs::drop_segments(tx, &digest, now + SERVED_GRACE).await?;
                        sweeps::forget(tx, &digest).await?;
                        Change::new(Subject::Blob, &digest, "deleted").from(BlobState::Condemned)
                    }
                };
                engine.record(tx, change).await?;
                Ok(true)
            };
            engine.db().tx("collect_blob", collect).await
        })
        .await
    }
}
