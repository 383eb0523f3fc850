//! A plan of what to collect.

use sea_orm::entity::prelude::*;

use crate::model::SweepPlanId;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sweep_plans")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SweepPlanId,
    pub created_at: DateTimeUtc,
    pub plan: Json,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
