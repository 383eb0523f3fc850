//! The pairs of database and store. A further pair is a line in each match.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use imgsrv_core::opendal::layers::RetryLayer;
use imgsrv_core::opendal::{Operator, services};
use imgsrv_core::sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, Statement};
use imgsrv_core::testing::{Garage, Postgres, sqlite_in_memory};
use imgsrv_migration::{Migrator, MigratorTrait};
use tempfile::TempDir;

use crate::s3::{self, S3};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    SqliteMemory,
    SqliteFs,
    SqliteGarage,
    PostgresFs,
    PostgresS3,
    PostgresGarage,
}

/// What holds a pair's store, for as long as the trial lasts.
pub(crate) type Held = Option<S3>;

impl Pair {
    pub(crate) const ALL: &[Self] = &[
        Self::SqliteMemory,
        Self::SqliteFs,
        Self::SqliteGarage,
        Self::PostgresFs,
        Self::PostgresS3,
        Self::PostgresGarage,
    ];

    pub(crate) fn has_files(self) -> bool {
        matches!(self, Self::SqliteFs | Self::PostgresFs)
    }

    pub(crate) fn is_postgres(self) -> bool {
        matches!(self, Self::PostgresFs | Self::PostgresS3 | Self::PostgresGarage)
    }

    pub(crate) fn speaks_s3(self) -> bool {
        matches!(self, Self::SqliteGarage | Self::PostgresS3 | Self::PostgresGarage)
    }

    /// The database's writing and reading handles.
    pub(crate) async fn database(self, servers: &Servers, folder: &TempDir) -> [DatabaseConnection; 2] {
        match self {
            Self::SqliteMemory => {
                let db = sqlite_in_memory().await.expect("SQLite");
                [db.clone(), db]
            }
            Self::SqliteFs | Self::SqliteGarage => {
                let [writer, reader] = sqlite_urls(folder);
                let writer = connect(&writer, 1).await;
                Migrator::up(&writer, None).await.expect("migrations");
                [writer, connect(&reader, 4).await]
            }
            Self::PostgresFs | Self::PostgresS3 | Self::PostgresGarage => {
                let db = connect(&servers.new_database(), 16).await;
                Migrator::up(&db, None).await.expect("migrations");
                [db.clone(), db]
            }
        }
    }

    /// The URLs of a trial's database, for handles on it from elsewhere: one that writes, one that reads.
    pub(crate) async fn urls(self, servers: &Servers, folder: &TempDir, database: &DatabaseConnection) -> [String; 2] {
        match self {
            Self::SqliteMemory => panic!("it is its one connection"),
            Self::SqliteFs | Self::SqliteGarage => sqlite_urls(folder),
            Self::PostgresFs | Self::PostgresS3 | Self::PostgresGarage => {
                let name = Statement::from_string(database.get_database_backend(), "select current_database()::text");
                let row = database.query_one_raw(name).await.expect("a database").expect("its name");
                let url = servers.url(&row.try_get_by_index::<String>(0).expect("a text"));
                [url.clone(), url]
            }
        }
    }

    pub(crate) async fn store(self, servers: &Servers, folder: &TempDir) -> (Operator, Held) {
        let objects = folder.path().join("objects");
        match self {
            Self::SqliteMemory => (Operator::new(services::Memory::default()).expect("a store"), None),
            Self::SqliteFs | Self::PostgresFs => {
                let fs = services::Fs::default().root(&objects.display().to_string());
                (Operator::new(fs).expect("a store"), None)
            }
            Self::PostgresS3 => {
                let server = S3::start(&objects).await;
                let s3 = services::S3::default()
                    .endpoint(&format!("http://{}", server.address))
                    .bucket(s3::BUCKET)
                    .region("us-east-1")
                    .access_key_id(s3::ACCESS_KEY_ID)
                    .secret_access_key(s3::SECRET_ACCESS_KEY);
                (reliable(s3), Some(server))
            }
            Self::SqliteGarage | Self::PostgresGarage => {
                let (garage, bucket) = servers.new_bucket();
                let s3 = services::S3::default()
                    .endpoint(&format!("http://{}", garage.endpoint()))
                    .bucket(&bucket)
                    .region(Garage::REGION)
                    .access_key_id(Garage::ACCESS_KEY_ID)
                    .secret_access_key(Garage::SECRET_ACCESS_KEY);
                (reliable(s3), None)
            }
        }
    }
}

/// As a server would have it: a call that fails in passing is repeated.
fn reliable(s3: services::S3) -> Operator {
    imgsrv_core::opendal::install_default(); // the HTTP client, which default features would install by themselves
    let operator = Operator::new(s3.disable_config_load()).expect("a store");
    operator.layer(RetryLayer::new().with_jitter())
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SqliteMemory => "sqlite+memory",
            Self::SqliteFs => "sqlite+fs",
            Self::SqliteGarage => "sqlite+garage",
            Self::PostgresFs => "postgres+fs",
            Self::PostgresS3 => "postgres+s3",
            Self::PostgresGarage => "postgres+garage",
        })
    }
}

fn sqlite_urls(folder: &TempDir) -> [String; 2] {
    let path = folder.path().join("imgsrv.db");
    ["rwc", "ro"].map(|mode| format!("sqlite://{}?mode={mode}", path.display()))
}

/// The writing and the reading handle on a database that there is.
pub(crate) async fn open([writer, reader]: &[String; 2]) -> [DatabaseConnection; 2] {
    if writer == reader {
        let db = connect(writer, 4).await;
        return [db.clone(), db];
    }
    [connect(writer, 1).await, connect(reader, 4).await]
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
    garage: OnceLock<Garage>,
    names: AtomicU32,
}

impl Servers {
    /// The URL of an empty database.
    fn new_database(&self) -> String {
        let postgres = self.0.postgres.get_or_init(|| Postgres::start().expect("PostgreSQL"));
        let name = self.new_name();
        postgres.create_database(&name).expect("a database");
        postgres.url(&name)
    }

    /// The URL of a database that there is.
    fn url(&self, name: &str) -> String {
        self.0.postgres.get().expect("a server with a database").url(name)
    }

    /// An empty bucket.
    fn new_bucket(&self) -> (&Garage, String) {
        let garage = self.0.garage.get_or_init(|| Garage::start().expect("Garage"));
        let name = self.new_name();
        garage.create_bucket(&name).expect("a bucket");
        (garage, name)
    }

    /// How many objects of a bucket in Garage were begun and neither finished nor given up.
    pub(crate) fn unfinished(&self, bucket: &str) -> u64 {
        self.0.garage.get().map_or(0, |garage| garage.unfinished_uploads(bucket).expect("Garage"))
    }

    fn new_name(&self) -> String {
        format!("trial{}", self.0.names.fetch_add(1, Ordering::Relaxed))
    }
}
