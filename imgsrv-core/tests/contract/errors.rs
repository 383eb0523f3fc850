//! What the errors of PostgreSQL mean to a caller.

use std::future::ready;

use imgsrv_core::sea_orm::ConnectionTrait;
use imgsrv_core::{Db, Error, Result, Tx};

use crate::fixture::Fixture;

crate::behaviours!(sqlstates_are_told_apart, a_connection_that_is_cut_is_one_call_unavailable);

/// What a transaction answers whose statement ends with this SQLSTATE.
async fn refused(f: &Fixture, sqlstate: &str) -> Error {
    let raise = format!("do $$ begin raise exception 'no' using errcode = '{sqlstate}'; end $$");
    let work = async |tx: &Tx| tx.execute_unprepared(&raise).await.map(drop).map_err(Db::error);
    f.engine.db().tx("refused", work).await.expect_err("an exception")
}

async fn sqlstates_are_told_apart(f: &Fixture) {
    if !f.pair.is_postgres() {
        return;
    }
    for sqlstate in [
        "08000", "08001", "08003", "08006", "08P01", // the connection
        "25006", "25P03", // a server that only reads; a transaction that was idle for too long
        "28000", "28P01", "3D000", // who may connect, and to what
        "40001", "40P01", // rolled back for another one's sake
        "53000", "53200", "53300", "53400", // resources
        "55P03", "57014", // a lock that was not to be had; cancelled, or took too long
        "57P01", "57P02", "57P03", "57P04", "57P05", // shutdown, crash, start, dropped, idle
        "58000", "58030", // the system below
    ] {
        let err = refused(f, sqlstate).await;
        assert!(matches!(err, Error::Unavailable { what: "database", .. }), "{sqlstate}: {err:?}");
    }
    assert!(matches!(refused(f, "53100").await, Error::StorageFull));
    for sqlstate in ["22003", "22P02", "23505", "25P02", "42601", "42703", "42P01", "P0001", "XX000", "XX001"] {
        let err = refused(f, sqlstate).await;
        assert!(matches!(err, Error::Internal { .. }), "{sqlstate}: {err:?}");
    }
    // A value that is not what it is taken for is a bug, however the database is.
    let as_number = async |tx: &Tx| {
        let row = imgsrv_core::sea_orm::Statement::from_string(tx.get_database_backend(), "select 'text'");
        let row = tx.query_one_raw(row).await.map_err(Db::error)?.expect("a row");
        row.try_get_by_index::<i64>(0).map_err(Db::error)
    };
    let err = f.engine.db().tx("not a number", as_number).await.expect_err("a text");
    assert!(matches!(err, Error::Internal { .. }), "{err:?}");
}

async fn a_connection_that_is_cut_is_one_call_unavailable(f: &Fixture) {
    if !f.pair.is_postgres() {
        return;
    }
    const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                       where datname = current_database() and pid <> pg_backend_pid()";
    let statement = async |tx: &Tx, sql: &str| tx.execute_unprepared(sql).await.map(drop).map_err(Db::error);
    let nothing = async |_: &Tx| -> Result<()> { ready(Ok(())).await };
    let unavailable = |result: Result<()>| {
        let err = result.expect_err("no connection");
        assert!(matches!(err, Error::Unavailable { what: "database", .. }), "{err:?}");
    };

    // Cut by its own statement, between two statements, and before the commit.
    let own = async |tx: &Tx| statement(tx, "select pg_terminate_backend(pg_backend_pid())").await;
    unavailable(f.engine.db().tx("cut", own).await);
    let between = async |tx: &Tx| {
        statement(tx, "select 1").await?;
        f.sql(CUT).await.expect("cut");
        statement(tx, "select 1").await
    };
    unavailable(f.engine.db().tx("cut", between).await);
    let before_commit = async |tx: &Tx| {
        statement(tx, "select 1").await?;
        f.sql(CUT).await.map(drop).map_err(Db::error)
    };
    unavailable(f.engine.db().tx("cut", before_commit).await);

    // What lies idle in the pool is found dead before it is used.
    for _ in 0..3 {
        let other = f.transaction().await;
        f.sql(CUT).await.expect("cut");
        f.engine.db().tx("another", nothing).await.expect("a connection");
        f.engine.check_database().await.expect("a connection");
        drop(other);
    }
}
