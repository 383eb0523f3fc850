//! The only code that makes queries.
//!
//! Queries are free functions, grouped by noun. Those that write take a [`Tx`], which only [`Db::tx`] makes; those that
//! read take any connection.

pub(crate) mod artifacts;
pub(crate) mod blobs;
pub(crate) mod catalog;
pub(crate) mod entity;
mod error;
pub(crate) mod events;
pub(crate) mod fingerprints;
pub(crate) mod jobs;
mod limit;
pub(crate) mod page;
pub(crate) mod parts;
pub(crate) mod published;
pub(crate) mod steps;
pub(crate) mod sweeps;
pub(crate) mod uploads;

use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    AccessMode, ColumnTrait, ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, EntityTrait,
    IntoActiveModel, IsolationLevel, Iterable, PrimaryKeyToColumn, PrimaryKeyTrait, QueryFilter, QuerySelect, Select,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, UpdateMany,
};
use tracing::Instrument;
use uuid::Uuid;

pub(crate) use error::db_error;
use error::is_duplicate;
pub use limit::Limited;
use limit::within;

use crate::faults::Faults;
use crate::{BoxError, Error, Resource, Result};

/// An open transaction. Whoever is handed one is inside [`Db::tx`].
pub type Tx = Limited<DatabaseTransaction>;

/// The database: one handle that writes, one that reads (the same, except on SQLite).
///
/// Embedders use it to write tables of their own in the engine's discipline: short transactions without IO, run inside
/// [`detached`](crate::detached), whose first statement is the guarded update of the row that owns the decision.
#[derive(Clone, Debug)]
pub struct Db {
    writer: Limited<DatabaseConnection>,
    reader: Limited<DatabaseConnection>,
    faults: Faults,
}

impl Db {
    /// `limit` is what a statement may take, the wait for its connection included.
    pub(crate) fn new(
        writer: DatabaseConnection,
        reader: DatabaseConnection,
        limit: Option<Duration>,
        faults: Faults,
    ) -> Self {
        let [writer, reader] = [writer, reader].map(|inner| Limited { inner, limit });
        Self { writer, reader, faults }
    }

    /// Runs `work` in a transaction that writes: commits when it answers `Ok`, rolls back otherwise.
    ///
    /// On SQLite the transaction is `IMMEDIATE`, so it never fails half-way because another one wrote; on PostgreSQL it
    /// is READ COMMITTED, and guarded updates decide. Run it inside [`detached`](crate::detached).
    ///
    /// # Errors
    /// What `work` answers, or what the database says.
    pub async fn tx<T>(&self, name: &'static str, work: impl AsyncFnOnce(&Tx) -> Result<T>) -> Result<T> {
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        self.within(&self.writer, name, TransactionOptions { sqlite_transaction_mode, ..Default::default() }, work)
            .await
    }

    /// Runs reads that must agree with each other. Run it inside [`detached`](crate::detached).
    ///
    /// # Errors
    /// What `work` answers, or what the database says.
    pub async fn snapshot<T>(&self, name: &'static str, work: impl AsyncFnOnce(&Tx) -> Result<T>) -> Result<T> {
        let options = match self.backend() {
            DatabaseBackend::Postgres => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                sqlite_transaction_mode: None,
            },
            // SQLite's transactions are serializable as they are.
            _ => TransactionOptions::default(),
        };
        self.within(&self.reader, name, options, work).await
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that begins transactions")]
    async fn within<T>(
        &self,
        connection: &Limited<DatabaseConnection>,
        name: &'static str,
        options: TransactionOptions,
        work: impl AsyncFnOnce(&Tx) -> Result<T>,
    ) -> Result<T> {
        async {
            let passing = self.faults.pass(name).await?;
            let limit = connection.limit;
            let begin = connection.inner.begin_with_options(options);
            let tx = Limited { inner: connection.within(begin).await.map_err(db_error)?, limit };
            match work(&tx).await {
                Ok(answer) => {
                    within(limit, tx.inner.commit()).await.map_err(db_error)?;
                    passing.done(answer)
                }
                // Dropped, which rolls back as well: a database that is away would be waited for once more.
                Err(err @ Error::Unavailable { .. }) => Err(err),
                Err(err) => {
                    // Waited for, so that whoever is told of the error finds no lock of this transaction.
                    if let Err(failed) = within(limit, tx.inner.rollback()).await {
                        tracing::debug!(error = %failed, "a transaction was not rolled back by itself");
                    }
                    Err(err)
                }
            }
        }
        .instrument(tracing::debug_span!("tx", name))
        .await
    }

    /// For one statement that reads.
    pub fn reader(&self) -> &Limited<DatabaseConnection> {
        &self.reader
    }

    pub(crate) fn backend(&self) -> DatabaseBackend {
        self.writer.get_database_backend()
    }

    /// Takes the lock on the `instance` row until the end of the transaction: the first statement of one that decides
    /// about the server as a whole.
    ///
    /// # Errors
    /// What the database says.
    pub async fn lock_instance(tx: &Tx) -> Result<()> {
        use entity::instance::{Column, Entity};
        let update = Entity::update_many().col_expr(Column::Turn, Expr::col(Column::Turn).add(1));
        if hit(tx, update).await? { Ok(()) } else { Err(Error::bug("the table instance has no row")) }
    }

    /// The name of the store that this database goes with: `new`, unless it has one.
    pub(crate) async fn name_store(tx: &Tx, new: Uuid) -> Result<Uuid> {
        use entity::instance::{Column, Entity};
        Self::lock_instance(tx).await?;
        let name = Entity::find().one(tx).await.map_err(db_error)?.and_then(|row| row.store);
        if let Some(name) = name {
            return Ok(name);
        }
        hit(tx, Entity::update_many().col_expr(Column::Store, Expr::value(new))).await?;
        Ok(new)
    }

    /// What an error of sea-orm means to a caller: full, unavailable, or a bug.
    pub fn error(err: sea_orm::DbErr) -> Error {
        db_error(err)
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        let select = Statement::from_string(self.backend(), "select n from catalog_generation");
        self.writer.query_one_raw(select).await.map_err(db_error)?;
        Ok(())
    }

    /// The database's own time, where it has one apart from this machine's.
    pub(crate) async fn now(&self) -> Result<Option<chrono::DateTime<chrono::Utc>>> {
        if self.backend() != DatabaseBackend::Postgres {
            return Ok(None);
        }
        let select = Statement::from_string(self.backend(), "select clock_timestamp() as now");
        let row = self.writer.query_one_raw(select).await.map_err(db_error)?;
        row.map(|row| row.try_get("", "now").map_err(db_error)).transpose()
    }

    /// The migrations that the database has, if it has any.
    pub(crate) async fn migrations(&self) -> Result<Vec<String>> {
        let exists = match self.backend() {
            DatabaseBackend::Postgres => "select 1 where to_regclass('seaql_migrations') is not null",
            _ => "select 1 from sqlite_master where name = 'seaql_migrations'",
        };
        let select = Statement::from_string(self.backend(), exists);
        if self.writer.query_one_raw(select).await.map_err(db_error)?.is_none() {
            return Ok(Vec::new());
        }
        self.applied_migrations(&self.writer).await
    }

    /// The migrations of a database that has had some.
    pub(crate) async fn applied_migrations(&self, db: &impl ConnectionTrait) -> Result<Vec<String>> {
        let select = Statement::from_string(self.backend(), "select version from seaql_migrations order by version");
        let rows = db.query_all_raw(select).await.map_err(db_error)?;
        rows.iter().map(|row| row.try_get("", "version").map_err(db_error)).collect()
    }
}

/// Inserts a row whose unique key may be taken.
async fn insert_row<E: EntityTrait>(tx: &Tx, row: E::Model, taken: impl FnOnce() -> Resource) -> Result<()>
where
    E::Model: IntoActiveModel<E::ActiveModel>,
    E::ActiveModel: Send,
{
    match E::insert(row.into_active_model()).exec_without_returning(tx).await {
        Ok(_) => Ok(()),
        Err(err) if is_duplicate(&err) => Err(Error::AlreadyExists(taken())),
        Err(err) => Err(db_error(err)),
    }
}

/// Runs a guarded update; whether it hit the one row that it is about.
async fn hit<E: EntityTrait>(tx: &Tx, update: UpdateMany<E>) -> Result<bool> {
    let rows = update.exec(tx).await.map_err(db_error)?.rows_affected;
    if rows > 1 {
        return Err(Error::bug("a guarded update hit more than one row"));
    }
    Ok(rows == 1)
}

/// Runs a guarded update; the one row that it hit, as it is now.
async fn hit_row<E: EntityTrait>(tx: &Tx, update: UpdateMany<E>) -> Result<Option<E::Model>> {
    let mut rows = update.exec_with_returning(tx).await.map_err(db_error)?;
    if rows.len() > 1 {
        return Err(Error::bug("a guarded update hit more than one row"));
    }
    Ok(rows.pop())
}

/// Deletes the rows that a select finds; how many it found. They are deleted by their keys: in a plan for any limit,
/// PostgreSQL expects a tenth of the table behind a limited subquery, and reads all of it to join that many.
async fn delete_found<E: EntityTrait>(tx: &Tx, select: Select<E>) -> Result<u64> {
    let key = || E::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column);
    let found: Vec<<E::PrimaryKey as PrimaryKeyTrait>::ValueType> =
        select.select_only().columns(key()).into_tuple().all(tx).await.map_err(db_error)?;
    let count = found.len() as u64;
    if count > 0 {
        let key = Expr::tuple(key().map(ColumnTrait::into_expr));
        E::delete_many().filter(key.in_tuples(found)).exec(tx).await.map_err(db_error)?;
    }
    Ok(count)
}

/// A number of bytes for a column.
pub(crate) fn to_column(bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| Error::Invalid { what: "size", reason: "must be less than 2^63".to_owned() })
}

/// A count that the schema keeps from being negative.
pub(crate) fn from_column<T: TryFrom<i64, Error: Into<BoxError>>>(table: &'static str, number: i64) -> Result<T> {
    T::try_from(number).map_err(|err| Error::internal(format!("a number in {table} is out of range"), err))
}
