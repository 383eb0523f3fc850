//! The pairs of database and store. A further pair is a line in each match.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use imgsrv_core::opendal::{Operator, services};
use imgsrv_core::sea_orm::{ConnectOptions, Database, DatabaseConnection};
use imgsrv_core::testing::{Postgres, sqlite_in_memory};
use imgsrv_migration::{Migrator, MigratorTrait};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    SqliteMemory,
    SqliteFs,
    PostgresFs,
}

impl Pair {
    pub(crate) const ALL: &[Self] = &[Self::SqliteMemory, Self::SqliteFs, Self::PostgresFs];

    /// The database's writing and reading handles.
    pub(crate) async fn database(self, servers: &Servers, folder: &TempDir) -> [DatabaseConnection; 2] {
        match self {
            Self::SqliteMemory => {
                let db = sqlite_in_memory().await.expect("SQLite");
                [db.clone(), db]
            }
            Self::SqliteFs => {
                let path = folder.path().join("imgsrv.db");
                let writer = connect(&format!("sqlite://{}?mode=rwc", path.display()), 1).await;
                Migrator::up(&writer, None).await.expect("migrations");
                [writer, connect(&format!("sqlite://{}?mode=ro", path.display()), 4).await]
            }
            Self::PostgresFs => {
                let db = connect(&servers.new_database(), 16).await;
                Migrator::up(&db, None).await.expect("migrations");
                [db.clone(), db]
            }
        }
    }

    pub(crate) fn store(self, folder: &TempDir) -> Operator {
        match self {
            Self::SqliteMemory => Operator::new(services::Memory::default()),
            Self::SqliteFs | Self::PostgresFs => {
                let root = folder.path().join("objects");
                Operator::new(services::Fs::default().root(&root.display().to_string()))
            }
        }
        .expect("a store")
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SqliteMemory => "sqlite+memory",
            Self::SqliteFs => "sqlite+fs",
            Self::PostgresFs => "postgres+fs",
        })
    }
}

async fn connect(url: &str, connections: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    if url.starts_with("sqlite") {
        options.map_sqlx_sqlite_opts(|options| {
            use imgsrv_core::sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
            options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full)
        });
    }
    Database::connect(options).await.expect("a database")
}

/// The servers that trials share, each started when the first one needs it.
#[derive(Clone, Default)]
pub(crate) struct Servers(Arc<Started>);

#[derive(Default)]
struct Started {
    postgres: OnceLock<Postgres>,
    databases: Mutex<u32>,
}

impl Servers {
    /// The URL of an empty database.
    fn new_database(&self) -> String {
        let postgres = self.0.postgres.get_or_init(|| Postgres::start().expect("PostgreSQL"));
        let name = {
            let mut databases = self.0.databases.lock().unwrap_or_else(PoisonError::into_inner);
            *databases += 1;
            format!("trial{databases}")
        };
        postgres.create_database(&name).expect("a database");
        postgres.url(&name)
    }
}
