//! A token of a principal: never its text, only what recognises it.

use imgsrv_core::model::Prose;
use sea_orm::entity::prelude::*;

use crate::auth::id::OpaqueId;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "api_tokens")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: OpaqueId,
    pub principal_id: OpaqueId,
    pub name: Option<Prose>,
    #[sea_orm(unique)]
    pub lookup_id: String,
    #[sea_orm(column_type = "VarBinary(StringLen::None)")]
    pub secret_sha256: Vec<u8>,
    pub expires_at: DateTimeUtc,
    pub revoked_at: Option<DateTimeUtc>,
    pub last_used_at: Option<DateTimeUtc>,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The roles of the principal whose token it is.
    #[sea_orm(
        belongs_to = "super::principal_role::Entity",
        from = "Column::PrincipalId",
        to = "super::principal_role::Column::PrincipalId"
    )]
    Role,
}

impl Related<super::principal_role::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Role.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
