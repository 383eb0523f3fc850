//! The event table.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::entity::event::{ActiveModel, Column, Entity, Model};
use super::{Tx, db_error};
use crate::Result;
use crate::model::{Event, Subject};

pub(crate) async fn insert(tx: &Tx, event: Event) -> Result<()> {
    let row = ActiveModel {
        id: Set(event.id),
        at: Set(event.at),
        actor: Set(event.actor),
        subject: Set(event.subject),
        subject_id: Set(event.subject_id),
        subject_name: Set(event.subject_name),
        what: Set(event.what),
        from_value: Set(event.from),
        to_value: Set(event.to),
    };
    Entity::insert(row).exec_without_returning(tx).await.map_err(db_error)?;
    Ok(())
}

/// The newest events about one thing, newest first.
pub(crate) async fn about(
    db: &impl ConnectionTrait,
    subject: Subject,
    subject_id: &str,
    limit: u64,
) -> Result<Vec<Event>> {
    let rows = Entity::find()
        .filter(Column::Subject.eq(subject))
        .filter(Column::SubjectId.eq(subject_id))
        .order_by_desc(Column::At)
        .order_by_desc(Column::Id)
        .limit(limit)
        .all(db)
        .await
        .map_err(db_error)?;
    Ok(rows.into_iter().map(Event::from).collect())
}

impl From<Model> for Event {
    fn from(row: Model) -> Self {
        Self {
            id: row.id,
            at: row.at,
            actor: row.actor,
            subject: row.subject,
            subject_id: row.subject_id,
            subject_name: row.subject_name,
            what: row.what,
            from: row.from_value,
            to: row.to_value,
        }
    }
}
