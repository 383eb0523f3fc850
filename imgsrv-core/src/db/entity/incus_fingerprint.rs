//! What Incus calls a metadata file and a root file together.

use sea_orm::entity::prelude::*;

use crate::model::Digest;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "incus_fingerprints")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub metadata_digest: Digest,
    #[sea_orm(primary_key, auto_increment = false)]
    pub root_digest: Digest,
    pub fingerprint: Digest,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
