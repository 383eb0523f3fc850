//! `imgsrv jobs`: what became of a publish.

use clap::{Args, Subcommand};
use imgsrv_client::types::{PublishJob, Step};
use serde_json::json;
use uuid::Uuid;

use crate::failure::Failure;
use crate::push::{follow, get_job, retry};
use crate::remote::Common;
use crate::report::Report;
use crate::table::{self, print_json, print_line};

/// Look at the job that publishes a version, wait for it, retry or abandon it.
#[derive(Args, Clone, Debug)]
pub struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,

    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Clone, Debug, Subcommand)]
enum JobsCommand {
    /// Show where it stands
    Show { job: Uuid },
    /// Wait until it has ended; fails if it failed
    Wait { job: Uuid },
    /// Go on with a failed job at the step that failed, and wait
    Retry { job: Uuid },
    /// Give it up: the version is a draft again
    Abandon { job: Uuid },
}

pub(crate) async fn jobs(args: JobsArgs, report: &Report) -> Result<(), Failure> {
    let remote = args.common.connect()?;
    let id = match args.command {
        JobsCommand::Show { job } => job,
        JobsCommand::Wait { job } => {
            follow(&remote, report, get_job(&remote, report, job).await?).await?;
            job
        }
        JobsCommand::Retry { job } => {
            follow(&remote, report, retry(&remote, report, job).await?).await?;
            job
        }
        JobsCommand::Abandon { job } => {
            remote.ask(report, async |client| client.abandon_job().job_id(job).send().await).await?;
            job
        }
    };
    let job = get_job(&remote, report, id).await?;
    if report.is_json() {
        return print_json(&json!(job));
    }
    let PublishJob { image_name, version, state, failure_message, .. } = &job;
    let reason = failure_message.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    print_line(&format!("{}:{} {state}{reason}", **image_name, **version))?;
    let row = |step: &Step| {
        let reason = step.failure_message.clone().unwrap_or_default();
        [step.name.clone(), step.state.to_string(), step.attempt_count.to_string(), reason]
    };
    table::print(["STEP", "STATE", "ATTEMPTS", "FAILURE"], &job.steps.iter().map(row).collect::<Vec<_>>())
}
