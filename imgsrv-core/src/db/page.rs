//! Where in a list that is ordered by time and id a page begins.

use chrono::{DateTime, Datelike, Utc};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, Value};
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
pub(crate) fn before<C: ColumnTrait>(at_column: C, id_column: C, at: DateTime<Utc>, id: impl Into<Value>) -> Expr {
    row(at_column, id_column).lt(Expr::tuple([Expr::value(at), Expr::value(id)]))
}

/// Rows that come after (`at`, `id`) in a list whose oldest is first.
pub(crate) fn after<C: ColumnTrait>(at_column: C, id_column: C, at: DateTime<Utc>, id: impl Into<Value>) -> Expr {
    row(at_column, id_column).gt(Expr::tuple([Expr::value(at), Expr::value(id)]))
}

/// Both databases compare such a row by an index on these columns; they do not where the two are parted by OR.
fn row<C: ColumnTrait>(at_column: C, id_column: C) -> Expr {
    Expr::tuple([at_column.into_expr(), id_column.into_expr()])
}
