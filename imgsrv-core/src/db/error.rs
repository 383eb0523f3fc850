//! What the database's errors mean to a caller.

use sea_orm::{DbErr, RuntimeErr};

use crate::Error;

enum Meaning {
    #[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), expect(dead_code, reason = "drivers tell"))]
    Full,
    Unavailable,
    Bug,
}

/// Translates an error of which the caller knows nothing more than that the database gave it.
pub(crate) fn db_error(err: DbErr) -> Error {
    match meaning(&err) {
        Meaning::Full => Error::StorageFull,
        Meaning::Unavailable => Error::Unavailable { what: "database", source: err.into() },
        Meaning::Bug => Error::internal("database", err),
    }
}

#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(unreachable_patterns, reason = "without a driver there is no error of one")
)]
fn meaning(err: &DbErr) -> Meaning {
    match err {
        // Internal: it did not answer in time.
        DbErr::ConnectionAcquire(_) | DbErr::Conn(RuntimeErr::Internal(_)) => Meaning::Unavailable,
        DbErr::Conn(runtime) | DbErr::Exec(runtime) | DbErr::Query(runtime) => driver(runtime),
        _ => Meaning::Bug,
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn driver(err: &RuntimeErr) -> Meaning {
    use sea_orm::sqlx;
    let RuntimeErr::SqlxError(err) = err else { return Meaning::Bug };
    match err.as_ref() {
        sqlx::Error::Database(err) => err.code().map_or(Meaning::Bug, |code| match code.parse::<i32>() {
            // SQLite: decimal result codes, https://sqlite.org/rescode.html; the low byte is the primary one.
            Ok(number) if code.len() < 5 => match number & 0xff {
                13 => Meaning::Full,
                // BUSY, LOCKED, NOMEM, READONLY, IOERR, CANTOPEN
                5 | 6 | 7 | 8 | 10 | 14 => Meaning::Unavailable,
                _ => Meaning::Bug,
            },
            // PostgreSQL: SQLSTATE, appendix A of its manual.
            _ => match code.as_ref() {
                "53100" => Meaning::Full,
                // lock not available; read-only transaction; a transaction that was idle, or took, too long
                "55P03" | "25006" | "25P03" | "25P04" => Meaning::Unavailable,
                // The connection; who may connect, and to what: a restored server may lack both for a while; rollback
                // to be tried again; resources; an operator's intervention; the system
                code if ["08", "28", "3D", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                    Meaning::Unavailable
                }
                _ => Meaning::Bug,
            },
        }),
        sqlx::Error::Io(err) if err.kind() == std::io::ErrorKind::StorageFull => Meaning::Full,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        // The connection is not in the state that its other end has it in.
        | sqlx::Error::BeginFailed
        | sqlx::Error::Protocol(_) => Meaning::Unavailable,
        _ => Meaning::Bug,
    }
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn driver(_: &RuntimeErr) -> Meaning {
    Meaning::Bug
}

/// Whether an insert failed because its unique key is taken.
pub(crate) fn is_duplicate(err: &DbErr) -> bool {
    matches!(err.sql_err(), Some(sea_orm::SqlErr::UniqueConstraintViolation(_)))
}
