//! A file that goes with an artifact.

use sea_orm::entity::prelude::*;

use crate::model::{ArtifactId, AttachmentId, AttachmentName, Digest, MediaType};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "attachments")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AttachmentId,
    pub artifact_id: ArtifactId,
    pub name: AttachmentName,
    pub blob_digest: Digest,
    pub blob_size: i64,
    pub media_type: MediaType,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
