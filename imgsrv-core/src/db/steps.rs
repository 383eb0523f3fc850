//! The steps of publish jobs. Each write follows one that locked the job.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Func, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, UpdateMany};

use super::entity::publish_step::{ActiveModel, Column, Entity, Model};
use super::{Tx, db_error, from_column, hit};
use crate::model::{JobId, Step, StepId, StepState};
use crate::{Error, Result};

/// The steps of a new job: id, place and name of each, in the order of their places.
pub(crate) async fn insert(
    tx: &Tx,
    job: JobId,
    steps: impl Iterator<Item = (StepId, i32, &str)>,
    now: DateTime<Utc>,
) -> Result<Vec<Step>> {
    let rows = steps.map(|(id, sequence, name)| ActiveModel {
        id: Set(id),
        job_id: Set(job),
        name: Set(name.to_owned()),
        sequence: Set(sequence),
        state: Set(StepState::Queued),
        attempts: Set(0),
        output: Set(None),
        failure_message: Set(None),
        started_at: Set(None),
        finished_at: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
    });
    let rows = Entity::insert_many(rows).exec_with_returning(tx).await.map_err(db_error)?;
    let mut steps = rows.into_iter().map(Step::try_from).collect::<Result<Vec<_>>>()?;
    steps.sort_by_key(|step| step.sequence);
    Ok(steps)
}

pub(crate) async fn of_job(db: &impl ConnectionTrait, job: JobId) -> Result<Vec<Step>> {
    let rows =
        Entity::find().filter(Column::JobId.eq(job)).order_by_asc(Column::Sequence).all(db).await.map_err(db_error)?;
    rows.into_iter().map(Step::try_from).collect()
}

/// The turn of the first step has come that is not done, once more if it came before.
pub(crate) async fn start_next(tx: &Tx, job: JobId, now: DateTime<Utc>) -> Result<()> {
    let next = Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Expr::col(Column::JobId).eq(job))
        .and_where(Expr::col(Column::State).ne(StepState::Succeeded))
        .order_by(Column::Sequence, sea_orm::Order::Asc)
        .limit(1)
        .to_owned();
    let update = begun(Entity::update_many(), now)
        .col_expr(Column::State, Expr::value(StepState::Running))
        .col_expr(Column::FinishedAt, Expr::value(Option::<DateTime<Utc>>::None))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Expr::col(Column::Id).eq(Expr::SubQuery(None, Box::new(next.into()))));
    hit(tx, update).await?;
    Ok(())
}

/// A step that is done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub id: StepId,
    pub output: Option<serde_json::Value>,
    /// When its turn came, if that is not written down.
    pub begun_at: Option<DateTime<Utc>>,
    pub at: DateTime<Utc>,
}

pub(crate) async fn succeed(tx: &Tx, done: Done) -> Result<()> {
    let mut update = Entity::update_many();
    if let Some(begun_at) = done.begun_at {
        update = begun(update, begun_at);
    }
    let update = update
        .col_expr(Column::State, Expr::value(StepState::Succeeded))
        .col_expr(Column::Output, Expr::value(done.output))
        .col_expr(Column::FinishedAt, Expr::value(done.at))
        .col_expr(Column::UpdatedAt, Expr::value(done.at))
        .filter(Column::Id.eq(done.id));
    hit(tx, update).await?;
    Ok(())
}

/// The turn of a step has come, perhaps once more.
fn begun(update: UpdateMany<Entity>, at: DateTime<Utc>) -> UpdateMany<Entity> {
    update
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .col_expr(Column::StartedAt, Func::coalesce([Expr::col(Column::StartedAt), Expr::value(at)]).into())
        .col_expr(Column::FailureMessage, Expr::value(Option::<String>::None))
}

/// What went wrong, while the job will run the step again.
pub(crate) async fn note_failure(tx: &Tx, id: StepId, message: &str, now: DateTime<Utc>) -> Result<()> {
    let update = Entity::update_many()
        .col_expr(Column::FailureMessage, Expr::value(message))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id));
    hit(tx, update).await?;
    Ok(())
}

pub(crate) async fn fail(tx: &Tx, id: StepId, message: &str, now: DateTime<Utc>) -> Result<()> {
    let update = Entity::update_many()
        .col_expr(Column::State, Expr::value(StepState::Failed))
        .col_expr(Column::FailureMessage, Expr::value(message))
        .col_expr(Column::FinishedAt, Expr::value(now))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id));
    hit(tx, update).await?;
    Ok(())
}

/// The step at which a failed job stopped waits for its turn again.
pub(crate) async fn requeue_failed(tx: &Tx, job: JobId, now: DateTime<Utc>) -> Result<()> {
    Entity::update_many()
        .col_expr(Column::State, Expr::value(StepState::Queued))
        .col_expr(Column::FailureMessage, Expr::value(Option::<String>::None))
        .col_expr(Column::FinishedAt, Expr::value(Option::<DateTime<Utc>>::None))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::JobId.eq(job))
        .filter(Column::State.eq(StepState::Failed))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(())
}

/// The steps of an abandoned job that will never run.
pub(crate) async fn skip_rest(tx: &Tx, job: JobId, now: DateTime<Utc>) -> Result<()> {
    Entity::update_many()
        .col_expr(Column::State, Expr::value(StepState::Skipped))
        .col_expr(Column::FinishedAt, Expr::value(now))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::JobId.eq(job))
        .filter(Column::State.is_in([StepState::Queued, StepState::Running]))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(())
}

impl TryFrom<Model> for Step {
    type Error = Error;

    fn try_from(row: Model) -> Result<Self> {
        Ok(Self {
            id: row.id,
            job_id: row.job_id,
            name: row.name,
            sequence: row.sequence,
            state: row.state,
            attempts: from_column("publish_steps", row.attempts.into())?,
            output: row.output,
            failure_message: row.failure_message,
            started_at: row.started_at,
            finished_at: row.finished_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
