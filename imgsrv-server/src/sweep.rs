//! `imgsrv sweep`: what a running server does now and then, at once, or by a plan that somebody has seen.

use clap::Args;
use imgsrv_core::model::{SweepAction, SweepPlan};
use imgsrv_core::{Collected, Engine};
use uuid::Uuid;

use crate::cli::{Failure, print};
use crate::config::Config;
use crate::connect::{self, Schema};

#[derive(Args, Clone, Debug)]
pub(crate) struct SweepArgs {
    /// Keep a plan of which blobs would be collected, and print it; delete nothing
    #[arg(long, conflicts_with_all = ["plan", "force"])]
    dry_run: bool,

    /// Carry out this plan, and nothing else
    #[arg(long, value_name = "ID")]
    plan: Option<Uuid>,

    /// Also if it deletes more than a tenth of all bytes, and more than 1 GiB
    #[arg(long)]
    force: bool,
}

pub(crate) async fn sweep(config: &Config, args: &SweepArgs) -> Result<(), Failure> {
    if args.dry_run {
        let engine = connect::engine_without_store(config).await?;
        return show(&engine.plan_sweep().await?);
    }
    let engine = connect::engine(config, Schema::Require).await?;
    let plan = if let Some(id) = args.plan {
        engine.get_sweep_plan(id.into()).await?
    } else {
        let swept = engine.sweep().await?;
        print(&format!("{} sessions expired, {} objects deleted", swept.uploads_expired, swept.objects_deleted))?;
        engine.plan_sweep().await?
    };
    carry_out(&engine, &plan, args.force).await
}

fn show(plan: &SweepPlan) -> Result<(), Failure> {
    for blob in &plan.blobs {
        print(&format!("{} {} {}", blob.action, blob.digest, blob.size))?;
    }
    let deleted = plan.blobs.iter().filter(|blob| blob.action == SweepAction::Delete).count();
    let (condemned, bytes) = (plan.blobs.len() - deleted, plan.deleted_bytes());
    print(&format!(
        "plan {}: condemns {condemned} blobs, deletes {deleted} with {bytes} of {} bytes",
        plan.id, plan.stored_bytes
    ))
}

async fn carry_out(engine: &Engine, plan: &SweepPlan, force: bool) -> Result<(), Failure> {
    if plan.is_large() && !force {
        return Err(Failure::run(format!(
            "plan {} deletes {} of {} bytes: if that is right, sweep --plan {} --force",
            plan.id,
            plan.deleted_bytes(),
            plan.stored_bytes,
            plan.id
        )));
    }
    let Collected { condemned, deleted, kept } = engine.carry_out(plan).await?;
    print(&format!("{condemned} blobs condemned, {deleted} deleted, {kept} left alone"))
}
