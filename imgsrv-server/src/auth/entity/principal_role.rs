//! A role that a principal has.

use sea_orm::entity::prelude::*;

use crate::auth::id::OpaqueId;
use crate::auth::roles::Role;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "principal_roles")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub principal_id: OpaqueId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub role: Role,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
