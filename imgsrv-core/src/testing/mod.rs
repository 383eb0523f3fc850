//! What tests of an embedder need: an engine in memory whose clock obeys, and servers of their own.

mod faults;
mod garage;
mod keeper;
mod postgres;

use chrono::DateTime;
use imgsrv_migration::{Migrator, MigratorTrait};
use opendal::Operator;
use opendal::services::Memory;
use sea_orm::{ConnectOptions, Database, DatabaseConnection};

pub(crate) use faults::Planned;
pub use faults::{Fault, FaultPlan, SITES};
pub use garage::Garage;
pub use postgres::Postgres;

use crate::engine::Builder;
use crate::{Clock, Engine, Error, Result};

impl Engine {
    /// An engine on an SQLite database and a store in memory, whose clock stands at the start of 2026.
    ///
    /// # Errors
    /// When SQLite cannot be had.
    pub async fn in_memory() -> Result<Self> {
        Self::in_memory_with(|builder| builder).await
    }

    /// Like [`Engine::in_memory`], with steps or settings of one's own.
    ///
    /// # Errors
    /// When SQLite cannot be had, or the builder refuses.
    pub async fn in_memory_with(with: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let store = Operator::new(Memory::default()).map_err(|err| Error::internal("a store in memory", err))?;
        with(Self::builder(sqlite_in_memory().await?, store).clock(manual_clock())).build().await
    }
}

/// A clock at the start of 2026.
///
/// # Panics
/// Never: the date exists.
pub fn manual_clock() -> Clock {
    Clock::manual(DateTime::from_timestamp(1_767_225_600, 0).expect("2026-01-01T00:00:00Z"))
}

/// A migrated SQLite database in memory. Its one connection is the database.
///
/// # Errors
/// When SQLite cannot be had.
pub async fn sqlite_in_memory() -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.max_connections(1).min_connections(1).sqlx_logging(false);
    options.idle_timeout(None).max_lifetime(None);
    // A caller that goes away during the test would take the connection along, and with it the database.
    options.test_before_acquire(false);
    let db = Database::connect(options).await.map_err(crate::Db::error)?;
    Migrator::up(&db, None).await.map_err(crate::Db::error)?;
    Ok(db)
}
