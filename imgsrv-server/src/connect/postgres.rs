//! PostgreSQL, which any number of nodes share.

mod waiting;

use std::time::Duration;

use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::ConnectOptions;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};

use super::{Database, Schema, prepare};
use crate::cli::Failure;
use crate::config::{PostgresSettings, PostgresUrl};

/// How long a request waits for a connection of the pool, or for PostgreSQL to be there again, before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// PostgreSQL keeps what it has learnt of the schema with each connection, until the connection ends.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
/// A peak leaves connections behind that other nodes may want.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);

/// What the URL says, with the meaning that libpq gives to `sslmode`.
pub(crate) fn options(url: &str) -> Option<PgConnectOptions> {
    let options: PgConnectOptions = url.parse().ok()?;
    Some(match options.get_ssl_mode() {
        // sqlx would never try TLS. This reaches every server that libpq's `allow` does, with TLS where there is any.
        PgSslMode::Allow => options.ssl_mode(PgSslMode::Prefer),
        // https://www.postgresql.org/docs/current/libpq-ssl.html: whoever names a root certificate wants it checked.
        PgSslMode::Require if url.contains("sslrootcert=") => options.ssl_mode(PgSslMode::VerifyCa),
        _ => options,
    })
}

/// The pool is made here and not by sea-orm, which puts the URL with its password into a trace span.
pub(super) async fn open(url: &PostgresUrl, settings: &PostgresSettings, schema: Schema) -> Result<Database, Failure> {
    let unusable_url = || Failure::Config("--postgres-url: not a usable URL".to_owned());
    let options = options(url.reveal())
        .ok_or_else(unusable_url)?
        .application_name("imgsrv")
        .options([("statement_timeout", settings.statement_timeout.as_millis())])
        .disable_statement_logging();
    waiting::until_it_answers(&options, settings.connect_timeout).await?;
    let pool = PgPoolOptions::new()
        .max_connections(settings.connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
        // A round trip for each use. Without it, a restart of PostgreSQL would fail as many requests afterwards as there
        // are connections that it has cut.
        .test_before_acquire(true)
        .connect_lazy_with(options);
    let db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    prepare(&db, schema).await?;
    Ok(Database { writer: db, reader: None })
}
