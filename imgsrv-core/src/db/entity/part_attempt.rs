//! An object of the store, from before its first byte until after its last.

use sea_orm::entity::prelude::*;

use crate::model::UploadId;
use crate::model::words;

words!(
    /// Where an object stands.
    AttemptState, "attempt state", {
        /// May be incomplete.
        Writing = "writing",
        /// Whole and durable; a part or a segment names it.
        Stored = "stored",
        /// Nothing names it; it may be deleted from `deletable_at` on.
        Lost = "lost",
    }
);

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "part_attempts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    pub upload_id: UploadId,
    pub number: i32,
    pub attempt: i32,
    pub state: AttemptState,
    /// Of its bytes, block by block, once it is stored.
    pub checksums: Option<Vec<u8>>,
    pub deletable_at: Option<DateTimeUtc>,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
