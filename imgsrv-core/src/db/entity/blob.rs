//! Verified bytes.

use sea_orm::entity::prelude::*;

use crate::model::{BlobState, Digest, MediaType};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "blobs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Digest,
    pub size: i64,
    pub media_type: Option<MediaType>,
    pub state: BlobState,
    pub condemned_at: Option<DateTimeUtc>,
    pub checked_at: DateTimeUtc,
    pub last_used_at: DateTimeUtc,
    pub scrub_at: DateTimeUtc,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
