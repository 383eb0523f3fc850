//! Somebody who can hold tokens.

use imgsrv_core::model::Prose;
use sea_orm::entity::prelude::*;

use crate::auth::id::OpaqueId;
use crate::auth::principals::PrincipalKind;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "principals")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: OpaqueId,
    pub kind: PrincipalKind,
    pub display_name: Prose,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub attributes: Option<Json>,
    pub bootstrap: bool,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
