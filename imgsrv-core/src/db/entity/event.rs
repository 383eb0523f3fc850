//! Who did what, when.

use sea_orm::entity::prelude::*;

use crate::model::{Actor, EventId, Subject};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: EventId,
    pub at: DateTimeUtc,
    pub actor: Actor,
    pub subject: Subject,
    pub subject_id: String,
    pub subject_name: Option<String>,
    pub what: String,
    pub from_value: Option<String>,
    pub to_value: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
