//! SQLite in the data folder.

use std::time::Duration;

use sea_orm::SqlxSqliteConnector;
use sea_orm::sqlx::ConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::folder::{open_folder, sync_folder};
use super::{Database, Schema, prepare, unusable};
use crate::cli::Failure;
use crate::config::Config;

const READERS: u32 = 4;

/// What each connection remembers of the file: KiB, in SQLite's own way of saying so. A catalogue of a hundred thousand
/// versions has 60 MiB, of which what is often asked for is a small part.
const CACHE: &str = "-8192";

pub(super) async fn open(config: &Config, schema: Schema) -> Result<Database, Failure> {
    let dir = open_folder(&config.data_dir, schema)?;
    let file = dir.join("imgsrv.db");
    let name = format!("SQLite at {}", file.display());
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .pragma("cache_size", CACHE)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None).test_before_acquire(false);

    // What is acknowledged is on the disk, even if the power fails: hence FULL.
    let writing = options
        .clone()
        .create_if_missing(schema == Schema::Migrate)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let writer = pool.clone().max_connections(1).connect_with(writing).await.map_err(|err| unusable(&name, err))?;
    if schema == Schema::Migrate {
        sync_folder(&dir)?;
    }
    let writer = SqlxSqliteConnector::from_sqlx_sqlite_pool(writer);
    prepare(&writer, schema).await?;

    let reader = pool
        .max_connections(READERS)
        .connect_with(options.read_only(true))
        .await
        .map_err(|err| unusable(&name, err))?;
    Ok(Database { writer, reader: Some(SqlxSqliteConnector::from_sqlx_sqlite_pool(reader)) })
}
