//! Upload sessions.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    UpdateMany,
};

use super::entity::upload;
use super::page::{before, behind, time_and_id};
use super::{Tx, db_error, delete_found, from_column, hit, hit_row, to_column};
use crate::model::{NewUpload, Paged, Upload, UploadEvent, UploadFilter, UploadId, UploadState};
use crate::{Error, Resource, Result};

pub(crate) async fn insert(tx: &Tx, upload: Upload) -> Result<()> {
    let row = upload::ActiveModel {
        id: Set(upload.id),
        expected_digest: Set(upload.expected_digest),
        expected_size: Set(to_column(upload.expected_size)?),
        media_type_hint: Set(upload.media_type_hint),
        filename_hint: Set(upload.filename_hint),
        state: Set(upload.state),
        received: Set(to_column(upload.received)?),
        attempts: Set(0),
        failure_reason: Set(upload.failure_reason),
        expires_at: Set(upload.expires_at),
        created_at: Set(upload.created_at),
        updated_at: Set(upload.created_at),
    };
    upload::Entity::insert(row).exec_without_returning(tx).await.map_err(db_error)?;
    Ok(())
}

pub(crate) async fn get(db: &impl ConnectionTrait, id: UploadId) -> Result<Upload> {
    let row = upload::Entity::find_by_id(id).one(db).await.map_err(db_error)?;
    row.ok_or(Error::NotFound(Resource::Upload(id)))?.try_into()
}

pub(crate) async fn list(db: &impl ConnectionTrait, filter: &UploadFilter) -> Result<Paged<Upload>> {
    let mut select = upload::Entity::find();
    if let Some(digest) = &filter.expected_digest {
        select = select.filter(upload::Column::ExpectedDigest.eq(digest.clone()));
    }
    if let Some(state) = filter.state {
        select = select.filter(upload::Column::State.eq(state));
    }
    if let Some(cursor) = filter.page.after() {
        let (created_at, id) = time_and_id(cursor)?;
        select = select.filter(before(upload::Column::CreatedAt, upload::Column::Id, created_at, id));
    }
    let rows = select
        .order_by_desc(upload::Column::CreatedAt)
        .order_by_desc(upload::Column::Id)
        .limit(filter.page.limit() + 1)
        .all(db)
        .await
        .map_err(db_error)?;
    let uploads = rows.into_iter().map(Upload::try_from).collect::<Result<Vec<_>>>()?;
    Ok(Paged::from_rows(uploads, &filter.page, |last| behind(last.created_at, last.id.0)))
}

/// Reserves the next attempt of an open session and holds the session open until `hold`.
pub(crate) async fn open_attempt(tx: &Tx, id: UploadId, now: DateTime<Utc>, hold: DateTime<Utc>) -> Result<bool> {
    let update = upload::Entity::update_many()
        .col_expr(upload::Column::Attempts, Expr::col(upload::Column::Attempts).add(1))
        .col_expr(upload::Column::ExpiresAt, at_least(upload::Column::ExpiresAt, hold))
        .filter(upload::Column::Id.eq(id))
        .filter(upload::Column::State.is_in(UploadEvent::PartStored.sources().iter().copied()))
        .filter(upload::Column::ExpiresAt.gt(now));
    hit(tx, update).await
}

/// Holds an open session open until `hold`, at least.
pub(crate) async fn hold(tx: &Tx, id: UploadId, hold: DateTime<Utc>) -> Result<bool> {
    let update = upload::Entity::update_many()
        .col_expr(upload::Column::ExpiresAt, at_least(upload::Column::ExpiresAt, hold))
        .filter(upload::Column::Id.eq(id))
        .filter(upload::Column::State.is_in(UploadEvent::PartStored.sources().iter().copied()));
    hit(tx, update).await
}

fn at_least(column: upload::Column, time: DateTime<Utc>) -> Expr {
    Expr::case(Expr::col(column).lt(time), time).finally(Expr::col(column)).into()
}

/// Makes `event` happen to the session, if its state allows; the session as it was before.
pub(crate) async fn transition(
    tx: &Tx,
    id: UploadId,
    event: UploadEvent,
    now: DateTime<Utc>,
) -> Result<Option<Upload>> {
    leave(tx, guarded(id, event, now), event).await
}

/// Like [`transition`], for a session that is not past its time.
pub(crate) async fn transition_in_time(
    tx: &Tx,
    id: UploadId,
    event: UploadEvent,
    now: DateTime<Utc>,
) -> Result<Option<Upload>> {
    leave(tx, guarded(id, event, now).filter(upload::Column::ExpiresAt.gt(now)), event).await
}

/// Gives up a session that is past its time; the session as it was before.
pub(crate) async fn expire(tx: &Tx, id: UploadId, now: DateTime<Utc>) -> Result<Option<Upload>> {
    let event = UploadEvent::GivenUp;
    leave(tx, guarded(id, event, now).filter(upload::Column::ExpiresAt.lte(now)), event).await
}

/// Takes the lock and leaves the state alone: what it returns is then the state that is left.
fn guarded(id: UploadId, event: UploadEvent, now: DateTime<Utc>) -> UpdateMany<upload::Entity> {
    upload::Entity::update_many()
        .col_expr(upload::Column::UpdatedAt, Expr::value(now))
        .filter(upload::Column::Id.eq(id))
        .filter(upload::Column::State.is_in(event.sources().iter().copied()))
}

async fn leave(tx: &Tx, guard: UpdateMany<upload::Entity>, event: UploadEvent) -> Result<Option<Upload>> {
    let Some(before) = hit_row(tx, guard).await? else { return Ok(None) };
    if before.state != event.target() {
        let update = upload::Entity::update_many()
            .col_expr(upload::Column::State, Expr::value(event.target()))
            .filter(upload::Column::Id.eq(before.id));
        hit(tx, update).await?;
    }
    before.try_into().map(Some)
}

/// Why a guarded update of a session hit no row.
pub(crate) async fn explain(tx: &Tx, id: UploadId, event: UploadEvent, now: DateTime<Utc>) -> Result<Error> {
    let upload = get(tx, id).await?;
    Ok(match upload.state.after(event) {
        Err(invalid) => Error::precondition(crate::Condition::WrongState, invalid.to_string()),
        Ok(_) if upload.expires_at <= now => {
            Error::precondition(crate::Condition::Expired, "the upload session has expired: begin a new one")
        }
        Ok(_) => Error::changed_meanwhile("the upload"),
    })
}

/// After a part was stored: the sum of the current parts and the time from which an idle session expires.
pub(crate) async fn part_stored(tx: &Tx, id: UploadId, received: u64, expires_at: DateTime<Utc>) -> Result<()> {
    let update = upload::Entity::update_many()
        .col_expr(upload::Column::Received, Expr::value(to_column(received)?))
        .col_expr(upload::Column::ExpiresAt, at_least(upload::Column::ExpiresAt, expires_at))
        .filter(upload::Column::Id.eq(id));
    hit(tx, update).await?;
    Ok(())
}

pub(crate) async fn set_failure(tx: &Tx, id: UploadId, reason: &str) -> Result<()> {
    let update = upload::Entity::update_many()
        .col_expr(upload::Column::FailureReason, Expr::value(reason))
        .filter(upload::Column::Id.eq(id));
    hit(tx, update).await?;
    Ok(())
}

/// The number of attempts of a session, under its lock: the newest attempt's number.
pub(crate) async fn attempts(tx: &Tx, id: UploadId) -> Result<i32> {
    let row = upload::Entity::find_by_id(id).one(tx).await.map_err(db_error)?;
    Ok(row.ok_or(Error::NotFound(Resource::Upload(id)))?.attempts)
}

/// Open sessions past their time.
pub(crate) async fn expired(db: &impl ConnectionTrait, now: DateTime<Utc>, limit: u64) -> Result<Vec<UploadId>> {
    upload::Entity::find()
        .select_only()
        .column(upload::Column::Id)
        .filter(upload::Column::State.is_in(UploadEvent::GivenUp.sources().iter().copied()))
        .filter(upload::Column::ExpiresAt.lte(now))
        .order_by_asc(upload::Column::ExpiresAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
        .map_err(db_error)
}

/// Whether a session ended before `before`.
pub(crate) fn ended(before: DateTime<Utc>) -> Condition {
    let terminal = UploadState::ALL.iter().copied().filter(|state| state.is_terminal());
    Condition::all().add(upload::Column::State.is_in(terminal)).add(upload::Column::UpdatedAt.lt(before))
}

/// Forgets sessions that ended before `before`, at most `limit`; how many. Their parts are forgotten before; their blobs
/// stay.
pub(crate) async fn prune(tx: &Tx, before: DateTime<Utc>, limit: u64) -> Result<u64> {
    let some = upload::Entity::find().filter(ended(before)).order_by_asc(upload::Column::UpdatedAt).limit(limit);
    delete_found(tx, some).await
}

/// The state of a session, if it is known.
pub(crate) async fn state(db: &impl ConnectionTrait, id: UploadId) -> Result<Option<UploadState>> {
    let row = upload::Entity::find_by_id(id).one(db).await.map_err(db_error)?;
    Ok(row.map(|row| row.state))
}

impl TryFrom<upload::Model> for Upload {
    type Error = Error;

    fn try_from(row: upload::Model) -> Result<Self> {
        Ok(Self {
            id: row.id,
            expected_digest: row.expected_digest,
            expected_size: from_column("uploads", row.expected_size)?,
            media_type_hint: row.media_type_hint,
            filename_hint: row.filename_hint,
            state: row.state,
            received: from_column("uploads", row.received)?,
            failure_reason: row.failure_reason,
            expires_at: row.expires_at,
            created_at: row.created_at,
        })
    }
}

impl Upload {
    /// A session as it begins.
    pub(crate) fn begun(
        new: NewUpload,
        id: UploadId,
        state: UploadState,
        now: DateTime<Utc>,
        ttl: chrono::TimeDelta,
    ) -> Self {
        Self {
            id,
            expected_digest: new.expected_digest,
            expected_size: new.expected_size,
            media_type_hint: new.media_type_hint,
            filename_hint: new.filename_hint,
            state,
            received: 0,
            failure_reason: None,
            expires_at: now + ttl,
            created_at: now,
        }
    }
}
