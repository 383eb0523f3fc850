//! Jobs and their leases.
//!
//! One column, `available_at`, says when a job may be claimed: now when it is due, later when it is delayed, and when
//! its lease ends while a worker holds it. Every write of a holder carries its lease, so one that lost it hits no row.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict, Query};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany,
};

use super::entity::job::{ActiveModel, Column, Entity, Model};
use super::{Tx, db_error, delete_found, from_column, hit, hit_row};
use crate::model::{Job, JobId, JobKind, JobOutcome, Lease};
use crate::{Error, Resource, Result};

/// A job as its holder has it.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub id: JobId,
    pub kind: JobKind,
    pub subject: String,
    pub lease: Lease,
    pub attempts: u32,
    pub crashes: u32,
}

/// Queues a job unless one of its kind is already open for the subject; whether it did.
pub(crate) async fn enqueue(
    tx: &Tx,
    id: JobId,
    kind: JobKind,
    subject: &str,
    now: DateTime<Utc>,
    available_at: DateTime<Utc>,
) -> Result<bool> {
    let row = ActiveModel {
        id: Set(id),
        kind: Set(kind),
        subject: Set(subject.to_owned()),
        available_at: Set(available_at),
        lease: Set(None),
        attempts: Set(0),
        crashes: Set(0),
        last_error: Set(None),
        traceparent: Set(None),
        outcome: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        started_at: Set(None),
        finished_at: Set(None),
    };
    let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned());
    match insert.exec_without_returning(tx).await {
        Ok(rows) => Ok(rows == 1),
        Err(sea_orm::DbErr::RecordNotInserted) => Ok(false),
        Err(err) => Err(db_error(err)),
    }
}

/// Takes the job that has been due longest, if any is due.
pub(crate) async fn claim(tx: &Tx, lease: Lease, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<Option<Claimed>> {
    let due = Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Expr::col(Column::FinishedAt).is_null())
        .and_where(Expr::col(Column::AvailableAt).lte(now))
        .order_by(Column::AvailableAt, sea_orm::Order::Asc)
        .order_by(Column::Id, sea_orm::Order::Asc)
        .limit(1)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let expired = Expr::case(Expr::col(Column::Lease).is_not_null(), 1).finally(0);
    let update = Entity::update_many()
        .col_expr(Column::Lease, Expr::value(lease))
        .col_expr(Column::AvailableAt, Expr::value(until))
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .col_expr(Column::Crashes, Expr::col(Column::Crashes).add(expired))
        .col_expr(
            Column::StartedAt,
            sea_orm::sea_query::Func::coalesce([Expr::col(Column::StartedAt), Expr::value(now)]).into(),
        )
        .col_expr(Column::UpdatedAt, Expr::value(now))
        // `=`, not `IN`: PostgreSQL may run a subquery of IN again and lock more rows than one.
        .filter(Expr::col(Column::Id).eq(Expr::SubQuery(None, Box::new(due.into()))));
    hit_row(tx, update)
        .await?
        .map(|row| {
            Ok(Claimed {
                id: row.id,
                kind: row.kind,
                subject: row.subject,
                lease,
                attempts: from_column("jobs", row.attempts.into())?,
                crashes: from_column("jobs", row.crashes.into())?,
            })
        })
        .transpose()
}

fn held(job: &Claimed, now: DateTime<Utc>) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(job.id))
        .filter(Column::Lease.eq(job.lease))
}

/// Locks the job if its lease still holds; the first statement of every write of a holder.
pub(crate) async fn hold(tx: &Tx, job: &Claimed, now: DateTime<Utc>) -> Result<bool> {
    hit(tx, held(job, now)).await
}

/// Keeps the lease until `until`.
pub(crate) async fn renew(tx: &Tx, job: &Claimed, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<bool> {
    hit(tx, held(job, now).col_expr(Column::AvailableAt, Expr::value(until))).await
}

/// Whether a try at a job counts towards its end as a crash loop, or ends the row of those that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    Yes,
    No,
}

/// Gives the lease back; the job may be claimed again from `available_at` on.
pub(crate) async fn release(
    tx: &Tx,
    job: &Claimed,
    now: DateTime<Utc>,
    available_at: DateTime<Utc>,
    error: Option<&str>,
    crash: Crash,
) -> Result<bool> {
    let crashes = match crash {
        Crash::Yes => Expr::col(Column::Crashes).add(1),
        Crash::No => Expr::value(0),
    };
    let mut update = held(job, now)
        .col_expr(Column::Lease, Expr::value(Option::<Lease>::None))
        .col_expr(Column::Crashes, crashes)
        .col_expr(Column::AvailableAt, Expr::value(available_at));
    if let Some(error) = error {
        update = update.col_expr(Column::LastError, Expr::value(error));
    }
    hit(tx, update).await
}

/// Ends the job.
pub(crate) async fn finish(
    tx: &Tx,
    job: &Claimed,
    outcome: JobOutcome,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let update = held(job, now)
        .col_expr(Column::Lease, Expr::value(Option::<Lease>::None))
        .col_expr(Column::Outcome, Expr::value(outcome))
        .col_expr(Column::LastError, Expr::value(error))
        .col_expr(Column::FinishedAt, Expr::value(now));
    hit(tx, update).await
}

/// Opens a failed job again; its delays begin anew.
pub(crate) async fn reopen(tx: &Tx, id: JobId, now: DateTime<Utc>) -> Result<bool> {
    let update = Entity::update_many()
        .col_expr(Column::Outcome, Expr::value(Option::<JobOutcome>::None))
        .col_expr(Column::FinishedAt, Expr::value(Option::<DateTime<Utc>>::None))
        .col_expr(Column::LastError, Expr::value(Option::<String>::None))
        .col_expr(Column::AvailableAt, Expr::value(now))
        .col_expr(Column::Attempts, Expr::value(0))
        .col_expr(Column::Crashes, Expr::value(0))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::Outcome.eq(JobOutcome::Failed));
    hit(tx, update).await
}

/// Gives up a job that has not succeeded, whoever holds it; the job as it was before.
pub(crate) async fn abandon(tx: &Tx, id: JobId, now: DateTime<Utc>) -> Result<Option<Job>> {
    // The guard takes the lock and leaves the outcome and the lease alone, so that it returns the state that is left.
    let guard = Entity::update_many()
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::Outcome.is_null().or(Column::Outcome.eq(JobOutcome::Failed)));
    let Some(before) = hit_row(tx, guard).await? else { return Ok(None) };
    let update = Entity::update_many()
        .col_expr(Column::Outcome, Expr::value(JobOutcome::Abandoned))
        .col_expr(Column::FinishedAt, Expr::value(now))
        .col_expr(Column::Lease, Expr::value(Option::<Lease>::None))
        .col_expr(Column::LastError, Expr::value("abandoned"))
        .filter(Column::Id.eq(id));
    hit(tx, update).await?;
    before.try_into().map(Some)
}

pub(crate) async fn get(db: &impl ConnectionTrait, id: JobId) -> Result<Job> {
    let row = Entity::find_by_id(id).one(db).await.map_err(db_error)?;
    row.ok_or(Error::NotFound(Resource::Job(id)))?.try_into()
}

/// The job of a kind for a subject that was not abandoned: there is one at most. Which one is newest would be a question
/// to the clocks of two nodes.
pub(crate) async fn current(db: &impl ConnectionTrait, kind: JobKind, subject: &str) -> Result<Option<Job>> {
    let row = Entity::find()
        .filter(Column::Kind.eq(kind))
        .filter(Column::Subject.eq(subject))
        .filter(Column::Outcome.is_null().or(Column::Outcome.ne(JobOutcome::Abandoned)))
        .one(db)
        .await
        .map_err(db_error)?;
    row.map(Job::try_from).transpose()
}

/// Forgets the jobs of a subject that is deleted.
pub(crate) async fn delete_for(tx: &Tx, kind: JobKind, subject: &str) -> Result<()> {
    Entity::delete_many()
        .filter(Column::Kind.eq(kind))
        .filter(Column::Subject.eq(subject))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(())
}

/// Forgets jobs of a kind that ended before `before`, at most `limit`; how many.
pub(crate) async fn prune(tx: &Tx, kind: JobKind, before: DateTime<Utc>, limit: u64) -> Result<u64> {
    // In an order that only an index has: without one, the limit makes PostgreSQL hope to find some in the table.
    let some = Entity::find()
        .filter(Column::Kind.eq(kind))
        .filter(Column::FinishedAt.lt(before))
        .order_by_asc(Column::FinishedAt)
        .limit(limit);
    delete_found(tx, some).await
}

impl TryFrom<Model> for Job {
    type Error = Error;

    fn try_from(row: Model) -> Result<Self> {
        Ok(Self {
            id: row.id,
            kind: row.kind,
            subject: row.subject,
            attempts: from_column("jobs", row.attempts.into())?,
            outcome: row.outcome,
            leased: row.lease.is_some(),
            last_error: row.last_error,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            updated_at: row.updated_at,
        })
    }
}
