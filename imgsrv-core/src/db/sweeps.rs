//! Blobs that nobody needs, and the plans to collect them.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::blobs::{guarded, set_time, update};
use super::entity::{artifact, attachment, blob, sweep_plan, upload};
use super::{Tx, db_error, from_column, hit, insert_row};
use crate::model::{BlobState, Digest, PlannedBlob, SweepAction, SweepPlan, SweepPlanId, UploadState};
use crate::{Error, Resource, Result};

/// Whether nothing in the catalogue cites a blob, and no open session is about to deliver it.
fn unneeded() -> Condition {
    let digest = || Expr::col((blob::Entity, blob::Column::Digest));
    let in_artifact = Query::select()
        .expr(Expr::val(1))
        .from(artifact::Entity)
        .and_where(Expr::col((artifact::Entity, artifact::Column::BlobDigest)).eq(digest()))
        .to_owned();
    let in_attachment = Query::select()
        .expr(Expr::val(1))
        .from(attachment::Entity)
        .and_where(Expr::col((attachment::Entity, attachment::Column::BlobDigest)).eq(digest()))
        .to_owned();
    let open = UploadState::ALL.iter().copied().filter(|state| !state.is_terminal());
    let in_upload = Query::select()
        .expr(Expr::val(1))
        .from(upload::Entity)
        .and_where(Expr::col((upload::Entity, upload::Column::ExpectedDigest)).eq(digest()))
        .and_where(upload::Column::State.is_in(open))
        .to_owned();
    [in_artifact, in_attachment, in_upload]
        .into_iter()
        .fold(Condition::all(), |all, query| all.add(Expr::exists(query).not()))
}

/// The state in which a blob waits for the action.
fn waiting(action: SweepAction) -> BlobState {
    match action {
        SweepAction::Condemn => BlobState::Live,
        SweepAction::Delete => BlobState::Condemned,
    }
}

/// Whether its time has come: last used before the one moment, or condemned before the other.
fn past(action: SweepAction, used_before: DateTime<Utc>, condemned_before: DateTime<Utc>) -> SimpleExpr {
    match action {
        SweepAction::Condemn => blob::Column::LastUsedAt.lt(used_before),
        SweepAction::Delete => blob::Column::CondemnedAt.lt(condemned_before),
    }
}

/// Blobs that nobody needs and whose time has come, in the order of their digests. It looks at every blob, once a day.
pub(crate) async fn due(
    db: &impl ConnectionTrait,
    used_before: DateTime<Utc>,
    condemned_before: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<PlannedBlob>> {
    let mut planned = Vec::new();
    for action in SweepAction::ALL {
        let rows = blob::Entity::find()
            .select_only()
            .column(blob::Column::Digest)
            .column(blob::Column::Size)
            .filter(blob::Column::State.eq(waiting(*action)))
            .filter(past(*action, used_before, condemned_before))
            .filter(unneeded())
            .order_by_asc(blob::Column::Digest)
            .limit(limit)
            .into_tuple::<(Digest, i64)>()
            .all(db)
            .await
            .map_err(db_error)?;
        for (digest, size) in rows {
            planned.push(PlannedBlob { digest, size: from_column("blobs", size)?, action: *action });
        }
    }
    planned.sort_by(|one, other| one.digest.cmp(&other.digest));
    Ok(planned)
}

/// Bytes of all blobs.
pub(crate) async fn stored_bytes(db: &impl ConnectionTrait) -> Result<u64> {
    let sum = blob::Entity::find()
        .select_only()
        .expr(Expr::cust("cast(coalesce(sum(size), 0) as bigint)"))
        .into_tuple::<i64>()
        .one(db)
        .await
        .map_err(db_error)?;
    from_column("blobs", sum.unwrap_or_default())
}

/// Holds a blob if its time has come and nobody needs it. Whoever cites it moves its `last_used_at` or its state first,
/// under the same lock, so that this then hits nothing; whether it is needed is asked under the lock.
pub(crate) async fn hold(tx: &Tx, digest: &Digest, action: SweepAction, plan: &SweepPlan) -> Result<bool> {
    let due = past(action, plan.used_before, plan.condemned_before);
    if !hit(tx, guarded(digest, &[waiting(action)]).filter(due)).await? {
        return Ok(false);
    }
    let held = blob::Entity::find_by_id(digest.clone()).filter(unneeded()).one(tx).await.map_err(db_error)?;
    Ok(held.is_some())
}

/// `live → condemned`, for a blob that is held.
pub(crate) async fn condemn(tx: &Tx, digest: &Digest, now: DateTime<Utc>) -> Result<()> {
    let condemned = update(digest)
        .col_expr(blob::Column::State, Expr::value(BlobState::Condemned))
        .col_expr(blob::Column::CondemnedAt, Expr::value(Some(now)));
    hit(tx, condemned).await?;
    Ok(())
}

/// Forgets a blob that is held and has no segments any more.
pub(crate) async fn forget(tx: &Tx, digest: &Digest) -> Result<()> {
    blob::Entity::delete_by_id(digest.clone()).exec(tx).await.map_err(db_error)?;
    Ok(())
}

/// The catalogue has let go of a blob: its time begins now.
pub(crate) async fn let_go(tx: &Tx, digest: &Digest, now: DateTime<Utc>) -> Result<()> {
    set_time(tx, digest, blob::Column::LastUsedAt, now).await
}

pub(crate) async fn insert(tx: &Tx, plan: &SweepPlan) -> Result<()> {
    let json = serde_json::to_value(plan).map_err(|err| Error::internal("a plan", err))?;
    let row = sweep_plan::Model { id: plan.id, created_at: plan.created_at, plan: json };
    insert_row::<sweep_plan::Entity>(tx, row, || Resource::SweepPlan(plan.id)).await
}

pub(crate) async fn get(db: &impl ConnectionTrait, id: SweepPlanId) -> Result<SweepPlan> {
    let row = sweep_plan::Entity::find_by_id(id).one(db).await.map_err(db_error)?;
    let row = row.ok_or(Error::NotFound(Resource::SweepPlan(id)))?;
    serde_json::from_value(row.plan).map_err(|err| Error::internal("a plan", err))
}

/// Forgets plans that nobody will carry out any more. There are few.
pub(crate) async fn prune(tx: &Tx, before: DateTime<Utc>) -> Result<()> {
    let old = sweep_plan::Entity::delete_many().filter(sweep_plan::Column::CreatedAt.lt(before));
    old.exec(tx).await.map_err(db_error)?;
    Ok(())
}
