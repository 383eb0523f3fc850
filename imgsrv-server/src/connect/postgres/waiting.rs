//! A PostgreSQL that is started at the same time as we are, or is being restarted.

use std::io::ErrorKind;
use std::time::Duration;

use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{ConnectOptions, Connection, Error as SqlxError};
use tokio::time::{Instant, sleep, timeout};

use super::super::unusable;
use crate::cli::Failure;

/// How long one try may take: a packet that is lost is sent again after one second, and after two more.
const TRY: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Waits until PostgreSQL lets us in, no longer than `patience` and the last try take; once is tried in any case.
pub(super) async fn until_it_answers(options: &PgConnectOptions, patience: Duration) -> Result<(), Failure> {
    let name = format!("PostgreSQL at {}", address(options));
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match timeout(TRY, options.connect()).await {
            Ok(Ok(connection)) => {
                // The pool opens its own. Whether this one ends well is of no interest.
                connection.close().await.ok();
                return Ok(());
            }
            Ok(Err(err)) if !may_pass(&err) => return Err(unusable(&name, err)),
            Ok(Err(err)) => err.to_string(),
            Err(_) => format!("no answer in {TRY:?}"),
        };
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            let waited = if patience.is_zero() { String::new() } else { format!(" within {patience:?}") };
            return Err(Failure::run(format!("{name} could not be reached{waited}: {reason}")));
        }
        let wait = pause.min(left);
        let (host, port) = (options.get_host(), options.get_port());
        tracing::warn!(host, port, error = reason, retry_in_ms = wait.as_millis(), "waiting for {name}");
        sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Where it is, without what else the URL says.
fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Whether it may be better in a while though nobody changes anything.
fn may_pass(err: &SqlxError) -> bool {
    match err {
        // Nobody listens, the name is not known yet, the connection ends half-way; but not a certificate that is no good,
        // which rustls reports as invalid data.
        SqlxError::Io(err) => {
            !matches!(err.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::PermissionDenied)
        }
        // It starts, stops, or has no connection to spare; not: it knows no such user, password or database.
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        SqlxError::Database(err) => {
            err.code().is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class)))
        }
        // A proxy before a server that is not up takes the connection and ends it; sqlx takes that for an odd answer.
        SqlxError::Protocol(_) => true,
        _ => false,
    }
}
