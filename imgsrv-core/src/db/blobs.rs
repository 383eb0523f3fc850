//! Blobs and the objects that hold their bytes.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition, LockBehavior, LockType, Query};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, JoinType, QueryFilter, QueryOrder, QuerySelect,
    Statement, UpdateMany,
};

use super::entity::{
    artifact, artifact_of_attachment, attachment, blob, blob_segment, part_attempt, segments_of_blob, version,
    version_of_artifact,
};
use super::{Tx, db_error, from_column, hit, hit_row, parts, to_column};
use crate::model::{Blob, BlobState, Digest, MediaType, UploadId, VersionState};
use crate::{Error, Resource, Result};

/// Cites a blob: makes it live, if it can be used; the blob in the state that it was in. The first statement of whatever
/// relies on the blob.
pub(crate) async fn cite(tx: &Tx, digest: &Digest, now: DateTime<Utc>) -> Result<Option<Blob>> {
    revive(tx, digest, BlobState::CITABLE, now).await
}

/// Takes a blob whose old bytes count as absent back to life; the blob in the state that it was in. Its segments must be
/// replaced in the same transaction.
pub(crate) async fn heal(tx: &Tx, digest: &Digest, now: DateTime<Utc>) -> Result<Option<Blob>> {
    revive(tx, digest, &[BlobState::Damaged, BlobState::Quarantined, BlobState::Deleting], now).await
}

async fn revive(tx: &Tx, digest: &Digest, from: &[BlobState], now: DateTime<Utc>) -> Result<Option<Blob>> {
    let guard = guarded(digest, from).col_expr(blob::Column::LastUsedAt, Expr::value(now));
    let Some(left) = hit_row(tx, guard).await? else { return Ok(None) };
    if left.state != BlobState::Live {
        hit(tx, moved(digest, BlobState::Live)).await?;
    }
    left.try_into().map(Some)
}

/// Locks a blob that is in one of these states, and nothing else; the state that it is in.
pub(crate) async fn hold(tx: &Tx, digest: &Digest, states: &[BlobState]) -> Result<Option<BlobState>> {
    Ok(hit_row(tx, guarded(digest, states)).await?.map(|row| row.state))
}

/// An update of one blob.
pub(super) fn update(digest: &Digest) -> UpdateMany<blob::Entity> {
    blob::Entity::update_many().filter(blob::Column::Digest.eq(digest.clone()))
}

/// Notes a time of a blob, if there still is one.
pub(super) async fn set_time(tx: &Tx, digest: &Digest, which: blob::Column, at: DateTime<Utc>) -> Result<()> {
    hit(tx, update(digest).col_expr(which, Expr::value(at))).await?;
    Ok(())
}

/// Takes the lock and leaves the state alone: what it returns is then the state that is left.
pub(super) fn guarded(digest: &Digest, from: &[BlobState]) -> UpdateMany<blob::Entity> {
    update(digest)
        .col_expr(blob::Column::State, Expr::col(blob::Column::State))
        .filter(blob::Column::State.is_in(from.iter().copied()))
}

/// Moves a blob that is locked to a state in which it is not on its way out.
fn moved(digest: &Digest, to: BlobState) -> UpdateMany<blob::Entity> {
    update(digest)
        .col_expr(blob::Column::State, Expr::value(to))
        .col_expr(blob::Column::CondemnedAt, Expr::value(Option::<DateTime<Utc>>::None))
}

/// Inserts a blob that is not known; `false` when another transaction was faster.
pub(crate) async fn insert(
    tx: &Tx,
    digest: &Digest,
    size: u64,
    media_type: Option<MediaType>,
    now: DateTime<Utc>,
    scrub_at: DateTime<Utc>,
) -> Result<bool> {
    let row = blob::ActiveModel {
        digest: Set(digest.clone()),
        size: Set(to_column(size)?),
        media_type: Set(media_type),
        state: Set(BlobState::Live),
        condemned_at: Set(None),
        checked_at: Set(now),
        last_used_at: Set(now),
        scrub_at: Set(scrub_at),
        created_at: Set(now),
    };
    let inserted = blob::Entity::insert(row)
        .on_conflict_do_nothing_on([blob::Column::Digest])
        .exec_without_returning(tx)
        .await
        .map_err(db_error)?;
    Ok(matches!(inserted, sea_orm::TryInsertResult::Inserted(1)))
}

/// Takes the blob whose bytes were longest not read, if it is time, and puts it off.
pub(crate) async fn take_to_scrub(tx: &Tx, now: DateTime<Utc>, put_off: DateTime<Utc>) -> Result<Option<Digest>> {
    let due = Query::select()
        .column(blob::Column::Digest)
        .from(blob::Entity)
        .and_where(Expr::col(blob::Column::ScrubAt).lte(now))
        .order_by(blob::Column::ScrubAt, sea_orm::Order::Asc)
        .limit(1)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let update = blob::Entity::update_many()
        .col_expr(blob::Column::ScrubAt, Expr::value(put_off))
        .filter(Expr::col(blob::Column::Digest).eq(Expr::SubQuery(None, Box::new(due.into()))));
    Ok(hit_row(tx, update).await?.map(|row| row.digest))
}

/// Notes when the bytes are to be read again.
pub(crate) async fn scrub_again(tx: &Tx, digest: &Digest, at: DateTime<Utc>) -> Result<()> {
    set_time(tx, digest, blob::Column::ScrubAt, at).await
}

/// Makes the parts of an upload, in the order of their numbers, the segments of a blob.
pub(crate) async fn insert_segments(tx: &Tx, digest: &Digest, upload: UploadId) -> Result<()> {
    let insert = Statement::from_sql_and_values(
        tx.get_database_backend(),
        "insert into blob_segments (digest, start, size, key) \
         select $1, sum(size) over (order by number) - size, size, key \
         from parts where upload_id = $2 and size > 0",
        [digest.clone().into(), upload.into()],
    );
    tx.execute_raw(insert).await.map_err(db_error)?;
    Ok(())
}

/// Takes a blob's segments from it; their objects may be deleted from `deletable_at` on.
pub(crate) async fn drop_segments(tx: &Tx, digest: &Digest, deletable_at: DateTime<Utc>) -> Result<()> {
    let keys = Query::select()
        .column(blob_segment::Column::Key)
        .from(blob_segment::Entity)
        .and_where(Expr::col(blob_segment::Column::Digest).eq(digest.clone()))
        .to_owned();
    parts::lost(deletable_at).filter(part_attempt::Column::Key.in_subquery(keys)).exec(tx).await.map_err(db_error)?;
    blob_segment::Entity::delete_many()
        .filter(blob_segment::Column::Digest.eq(digest.clone()))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(())
}

pub(crate) async fn find(db: &impl ConnectionTrait, digest: &Digest) -> Result<Option<blob::Model>> {
    blob::Entity::find_by_id(digest.clone()).one(db).await.map_err(db_error)
}

pub(crate) async fn get(db: &impl ConnectionTrait, digest: &Digest) -> Result<Blob> {
    find(db, digest).await?.ok_or_else(|| Error::NotFound(Resource::Blob(digest.clone())))?.try_into()
}

/// Whether a published version cites the blob.
pub(crate) async fn is_published(db: &impl ConnectionTrait, digest: &Digest) -> Result<bool> {
    let published = version::Column::State.eq(VersionState::Published);
    let as_artifact = artifact::Entity::find()
        .select_only()
        .column(artifact::Column::Id)
        .join(JoinType::InnerJoin, version_of_artifact())
        .filter(artifact::Column::BlobDigest.eq(digest.clone()))
        .filter(published.clone())
        .limit(1)
        .into_tuple::<crate::model::ArtifactId>()
        .one(db)
        .await
        .map_err(db_error)?;
    if as_artifact.is_some() {
        return Ok(true);
    }
    let as_attachment = attachment::Entity::find()
        .select_only()
        .column(attachment::Column::Id)
        .join(JoinType::InnerJoin, artifact_of_attachment())
        .join(JoinType::InnerJoin, version_of_artifact())
        .filter(attachment::Column::BlobDigest.eq(digest.clone()))
        .filter(published)
        .limit(1)
        .into_tuple::<crate::model::AttachmentId>()
        .one(db)
        .await
        .map_err(db_error)?;
    Ok(as_attachment.is_some())
}

/// A blob, and the key of its first object, if it has one: one look at both.
pub(crate) async fn with_first_key(
    db: &impl ConnectionTrait,
    digest: &Digest,
) -> Result<Option<(Blob, Option<String>)>> {
    let is_first = |_, _| blob_segment::Column::Start.eq(0).into_condition();
    let row = blob::Entity::find_by_id(digest.clone())
        .join(JoinType::LeftJoin, segments_of_blob().on_condition(is_first).into())
        .select_also(blob_segment::Entity)
        .one(db)
        .await
        .map_err(db_error)?;
    row.map(|(blob, first)| Ok((blob.try_into()?, first.map(|first| first.key)))).transpose()
}

/// A blob with its segments in order: one look at both.
pub(crate) async fn with_segments(
    db: &impl ConnectionTrait,
    digest: &Digest,
) -> Result<(Blob, Arc<[blob_segment::Model]>)> {
    let rows = blob::Entity::find_by_id(digest.clone())
        .join(JoinType::LeftJoin, segments_of_blob().into())
        .select_also(blob_segment::Entity)
        .order_by_asc(blob_segment::Column::Start)
        .all(db)
        .await
        .map_err(db_error)?;
    let (mut blobs, segments): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let blob = blobs.pop().ok_or_else(|| Error::NotFound(Resource::Blob(digest.clone())))?;
    Ok((blob.try_into()?, segments.into_iter().flatten().collect()))
}

/// All segments of a blob, in order.
pub(crate) async fn segments(db: &impl ConnectionTrait, digest: &Digest) -> Result<Vec<blob_segment::Model>> {
    blob_segment::Entity::find()
        .filter(blob_segment::Column::Digest.eq(digest.clone()))
        .order_by_asc(blob_segment::Column::Start)
        .all(db)
        .await
        .map_err(db_error)
}

/// The first objects of a blob, at most `limit`.
pub(crate) async fn first_segments(
    db: &impl ConnectionTrait,
    digest: &Digest,
    limit: u64,
) -> Result<Vec<blob_segment::Model>> {
    blob_segment::Entity::find()
        .filter(blob_segment::Column::Digest.eq(digest.clone()))
        .order_by_asc(blob_segment::Column::Start)
        .limit(limit)
        .all(db)
        .await
        .map_err(db_error)
}

/// Moves a blob that is held.
pub(crate) async fn set_state(tx: &Tx, digest: &Digest, to: BlobState) -> Result<()> {
    hit(tx, moved(digest, to)).await?;
    Ok(())
}

pub(crate) async fn segment_exists(db: &impl ConnectionTrait, digest: &Digest, key: &str) -> Result<bool> {
    let row = blob_segment::Entity::find()
        .filter(blob_segment::Column::Digest.eq(digest.clone()))
        .filter(blob_segment::Column::Key.eq(key))
        .one(db)
        .await
        .map_err(db_error)?;
    Ok(row.is_some())
}

pub(crate) async fn checked(tx: &Tx, digest: &Digest, now: DateTime<Utc>) -> Result<()> {
    set_time(tx, digest, blob::Column::CheckedAt, now).await
}

/// Blobs whose objects were missing or short.
pub(crate) async fn damaged(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<Digest>> {
    blob::Entity::find()
        .select_only()
        .column(blob::Column::Digest)
        .filter(blob::Column::State.eq(BlobState::Damaged))
        .order_by_asc(blob::Column::CheckedAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
        .map_err(db_error)
}

/// The digests behind this one, in their order.
pub(crate) async fn digests(db: &impl ConnectionTrait, behind: Option<&Digest>, limit: u64) -> Result<Vec<Digest>> {
    let mut digests = blob::Entity::find().select_only().column(blob::Column::Digest);
    if let Some(behind) = behind {
        digests = digests.filter(blob::Column::Digest.gt(behind.clone()));
    }
    digests.order_by_asc(blob::Column::Digest).limit(limit).into_tuple().all(db).await.map_err(db_error)
}

impl TryFrom<blob::Model> for Blob {
    type Error = Error;

    fn try_from(row: blob::Model) -> Result<Self> {
        Ok(Self {
            digest: row.digest,
            size: from_column("blobs", row.size)?,
            media_type: row.media_type,
            state: row.state,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        })
    }
}
