//! Blobs that nobody needs, and the plans to collect them.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany};

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

/// What is past its time: live and last used before the one, or condemned before the other.
fn past(action: SweepAction, used_before: DateTime<Utc>, condemned_before: DateTime<Utc>) -> SimpleExpr {
    match action {
        SweepAction::Condemn => blob::Column::State.eq(BlobState::Live).and(blob::Column::LastUsedAt.lt(used_before)),
        SweepAction::Delete => {
            blob::Column::State.eq(BlobState::Condemned).and(blob::Column::CondemnedAt.lt(condemned_before))
        }
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

/// Takes the blob's row if its time has come, and moves it on. Whoever cites it moves its `last_used_at` first, under the
/// same lock, so that this then hits nothing; whether it is needed is asked under the lock.
pub(crate) async fn take(
    tx: &Tx,
    digest: &Digest,
    action: SweepAction,
    plan: &SweepPlan,
    now: DateTime<Utc>,
) -> Result<bool> {
    let to = match action {
        SweepAction::Condemn => BlobState::Condemned,
        SweepAction::Delete => BlobState::Deleting,
    };
    let mut take: UpdateMany<blob::Entity> = blob::Entity::update_many()
        .filter(blob::Column::Digest.eq(digest.clone()))
        .filter(past(action, plan.used_before, plan.condemned_before));
    // A published version's blob cannot even be moved to `deleting`: the triggers see to that. So the row is locked first.
    take = take.col_expr(blob::Column::State, Expr::col(blob::Column::State));
    if !hit(tx, take).await? {
        return Ok(false);
    }
    let unneeded = blob::Entity::find_by_id(digest.clone()).filter(unneeded()).one(tx).await.map_err(db_error)?;
    if unneeded.is_none() {
        return Ok(false);
    }
    let moved = blob::Entity::update_many()
        .col_expr(blob::Column::State, Expr::value(to))
        .col_expr(blob::Column::CondemnedAt, Expr::value(Some(now)))
        .filter(blob::Column::Digest.eq(digest.clone()));
    hit(tx, moved).await
}

/// Forgets a blob that is being deleted and has no segments any more.
pub(crate) async fn forget(tx: &Tx, digest: &Digest) -> Result<bool> {
    let forgotten = blob::Entity::delete_many()
        .filter(blob::Column::Digest.eq(digest.clone()))
        .filter(blob::Column::State.eq(BlobState::Deleting))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(forgotten.rows_affected == 1)
}

/// The catalogue has let go of a blob: its time begins now.
pub(crate) async fn let_go(tx: &Tx, digest: &Digest, now: DateTime<Utc>) -> Result<()> {
    let touched = blob::Entity::update_many()
        .col_expr(blob::Column::LastUsedAt, Expr::value(now))
        .filter(blob::Column::Digest.eq(digest.clone()));
    hit(tx, touched).await?;
    Ok(())
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
