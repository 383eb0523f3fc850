//! Opening what the configuration names: the database and the store.

#[cfg(any(feature = "sqlite", feature = "fs"))]
mod folder;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "sqlite")]
mod sqlite;

use imgsrv_core::projection::SimpleStreams;
use imgsrv_core::{Builder, Engine};
use imgsrv_migration::{Migrator, MigratorTrait};
use opendal::Operator;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, SqliteTransactionMode};
use sea_orm::{TransactionOptions, TransactionTrait};

use crate::cli::Failure;
use crate::config::Config;

#[cfg(feature = "postgres")]
pub(crate) use postgres::options as postgres_options;

/// Held in PostgreSQL while the schema changes: `imgsrv` in ASCII, a number that is ours alone.
const MIGRATION_LOCK: i64 = 0x696d_6773_7276;

/// What to do about the schema of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    /// Bring it up to date, be the database empty or missing.
    Migrate,
    /// Leave it as it is and create nothing; the engine refuses a schema that is not its own.
    Require,
}

/// The handles of the database; `reader` where reads have one of their own.
struct Database {
    writer: DatabaseConnection,
    reader: Option<DatabaseConnection>,
}

/// An engine over the configured database and store.
pub(crate) async fn engine(config: &Config, schema: Schema) -> Result<Engine, Failure> {
    let store = store(config, schema).await?;
    Ok(builder(config, schema, store).await?.build().await?)
}

/// An engine for a look at the database. It has no store: the way back in must not depend on one.
pub(crate) async fn engine_without_store(config: &Config) -> Result<Engine, Failure> {
    let nothing = Operator::new(opendal::services::Memory::default()).map_err(|err| unusable("no store", err))?;
    Ok(builder(config, Schema::Require, nothing).await?.without_store_checks().build().await?)
}

/// Makes whatever is missing of the configured database and store.
pub(crate) async fn migrate(config: &Config) -> Result<(), Failure> {
    database(config, Schema::Migrate).await?;
    store(config, Schema::Migrate).await.map(drop)
}

async fn builder(config: &Config, schema: Schema, store: Operator) -> Result<Builder, Failure> {
    let settings = config.settings().map_err(Failure::Config)?;
    let Database { writer, reader } = database(config, schema).await?;
    let builder = Engine::builder(writer, store).settings(settings).projection(SimpleStreams::default());
    Ok(match reader {
        Some(reader) => builder.reader(reader),
        None => builder,
    })
}

async fn database(config: &Config, schema: Schema) -> Result<Database, Failure> {
    match &config.postgres_url {
        #[cfg(feature = "postgres")]
        Some(url) => postgres::open(url, &config.postgres, schema).await,
        #[cfg(not(feature = "postgres"))]
        Some(_) => Err(Failure::Config("--postgres-url: this imgsrv was built without PostgreSQL".to_owned())),
        #[cfg(feature = "sqlite")]
        None => sqlite::open(config, schema).await,
        #[cfg(not(feature = "sqlite"))]
        None => Err(Failure::Config("--postgres-url: needed, this imgsrv was built without SQLite".to_owned())),
    }
}

/// The configured store.
#[cfg_attr(not(feature = "s3"), expect(clippy::unused_async, reason = "files are there at once"))]
async fn store(config: &Config, schema: Schema) -> Result<Operator, Failure> {
    match config.s3().map_err(Failure::Config)? {
        #[cfg(feature = "s3")]
        Some(s3) => s3::open(&s3).await,
        #[cfg(not(feature = "s3"))]
        Some(_) => Err(Failure::Config("--s3-endpoint: this imgsrv was built without S3".to_owned())),
        None => files(config, schema),
    }
}

#[cfg(feature = "fs")]
fn files(config: &Config, schema: Schema) -> Result<Operator, Failure> {
    let root = folder::open_folder(&config.data_dir.join("objects"), schema)?;
    if !root.is_dir() {
        // opendal would make it, and a mistyped path would look like an empty store.
        return Err(Failure::run(format!("there is no store at {}", root.display())));
    }
    let path = root.to_str().ok_or_else(|| Failure::Config("--data-dir: must be UTF-8".to_owned()))?;
    // No `atomic_write_dir`: no key is written twice, and the database decides what exists.
    Operator::new(opendal::services::Fs::default().root(path)).map_err(|err| unusable(path, err))
}

#[cfg(not(feature = "fs"))]
fn files(_: &Config, _: Schema) -> Result<Operator, Failure> {
    Err(Failure::Config("--s3-endpoint: needed, this imgsrv was built without a store in files".to_owned()))
}

async fn prepare(db: &DatabaseConnection, schema: Schema) -> Result<(), Failure> {
    match schema {
        Schema::Migrate => migrate_schema(db).await,
        Schema::Require => Ok(()),
    }
}

/// Any number of nodes may do it at once: one does, the others wait for it.
async fn migrate_schema(db: &DatabaseConnection) -> Result<(), Failure> {
    let failed = |err: DbErr| unusable("the schema", err);
    let mode = Some(SqliteTransactionMode::Immediate);
    let options = TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() };
    // The lock and everything done under it live and die together, which they would not in a pool of connections.
    #[expect(clippy::disallowed_methods, reason = "Db::tx is an engine's, and there is none yet")]
    let tx = db.begin_with_options(options).await.map_err(failed)?;
    if tx.get_database_backend() == DatabaseBackend::Postgres {
        // However long another node needs, and however long we do.
        tx.execute_unprepared("SET LOCAL statement_timeout = 0").await.map_err(failed)?;
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await.map_err(failed)?;
    }
    let known = Migrator::get_migration_files();
    let applied = Migrator::get_migration_models(&tx).await.map_err(failed)?;
    if let Some(newer) = applied.iter().find(|row| known.iter().all(|migration| migration.name() != row.version)) {
        let line = format!("the database has migration {}, which a newer imgsrv made: run that one", newer.version);
        return Err(Failure::Run(line));
    }
    Migrator::up(&tx, None).await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}

fn unusable(what: &str, err: impl std::error::Error) -> Failure {
    Failure::run(format!("{what} is not usable: {err}"))
}
