//! Durable work.

use sea_orm::entity::prelude::*;

use crate::model::{JobId, JobKind, JobOutcome, Lease};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "jobs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: JobId,
    pub kind: JobKind,
    pub subject: String,
    pub available_at: DateTimeUtc,
    pub lease: Option<Lease>,
    pub attempts: i32,
    pub crashes: i32,
    pub last_error: Option<String>,
    pub traceparent: Option<String>,
    pub outcome: Option<JobOutcome>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    pub started_at: Option<DateTimeUtc>,
    pub finished_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
