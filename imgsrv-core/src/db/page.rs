//! Where in a list that is ordered by time and id a page begins.

use chrono::{DateTime, Datelike, Utc};
use sea_orm::{ColumnTrait, Condition};
use uuid::Uuid;

use crate::Result;
use crate::model::{Cursor, Page};

/// A cursor behind the row with this time and id.
pub(crate) fn behind(at: DateTime<Utc>, id: Uuid) -> Cursor {
    Cursor::behind(&[&at.timestamp_micros().to_string(), &id.to_string()])
}

/// What [`behind`] wrote. A time that no row can have is not of its making, and not every database could read it.
pub(crate) fn time_and_id(cursor: &Cursor) -> Result<(DateTime<Utc>, Uuid)> {
    cursor
        .keys::<2>()
        .and_then(|[at, id]| Some((DateTime::from_timestamp_micros(at.parse().ok()?)?, id.parse().ok()?)))
        .filter(|(at, _)| (1970..=9999).contains(&at.year()))
        .ok_or_else(Page::bad_cursor)
}

/// Rows that come after (`at`, `id`) in a list whose newest is first.
pub(crate) fn before<C: ColumnTrait>(at_column: C, id_column: C, at: DateTime<Utc>, id: Uuid) -> Condition {
    Condition::any().add(at_column.lt(at)).add(Condition::all().add(at_column.eq(at)).add(id_column.lt(id)))
}

/// Rows that come after (`at`, `id`) in a list whose oldest is first.
pub(crate) fn after<C: ColumnTrait>(at_column: C, id_column: C, at: DateTime<Utc>, id: Uuid) -> Condition {
    Condition::any().add(at_column.gt(at)).add(Condition::all().add(at_column.eq(at)).add(id_column.gt(id)))
}
