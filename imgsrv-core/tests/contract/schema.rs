//! The schema and the engine's checks of it.

use imgsrv_core::model::{Digest, Scope, VersionState};
use imgsrv_core::{Engine, Error};
use imgsrv_migration::{Migrator, MigratorTrait};

use crate::fixture::{Fixture, attachment, bytes};

crate::behaviours!(
    migrations_run_again,
    a_database_without_migrations_is_refused,
    a_newer_schema_is_refused,
    a_store_of_another_database_is_refused,
    a_store_that_was_exchanged_is_left_alone,
    many_nodes_name_a_store_at_once,
    truncate_spares_what_is_published,
);

async fn build(f: &Fixture) -> Result<Engine, Error> {
    Engine::builder(f.database.clone(), f.store.clone()).clock(f.clock.clone()).build().await
}

async fn migrations_run_again(f: &Fixture) {
    let draft = f.published(&bytes(1, 1000)).await;
    f.sql("delete from seaql_migrations").await.expect("forgotten");
    Migrator::up(&f.database, None).await.expect("the same migrations on the same tables");
    build(f).await.expect("an engine");
    f.engine.get_manifest(&draft.0, &draft.1, Scope::Published).await.expect("what was there");
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

/// The object by which a database knows its store.
const NAME: &str = "imgsrv-store";

async fn a_store_of_another_database_is_refused(f: &Fixture) {
    let draft = f.published(&bytes(2, 1000)).await;
    let own = f.store.read(NAME).await.expect("a name").to_vec();
    for found in [None, Some("0b6f4a52-6d5e-4c6b-8a2e-1d1f0c9b7a63"), Some("0b6f"), Some("")] {
        match found {
            Some(found) => drop(f.store.write(NAME, found.as_bytes()).await.expect("another name")),
            None => f.store.delete(NAME).await.expect("no name"),
        }
        let refused = build(f).await.expect_err("not the objects that the rows know");
        assert!(refused.to_string().starts_with("store: belongs to another database"), "{refused}");
        assert!(refused.to_string().contains(std::str::from_utf8(&own).expect("text")), "{refused}");
    }
    f.store.write(NAME, own).await.expect("as the refusal says");
    build(f).await.expect("an engine").get_manifest(&draft.0, &draft.1, Scope::Published).await.expect("a manifest");
}

async fn a_store_that_was_exchanged_is_left_alone(f: &Fixture) {
    let digest = f.upload(&bytes(3, 1000)).await;
    f.engine.check_store().await.expect("the store");
    let own = f.store.read(NAME).await.expect("a name").to_vec();
    f.store.write(NAME, "0b6f4a52-6d5e-4c6b-8a2e-1d1f0c9b7a63").await.expect("another name");
    assert!(f.engine.check_store().await.is_err());
    assert!(f.engine.sweep().await.is_err(), "what no row knows may be another's");
    f.store.write(NAME, own).await.expect("the name");
    f.engine.sweep().await.expect("a sweep");
    f.read(&digest).await.expect("the bytes");
}

async fn truncate_spares_what_is_published(f: &Fixture) {
    if !f.pair.is_postgres() {
        return; // SQLite has no such statement; its DELETE fires the triggers of each row.
    }
    let whole = bytes(2, 10);
    f.upload(&whole).await;
    let draft = async || {
        let draft = f.draft().await;
        let id = f.artifact(&draft, "raw", &whole).await;
        f.engine.add_attachment(&draft.0, &draft.1, id, attachment("SBOM", &whole)).await.expect("an attachment");
        draft
    };
    draft().await;
    f.sql("truncate versions, artifacts, attachments, aliases").await.expect("drafts are in nobody's hands");
    let draft = draft().await;
    let everything = [
        "truncate attachments",
        "truncate artifacts cascade",
        "truncate versions cascade",
        "truncate images cascade",
        "truncate blobs cascade",
        "truncate aliases, attachments, artifacts, versions, images",
    ];
    f.engine.publish_version(&draft.0, &draft.1).await.expect("a job");
    for state in [VersionState::Publishing, VersionState::Published] {
        assert_eq!(f.version_state(&draft).await, state);
        let before = f.engine.get_manifest(&draft.0, &draft.1, Scope::All).await.expect("a manifest");
        for statement in everything {
            let refused = f.sql(statement).await.expect_err(statement).to_string();
            assert!(refused.contains("imgsrv: a version is published"), "{statement}: {refused}");
        }
        assert_eq!(f.engine.get_manifest(&draft.0, &draft.1, Scope::All).await.expect("a manifest"), before);
        f.engine.run_until_idle().await.expect("jobs");
    }
    assert_eq!(f.read(&Digest::of(&whole)).await.expect("a blob"), whole);
    f.sql("truncate aliases").await.expect("aliases come and go");
}

async fn many_nodes_name_a_store_at_once(f: &Fixture) {
    for _ in 0..5 {
        f.store.delete(NAME).await.expect("no name");
        let starting = (0..8).map(|_| tokio::spawn(f.builder().build()));
        for node in futures_util::future::join_all(starting).await {
            node.expect("no panic").expect("a node").check_store().await.expect("its store");
        }
    }
}
