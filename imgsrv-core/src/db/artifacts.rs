//! Artifacts and their attachments.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, JoinType, QueryFilter, QueryOrder, QuerySelect};

use super::entity::{artifact, artifact_of_attachment, attachment};
use super::page::{after, behind, time_and_id};
use super::{Tx, db_error, from_column, insert_row, to_column};
use crate::model::{
    Artifact, ArtifactEntry, ArtifactId, Attachment, AttachmentId, BlobRef, Digest, Page, Paged, VersionId,
};
use crate::{Error, Resource, Result};

pub(crate) async fn insert(tx: &Tx, new: Artifact) -> Result<()> {
    let key = format!(
        "variant {}, operating system {}, architecture {} and format {}",
        new.variant, new.operating_system, new.architecture, new.format
    );
    let row = artifact::Model {
        id: new.id,
        version_id: new.version_id,
        variant: new.variant,
        operating_system: new.operating_system,
        architecture: new.architecture,
        format: new.format,
        blob_size: to_column(new.blob.size)?,
        blob_digest: new.blob.digest,
        media_type: new.blob.media_type,
        requirements: serde_json::to_value(new.requirements).map_err(|err| Error::internal("requirements", err))?,
        created_at: new.created_at,
    };
    insert_row::<artifact::Entity>(tx, row, || Resource::ArtifactLike(key)).await
}

pub(crate) async fn get(db: &impl ConnectionTrait, version: VersionId, id: ArtifactId) -> Result<Artifact> {
    let row = artifact::Entity::find_by_id(id)
        .filter(artifact::Column::VersionId.eq(version))
        .one(db)
        .await
        .map_err(db_error)?;
    row.ok_or(Error::NotFound(Resource::Artifact(id)))?.try_into()
}

pub(crate) async fn list(db: &impl ConnectionTrait, version: VersionId, page: &Page) -> Result<Paged<Artifact>> {
    let mut select = artifact::Entity::find().filter(artifact::Column::VersionId.eq(version));
    if let Some(cursor) = page.after() {
        let (at, id) = time_and_id(cursor)?;
        select = select.filter(after(artifact::Column::CreatedAt, artifact::Column::Id, at, id));
    }
    let rows = select
        .order_by_asc(artifact::Column::CreatedAt)
        .order_by_asc(artifact::Column::Id)
        .limit(page.limit() + 1)
        .all(db)
        .await
        .map_err(db_error)?;
    let artifacts = rows.into_iter().map(Artifact::try_from).collect::<Result<Vec<_>>>()?;
    Ok(Paged::from_rows(artifacts, page, |last| behind(last.created_at, last.id.0)))
}

pub(crate) async fn delete(tx: &Tx, version: VersionId, id: ArtifactId) -> Result<bool> {
    attachment::Entity::delete_many()
        .filter(
            attachment::Column::ArtifactId
                .in_subquery(ids(version).and_where(Expr::col(artifact::Column::Id).eq(id)).to_owned()),
        )
        .exec(tx)
        .await
        .map_err(db_error)?;
    let deleted = artifact::Entity::delete_many()
        .filter(artifact::Column::Id.eq(id))
        .filter(artifact::Column::VersionId.eq(version))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(deleted.rows_affected == 1)
}

/// Deletes every artifact of a version with its attachments.
pub(crate) async fn delete_all(tx: &Tx, version: VersionId) -> Result<()> {
    attachment::Entity::delete_many()
        .filter(attachment::Column::ArtifactId.in_subquery(ids(version)))
        .exec(tx)
        .await
        .map_err(db_error)?;
    artifact::Entity::delete_many().filter(artifact::Column::VersionId.eq(version)).exec(tx).await.map_err(db_error)?;
    Ok(())
}

fn ids(version: VersionId) -> SelectStatement {
    Query::select()
        .column(artifact::Column::Id)
        .from(artifact::Entity)
        .and_where(Expr::col(artifact::Column::VersionId).eq(version))
        .to_owned()
}

pub(crate) async fn insert_attachment(tx: &Tx, new: Attachment) -> Result<()> {
    let (artifact, name) = (new.artifact_id, new.name.clone());
    let row = attachment::Model {
        id: new.id,
        artifact_id: new.artifact_id,
        name: new.name,
        blob_size: to_column(new.blob.size)?,
        blob_digest: new.blob.digest,
        media_type: new.blob.media_type,
        created_at: new.created_at,
    };
    insert_row::<attachment::Entity>(tx, row, || Resource::AttachmentNamed(artifact, name)).await
}

pub(crate) async fn attachment(
    db: &impl ConnectionTrait,
    artifact: ArtifactId,
    id: AttachmentId,
) -> Result<Attachment> {
    let row = attachment::Entity::find_by_id(id)
        .filter(attachment::Column::ArtifactId.eq(artifact))
        .one(db)
        .await
        .map_err(db_error)?;
    row.ok_or(Error::NotFound(Resource::Attachment(id)))?.try_into()
}

/// The digests of what is attached to an artifact.
pub(crate) async fn attached(db: &impl ConnectionTrait, artifact: ArtifactId) -> Result<Vec<Digest>> {
    let digests = attachment::Entity::find().select_only().column(attachment::Column::BlobDigest);
    let digests = digests.filter(attachment::Column::ArtifactId.eq(artifact));
    digests.into_tuple().all(db).await.map_err(db_error)
}

pub(crate) async fn delete_attachment(tx: &Tx, artifact: ArtifactId, id: AttachmentId) -> Result<bool> {
    let deleted = attachment::Entity::delete_many()
        .filter(attachment::Column::Id.eq(id))
        .filter(attachment::Column::ArtifactId.eq(artifact))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(deleted.rows_affected == 1)
}

/// The artifacts of a version in the order in which they were added, each with its attachments by name.
pub(crate) async fn entries(db: &impl ConnectionTrait, version: VersionId) -> Result<Vec<ArtifactEntry>> {
    let artifacts = artifact::Entity::find()
        .filter(artifact::Column::VersionId.eq(version))
        .order_by_asc(artifact::Column::CreatedAt)
        .order_by_asc(artifact::Column::Id)
        .all(db)
        .await
        .map_err(db_error)?;
    let attachments = attachment::Entity::find()
        .join(JoinType::InnerJoin, artifact_of_attachment())
        .filter(artifact::Column::VersionId.eq(version))
        .order_by_asc(attachment::Column::Name)
        .all(db)
        .await
        .map_err(db_error)?;
    let artifacts = artifacts.into_iter().map(Artifact::try_from).collect::<Result<Vec<_>>>()?;
    let attachments = attachments.into_iter().map(Attachment::try_from).collect::<Result<Vec<_>>>()?;
    Ok(with_attachments(artifacts, attachments).collect())
}

/// Artifacts, each with those of the attachments that are its own; both stay in their order.
pub(super) fn with_attachments(
    artifacts: Vec<Artifact>,
    attachments: Vec<Attachment>,
) -> impl Iterator<Item = ArtifactEntry> {
    let mut of = HashMap::<ArtifactId, Vec<Attachment>>::new();
    for attachment in attachments {
        of.entry(attachment.artifact_id).or_default().push(attachment);
    }
    artifacts.into_iter().map(move |artifact| {
        let attachments = of.remove(&artifact.id).unwrap_or_default();
        ArtifactEntry { artifact, attachments }
    })
}

impl TryFrom<artifact::Model> for Artifact {
    type Error = Error;

    fn try_from(row: artifact::Model) -> Result<Self> {
        Ok(Self {
            id: row.id,
            version_id: row.version_id,
            variant: row.variant,
            operating_system: row.operating_system,
            architecture: row.architecture,
            format: row.format,
            blob: BlobRef {
                digest: row.blob_digest,
                size: from_column("artifacts", row.blob_size)?,
                media_type: row.media_type,
            },
            requirements: serde_json::from_value(row.requirements)
                .map_err(|err| Error::internal("artifacts.requirements", err))?,
            created_at: row.created_at,
        })
    }
}

impl TryFrom<attachment::Model> for Attachment {
    type Error = Error;

    fn try_from(row: attachment::Model) -> Result<Self> {
        Ok(Self {
            id: row.id,
            artifact_id: row.artifact_id,
            name: row.name,
            blob: BlobRef {
                digest: row.blob_digest,
                size: from_column("attachments", row.blob_size)?,
                media_type: row.media_type,
            },
            created_at: row.created_at,
        })
    }
}
