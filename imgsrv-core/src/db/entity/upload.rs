//! An upload session.

use sea_orm::entity::prelude::*;

use crate::model::{Digest, FileName, MediaType, UploadId, UploadState};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "uploads")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: UploadId,
    pub expected_digest: Digest,
    pub expected_size: i64,
    pub media_type_hint: Option<MediaType>,
    pub filename_hint: Option<FileName>,
    pub state: UploadState,
    pub received: i64,
    pub attempts: i32,
    pub failure_reason: Option<String>,
    pub expires_at: DateTimeUtc,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
