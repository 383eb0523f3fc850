//! A movable name that points at a published version.

use sea_orm::entity::prelude::*;

use crate::model::{AliasId, AliasName, ImageId, VersionId};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "aliases")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AliasId,
    pub image_id: ImageId,
    pub alias: AliasName,
    pub version_id: VersionId,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
