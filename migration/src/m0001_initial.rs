//! The whole model of the first release.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &str = include_str!("m0001_initial/tables.sql");

/// `tables.sql` is written in PostgreSQL's types; these are what SQLite keeps their values in. Its texts sort by bytes as
/// they are.
const SQLITE_TYPES: &[(&str, &str)] = &[
    (" collate \"C\"", ""),
    (" uuid", " blob"),
    (" bytea", " blob"),
    (" timestamptz", " text"),
    (" jsonb", " text"),
    (" bigint", " integer"),
    (" boolean", " integer"),
    ("\n);", "\n) strict;"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    // SQLite's migrations are not wrapped in a transaction unless asked for.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            connection.execute_unprepared(TABLES).await?;
            connection.execute_unprepared(include_str!("m0001_initial/triggers_postgres.sql")).await?;
        } else {
            let tables = SQLITE_TYPES.iter().fold(TABLES.to_owned(), |sql, (from, to)| sql.replace(from, to));
            connection.execute_unprepared(&tables).await?;
            connection.execute_unprepared(include_str!("m0001_initial/triggers_sqlite.sql")).await?;
        }
        Ok(())
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("the first schema is not taken back: drop the database instead".to_owned()))
    }
}
