//! What the fuzz targets call, and nobody else: it may change at any time.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::model::Cursor;
use crate::{db, store};

/// A cursor behind the row with this time and id.
pub fn behind(at: DateTime<Utc>, id: Uuid) -> Cursor {
    db::page::behind(at, id)
}

/// The time and id of the row that a cursor stands behind.
pub fn time_and_id(cursor: &Cursor) -> Option<(DateTime<Utc>, Uuid)> {
    db::page::time_and_id(cursor).ok()
}

/// The upload that the key of an object names.
pub fn upload_of(key: &str) -> Option<Uuid> {
    store::upload_of(key).map(|upload| upload.0)
}

/// When a probe began whose object has this key.
pub fn probe_time(key: &str) -> Option<DateTime<Utc>> {
    store::probe_time(key)
}
