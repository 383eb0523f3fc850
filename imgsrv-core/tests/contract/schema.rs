//! The schema and the engine's checks of it.

use imgsrv_core::{Engine, Error};
use imgsrv_migration::{Migrator, MigratorTrait};

use crate::fixture::{Fixture, bytes};

crate::behaviours!(migrations_run_again, a_database_without_migrations_is_refused, a_newer_schema_is_refused);

async fn build(f: &Fixture) -> Result<Engine, Error> {
    Engine::builder(f.database.clone(), f.store.clone()).clock(f.clock.clone()).build().await
}

async fn migrations_run_again(f: &Fixture) {
    let draft = f.published(&bytes(1, 1000)).await;
    f.sql("delete from seaql_migrations").await.expect("forgotten");
    Migrator::up(&f.database, None).await.expect("the same migrations on the same tables");
    build(f).await.expect("an engine");
    f.engine.get_manifest(&draft.0, &draft.1, imgsrv_core::model::Scope::Published).await.expect("what was there");
}

async fn a_database_without_migrations_is_refused(f: &Fixture) {
    f.sql("alter table seaql_migrations rename to elsewhere").await.expect("renamed");
    let refused = build(f).await.expect_err("no migrations");
    assert!(refused.to_string().contains("lacks migration m0001_initial"), "{refused}");
    f.sql("alter table elsewhere rename to seaql_migrations").await.expect("renamed back");
}

async fn a_newer_schema_is_refused(f: &Fixture) {
    f.sql("insert into seaql_migrations (version, applied_at) values ('m9999_later', 0)").await.expect("a migration");
    let refused = build(f).await.expect_err("a newer schema");
    assert!(refused.to_string().contains("m9999_later"), "{refused}");
}
