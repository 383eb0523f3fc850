//! One file of a version.

use sea_orm::entity::prelude::*;

use crate::model::{Architecture, ArtifactId, Digest, Format, MediaType, OperatingSystem, Variant, VersionId};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "artifacts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ArtifactId,
    pub version_id: VersionId,
    pub variant: Variant,
    pub operating_system: OperatingSystem,
    pub architecture: Architecture,
    pub format: Format,
    pub blob_digest: Digest,
    pub blob_size: i64,
    pub media_type: MediaType,
    #[sea_orm(column_type = "JsonBinary")]
    pub requirements: Json,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
