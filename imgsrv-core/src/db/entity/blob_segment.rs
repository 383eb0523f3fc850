//! An object that holds a piece of a blob.

use sea_orm::entity::prelude::*;

use crate::model::Digest;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "blob_segments")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Digest,
    #[sea_orm(primary_key, auto_increment = false)]
    pub start: i64,
    pub size: i64,
    pub key: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
