//! The parts of upload sessions, and the attempts at them.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, JoinType, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait,
};

use super::entity::part_attempt::AttemptState;
use super::entity::{part, part_attempt, upload, upload_of_part};
use super::page::after;
use super::uploads::ended;
use super::{Tx, db_error, delete_found, from_column, hit};
use crate::model::{Part, PartNumber, UploadId};
use crate::{Error, Result};

pub(crate) async fn get(db: &impl ConnectionTrait, id: UploadId, number: PartNumber) -> Result<Option<part::Model>> {
    part::Entity::find_by_id((id, i32::from(number.get()))).one(db).await.map_err(db_error)
}

/// The stored part with the highest number below `number`.
pub(crate) async fn before(tx: &Tx, id: UploadId, number: PartNumber) -> Result<Option<part::Model>> {
    part::Entity::find()
        .filter(part::Column::UploadId.eq(id))
        .filter(part::Column::Number.lt(i32::from(number.get())))
        .order_by_desc(part::Column::Number)
        .one(tx)
        .await
        .map_err(db_error)
}

/// The parts of a session that count now, by number.
pub(crate) async fn list(db: &impl ConnectionTrait, id: UploadId) -> Result<Vec<part::Model>> {
    part::Entity::find()
        .filter(part::Column::UploadId.eq(id))
        .order_by_asc(part::Column::Number)
        .all(db)
        .await
        .map_err(db_error)
}

/// Points the part's row at an attempt.
pub(crate) async fn put(tx: &Tx, row: part::Model) -> Result<()> {
    let replace = OnConflict::columns([part::Column::UploadId, part::Column::Number])
        .update_columns([
            part::Column::Attempt,
            part::Column::Key,
            part::Column::Size,
            part::Column::Etag,
            part::Column::Sha256,
            part::Column::Chain,
            part::Column::ChainAfter,
            part::Column::StoredAt,
        ])
        .to_owned();
    part::Entity::insert(row.into_active_model())
        .on_conflict(replace)
        .exec_without_returning(tx)
        .await
        .map_err(db_error)?;
    Ok(())
}

/// Forgets the parts that the client did not list.
pub(crate) async fn drop(tx: &Tx, id: UploadId, numbers: &[i32]) -> Result<()> {
    for some in numbers.chunks(500) {
        part::Entity::delete_many()
            .filter(part::Column::UploadId.eq(id))
            .filter(part::Column::Number.is_in(some.iter().copied()))
            .exec(tx)
            .await
            .map_err(db_error)?;
    }
    Ok(())
}

pub(crate) async fn insert_attempt(tx: &Tx, row: part_attempt::Model) -> Result<()> {
    part_attempt::Entity::insert(row.into_active_model()).exec_without_returning(tx).await.map_err(db_error)?;
    Ok(())
}

/// The checksums of an object that was stored.
pub(crate) async fn checksums(db: &impl ConnectionTrait, key: &str) -> Result<Option<Vec<u8>>> {
    part_attempt::Entity::find_by_id(key)
        .select_only()
        .column(part_attempt::Column::Checksums)
        .into_tuple::<Option<Vec<u8>>>()
        .one(db)
        .await
        .map(Option::flatten)
        .map_err(db_error)
}

pub(crate) async fn set_checksums(tx: &Tx, key: &str, checksums: Vec<u8>) -> Result<()> {
    part_attempt::Entity::update_many()
        .col_expr(part_attempt::Column::Checksums, Expr::value(checksums))
        .filter(part_attempt::Column::Key.eq(key))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(())
}

pub(crate) async fn attempt(db: &impl ConnectionTrait, key: &str) -> Result<Option<part_attempt::Model>> {
    part_attempt::Entity::find_by_id(key).one(db).await.map_err(db_error)
}

/// `writing → stored`.
pub(crate) async fn attempt_stored(tx: &Tx, key: &str, checksums: Vec<u8>) -> Result<bool> {
    let update = part_attempt::Entity::update_many()
        .col_expr(part_attempt::Column::State, Expr::value(AttemptState::Stored))
        .col_expr(part_attempt::Column::Checksums, Expr::value(checksums))
        .filter(part_attempt::Column::Key.eq(key))
        .filter(part_attempt::Column::State.eq(AttemptState::Writing));
    hit(tx, update).await
}

/// `from → lost`, for one attempt.
pub(crate) async fn attempt_lost(tx: &Tx, key: &str, from: AttemptState, deletable_at: DateTime<Utc>) -> Result<bool> {
    let update =
        lost(deletable_at).filter(part_attempt::Column::Key.eq(key)).filter(part_attempt::Column::State.eq(from));
    hit(tx, update).await
}

/// Every attempt of a session that no row of `parts` names becomes lost.
pub(crate) async fn unnamed_attempts_lost(tx: &Tx, id: UploadId, deletable_at: DateTime<Utc>) -> Result<()> {
    let named =
        part::Entity::find().select_only().column(part::Column::Key).filter(part::Column::UploadId.eq(id)).into_query();
    lost_of_upload(tx, id, deletable_at, Some(part_attempt::Column::Key.not_in_subquery(named))).await
}

/// Every attempt of a session becomes lost.
pub(crate) async fn all_attempts_lost(tx: &Tx, id: UploadId, deletable_at: DateTime<Utc>) -> Result<()> {
    lost_of_upload(tx, id, deletable_at, None).await
}

async fn lost_of_upload(tx: &Tx, id: UploadId, deletable_at: DateTime<Utc>, only: Option<Expr>) -> Result<()> {
    let mut update = lost(deletable_at)
        .filter(part_attempt::Column::UploadId.eq(id))
        .filter(part_attempt::Column::State.ne(AttemptState::Lost));
    if let Some(only) = only {
        update = update.filter(only);
    }
    update.exec(tx).await.map_err(db_error)?;
    Ok(())
}

pub(crate) fn lost(deletable_at: DateTime<Utc>) -> sea_orm::UpdateMany<part_attempt::Entity> {
    part_attempt::Entity::update_many()
        .col_expr(part_attempt::Column::State, Expr::value(AttemptState::Lost))
        .col_expr(part_attempt::Column::DeletableAt, Expr::value(deletable_at))
}

/// When an object was lost, and its key: the order in which objects are deleted.
pub(crate) type Lost = (DateTime<Utc>, String);

/// Lost attempts whose objects may be deleted now, of one session or of all: those behind `behind`, at most `limit`.
pub(crate) async fn deletable(
    db: &impl ConnectionTrait,
    upload: Option<UploadId>,
    now: DateTime<Utc>,
    behind: Option<Lost>,
    limit: u64,
) -> Result<Vec<Lost>> {
    // The time is set in that state only, and the index is on the times that are set.
    let mut select = part_attempt::Entity::find()
        .select_only()
        .columns([part_attempt::Column::DeletableAt, part_attempt::Column::Key])
        .filter(part_attempt::Column::DeletableAt.lte(now));
    if let Some(id) = upload {
        select = select.filter(part_attempt::Column::UploadId.eq(id));
    }
    if let Some((at, key)) = behind {
        select = select.filter(after(part_attempt::Column::DeletableAt, part_attempt::Column::Key, at, key));
    }
    select
        .order_by_asc(part_attempt::Column::DeletableAt)
        .order_by_asc(part_attempt::Column::Key)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
        .map_err(db_error)
}

/// Forgets lost attempts whose objects are gone.
pub(crate) async fn forget_attempts(tx: &Tx, keys: &[String]) -> Result<()> {
    part_attempt::Entity::delete_many()
        .filter(part_attempt::Column::Key.is_in(keys))
        .filter(part_attempt::Column::State.eq(AttemptState::Lost))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(())
}

/// Forgets the attempt of an empty part, which has no object.
pub(crate) async fn forget_empty_attempt(tx: &Tx, key: &str) -> Result<()> {
    part_attempt::Entity::delete_by_id(key).exec(tx).await.map_err(db_error)?;
    Ok(())
}

/// Forgets parts of sessions that ended before `before`, at most `limit`; how many.
pub(crate) async fn prune(tx: &Tx, before: DateTime<Utc>, limit: u64) -> Result<u64> {
    let some = part::Entity::find()
        .join(JoinType::InnerJoin, upload_of_part())
        .filter(ended(before))
        .order_by_asc(upload::Column::UpdatedAt)
        .limit(limit);
    delete_found(tx, some).await
}

/// Which of these keys have a row.
pub(crate) async fn known_keys(db: &impl ConnectionTrait, keys: &[String]) -> Result<Vec<String>> {
    part_attempt::Entity::find()
        .select_only()
        .column(part_attempt::Column::Key)
        .filter(part_attempt::Column::Key.is_in(keys))
        .into_tuple()
        .all(db)
        .await
        .map_err(db_error)
}

impl TryFrom<part::Model> for Part {
    type Error = Error;

    fn try_from(row: part::Model) -> Result<Self> {
        Ok(Self {
            number: PartNumber::try_from(i64::from(row.number)).map_err(|err| Error::internal("parts", err))?,
            etag: row.etag,
            size: from_column("parts", row.size)?,
            sha256: row.sha256,
            stored_at: row.stored_at,
        })
    }
}
