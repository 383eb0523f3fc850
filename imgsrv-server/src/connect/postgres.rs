//! PostgreSQL, which any number of nodes share.

use std::time::Duration;

use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sea_orm::sqlx::{ConnectOptions, Error as SqlxError};

use super::{Database, Schema, prepare, unusable};
use crate::cli::Failure;
use crate::config::PostgresUrl;

const CONNECTIONS: u32 = 20;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENT_TIMEOUT: &str = "30s";

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
pub(super) async fn open(url: &PostgresUrl, schema: Schema) -> Result<Database, Failure> {
    let unusable_url = || Failure::Config("--postgres-url: not a usable URL".to_owned());
    let options = options(url.reveal())
        .ok_or_else(unusable_url)?
        .application_name("imgsrv")
        .options([("statement_timeout", STATEMENT_TIMEOUT)])
        .disable_statement_logging();
    let address = format!("PostgreSQL at {}:{}", options.get_host(), options.get_port());
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(|err| match err {
            SqlxError::PoolTimedOut => Failure::run(format!("{address} does not answer")),
            err => unusable(&address, err),
        })?;
    let db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    prepare(&db, schema).await?;
    Ok(Database { writer: db, reader: None })
}
