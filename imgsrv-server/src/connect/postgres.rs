//! PostgreSQL, which any number of nodes share.

mod waiting;

use std::time::Duration;

use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgSslMode};
use sea_orm::sqlx::{ConnectOptions, Connection, Executor, Row};
use tokio::time::timeout;

use super::{Database, Schema, prepare};
use crate::cli::Failure;
use crate::config::{ACQUIRE_TIMEOUT, PostgresSettings, PostgresUrl};

/// What a connection that is alive needs for a sign of life, at the most.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
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
        .options(
            // The second frees what a node has locked that vanished in a transaction; there is no pause in one of ours.
            ["statement_timeout", "idle_in_transaction_session_timeout"]
                .map(|name| (name, settings.statement_timeout.as_millis())),
        )
        .disable_statement_logging();
    waiting::until_it_answers(&options, settings.connect_timeout).await?;
    let pool = PgPoolOptions::new()
        .max_connections(settings.connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
        // A round trip for each use. Without it, a restart of PostgreSQL would fail as many requests afterwards as there
        // are connections that it has cut. sqlx's own test has no limit of time and sees no transaction.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(async { Ok(is_usable(connection).await) }))
        .after_release(|connection, _| Box::pin(async { Ok(is_answered(connection).await) }))
        .connect_lazy_with(options);
    let db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    prepare(&db, schema).await?;
    Ok(Database { writer: db, reader: None })
}

/// Whether a connection answers, and in no transaction: sqlx leaves one open when its beginning is given up
/// (transact-rs/sqlx#4385).
async fn is_usable(connection: &mut PgConnection) -> bool {
    // Every statement outside of one is one, and begins with it.
    let asking = connection.fetch_one("select now() = statement_timestamp()");
    matches!(timeout(SIGN_OF_LIFE, asking).await, Ok(Ok(row)) if row.try_get(0).unwrap_or(false))
}

/// Whether nothing is under way any more, so that it may go back into the pool. Of a statement that was given up, sqlx
/// reads what is left of its answer; when there will never be any, that would keep the connection's place for ever.
async fn is_answered(connection: &mut PgConnection) -> bool {
    matches!(timeout(SIGN_OF_LIFE, connection.flush()).await, Ok(Ok(())))
}
