//! The attempt of a part that counts, and the hash after it.

use sea_orm::entity::prelude::*;

use crate::model::{Digest, Etag, UploadId};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "parts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub upload_id: UploadId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    pub attempt: i32,
    pub key: String,
    pub size: i64,
    pub etag: Etag,
    pub sha256: Option<Digest>,
    pub chain: Option<Vec<u8>>,
    pub chain_after: Option<i32>,
    pub stored_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
