//! How PostgreSQL goes about each query: by an index, however large the tables are.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use imgsrv_core::model::{Cursor, Subject};
use imgsrv_core::opendal::Operator;
use imgsrv_core::opendal::services::Fs;
use imgsrv_core::sea_orm::Database;
use imgsrv_core::testing::Postgres;
use imgsrv_core::{Clock, Engine};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Api, Folder, Server, artifact, attachment, bytes, id};

/// Tables that are read as they are: of one row, of one for each day of a month, or of one for each principal, of whom
/// there are few. Were there many, a plan for any role would still be one for the role that nearly all have.
const SMALL: &[&str] = &["catalog_generation", "instance", "seaql_migrations", "principal_roles", "sweep_plans"];

/// More rows than any query has to look at: as many as a sweep takes at once, and some more.
const ROWS_MAX: f64 = 2_000.0;

/// Indexes that hot queries were made to go by; what else is there are keys.
const INDEXES: &[&str] = &[
    "api_tokens_lookup_id_key",
    "api_tokens_principal",
    "artifacts_blob",
    "attachments_blob",
    "blobs_scrub",
    "events_subject",
    "images_generation",
    "jobs_due",
    "jobs_ended",
    "part_attempts_lost",
    "principal_roles_role",
    "uploads_digest",
    "uploads_ended",
    "uploads_expiry",
    "uploads_newest",
    "uploads_state",
    "versions_created",
    "versions_newest",
];

/// What PostgreSQL is told, so that it logs what it did for each statement, those of triggers and foreign keys included.
const EXPLAIN: &[&str] = &[
    "session_preload_libraries = auto_explain",
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_analyze = on",
    "auto_explain.log_timing = off",
    "auto_explain.log_format = json",
    "auto_explain.log_nested_statements = on",
];

/// Makes rows due, numbered from `first` on: sessions past their time, lost objects, what is to be forgotten.
fn due(first: u32) -> String {
    let rows = |behind: u32, many: u32| format!("generate_series({}, {}) n", first + behind, first + behind + many - 1);
    let (expired, lost, uploads, jobs) = (rows(0, 100), rows(100, 100), rows(4000, 200), rows(4000, 200));
    format!(
        "set auto_explain.log_min_duration = -1; -- not ours
        set session_replication_role = replica;
        update uploads set state = 'uploading', expires_at = now() - interval '1 minute'
        where id in (select uid(n) from {expired});
        update part_attempts set state = 'lost', deletable_at = now() - interval '1 minute'
        where key in (select object(n) from {lost});
        update uploads set updated_at = now() - interval '31 days' where id in (select uid(n) from {uploads});
        update jobs set finished_at = now() - interval '31 days' where id in (select uid(n) from {jobs})"
    )
}

/// How many rows are left that should have been forgotten.
const FORGOTTEN: &str = "
    set auto_explain.log_min_duration = -1; -- not ours
    select (select count(*) from uploads where state <> 'uploading' and updated_at < now() - interval '30 days')
        + (select count(*) from jobs where kind = 'ingest' and finished_at < now() - interval '30 days')";

#[tokio::test(flavor = "multi_thread")]
async fn no_query_reads_a_large_table_from_end_to_end() {
    let mut postgres = Postgres::start().expect("PostgreSQL");
    postgres.create_database("imgsrv").expect("a database");
    let (folder, url) = (Folder::new(), postgres.url("imgsrv"));
    let server = Server::start_in(folder.clone(), &["--postgres-url", &url]);
    let (manager, writer) = (server.token.clone(), server.writer().await.token);
    server.stop();
    postgres.psql("imgsrv", include_str!("explain.sql")).expect("rows");
    for setting in EXPLAIN {
        postgres.psql("imgsrv", &format!("alter database imgsrv set {setting}")).expect(setting);
    }

    // PostgreSQL plans a statement for its parameters or, once it has come often enough, for any: both must do.
    let for_any = format!("{url}?options=-c%20plan_cache_mode%3Dforce_generic_plan");
    for (name, url) in [("one", &url), ("two", &for_any)] {
        let server = Server::start_in(folder.clone(), &["--postgres-url", url, "--cas-promotion-poll-interval=10ms"]);
        use_all(&server.client(manager.clone()), &server.client(writer.clone()), &server.anonymous(), name).await;
        server.stop();
    }
    // What is done now and then is planned for what is due; the servers may have swept what was.
    let store = folder.data().join("objects");
    let store = Operator::new(Fs::default().root(store.to_str().expect("UTF-8"))).expect("the store");
    for (first, url) in [(500, &url), (700, &for_any)] {
        postgres.psql("imgsrv", &due(first)).expect("rows that are due");
        let engine = Engine::builder(Database::connect(url).await.expect("the database"), store.clone()).build().await;
        let engine = engine.expect("an engine");
        let swept = engine.sweep().await.expect("a sweep");
        assert!(swept.uploads_expired > 0 && swept.objects_deleted > 0, "{swept:?}");
        assert_eq!(engine.events(Subject::Version, &uid(0), 100).await.expect("events").len(), 100);
        engine.run_until_idle().await.expect("jobs");
        engine.scrub_next().await.expect("a verdict").expect("a blob whose turn it is");
        assert_eq!(postgres.psql("imgsrv", FORGOTTEN).expect("a count"), "0");
    }

    // A backend logs a plan when it is done with it, and all of them are when the server is down.
    postgres.stop().expect("it stops");
    let plans = plans(&postgres.log().expect("a log"));
    assert!(plans.len() > 500, "{} plans", plans.len());
    let (mut indexes, mut offenders) = (BTreeSet::new(), BTreeSet::new());
    for plan in &plans {
        inspect(&plan["Plan"], &mut |node| {
            indexes.extend(node["Index Name"].as_str().map(str::to_owned));
            let table = node["Relation Name"].as_str().unwrap_or_default();
            let too_many = node["Node Type"] == "Seq Scan" || rows(node) > ROWS_MAX;
            if too_many && !SMALL.contains(&table) {
                let kind = node["Node Type"].as_str().unwrap_or_default();
                offenders.insert(format!("{kind} of {} rows of {table}: {}", rows(node), plan["Query Text"]));
            }
        });
    }
    assert!(offenders.is_empty(), "{offenders:#?}");
    let idle: Vec<_> = INDEXES.iter().filter(|index| !indexes.contains(**index)).collect();
    assert!(idle.is_empty(), "no query went by {idle:?}, but by {indexes:#?}");
}

/// Every request that asks the database for something, and what a publication takes.
async fn use_all(manager: &Api, writer: &Api, anybody: &Api, name: &str) {
    let (long_list, version) = ("/v1/images/image-000000", "/v1/images/image-000000/versions/v12");
    let digest = format!("sha256:{:064x}", 2000);
    let published = format!("{version}/artifacts/{}", uid(12));

    // Lists: from the front, and from the middle.
    let time = |minutes: i64| {
        let at = (Clock::system().now() - TimeDelta::minutes(minutes)).timestamp_micros().to_string();
        Cursor::behind(&[&at, &uid(0)]).to_string()
    };
    let behind = |key: &str| Cursor::behind(&[key]).to_string();
    for (api, list, cursor) in [
        (anybody, "/v1/images?".to_owned(), behind("image-005000")),
        (writer, "/v1/images?".to_owned(), behind("image-005000")),
        (anybody, format!("{long_list}/versions?"), time(50_000)),
        (writer, format!("{long_list}/versions?state=draft&"), time(50_000)),
        (anybody, format!("{long_list}/aliases?"), behind("alias-010000")),
        (anybody, format!("{version}/artifacts?"), time(0)),
        (writer, "/v1/uploads?".to_owned(), time(20_000)),
        (writer, "/v1/uploads?state=failed&".to_owned(), time(20_000)),
        (writer, "/v1/uploads?state=created&".to_owned(), time(20_000)),
        (writer, format!("/v1/uploads?expected_digest={digest}&"), time(20_000)),
        (writer, format!("/v1/uploads?state=ready&expected_digest={digest}&"), time(20_000)),
        (manager, "/v1/auth/principals?".to_owned(), behind(&uid(0))),
        (manager, format!("/v1/auth/principals/{}/api-tokens?", uid(0)), behind(&uid(0))),
    ] {
        api.get(&format!("{list}limit=100")).await.ok();
        api.get(&format!("{list}limit=100&cursor={cursor}")).await.ok();
    }

    // One thing.
    for path in [
        long_list.to_owned(),
        version.to_owned(),
        published.clone(),
        format!("{long_list}/refs/v12"),
        format!("{long_list}/refs/alias-000004"),
        format!("{long_list}/aliases/alias-000004"),
    ] {
        anybody.get(&path).await.ok();
        anybody.head(&path).await;
    }
    writer.get(&format!("/v1/images/image-000000/versions/v10")).await.ok();
    anybody.head(&format!("/v1/blobs/{digest}")).await;
    writer.get(&format!("/v1/publish-jobs/{}", uid(600))).await.ok();
    for path in [format!("/v1/uploads/{}", uid(2000)), format!("/v1/uploads/{}/parts", uid(2000))] {
        writer.get(&path).await.ok();
    }
    manager.get(&format!("/v1/auth/principals/{}", uid(1))).await.ok();

    // A release from its first byte to its last alias.
    let whole = bytes(name.len() as u64 + u64::from(name.as_bytes()[0]), 100_000);
    let artifact_id = writer.release(name, "1.0", &whole).await;
    let path = format!("/v1/images/{name}");
    let download = format!("{path}/versions/1.0/artifacts/{artifact_id}/download");
    assert_eq!(anybody.get(&download).await.body, whole);
    anybody.get_with(&format!("/v1/blobs/{}", crate::server::digest(&whole)), &[("range", "bytes=5-9")]).await;
    writer.post("/v1/uploads", json!({"expected_digest": digest, "expected_size_bytes": 1000})).await;
    for version in ["1.0", "1.0"] {
        writer.put(&format!("{path}/aliases/latest"), json!({ "version": version })).await.ok();
    }
    for shown in ["/streams/v1/index.json".to_owned(), format!("/d/{name}/1.0/"), format!("/d/{name}/latest/")] {
        anybody.get(&shown).await.ok();
    }
    writer.get(&format!("{path}/versions/1.0")).await.ok();
    writer.delete(&format!("{path}/aliases/latest")).await.no_content();

    // Drafts that come and go.
    writer.draft(name, "2.0", &whole).await;
    let draft = format!("{path}/versions/2.0");
    let added = writer.add(&format!("{draft}/artifacts"), artifact(&whole, json!({}))).await;
    let attached = writer.add(&format!("{draft}/artifacts/{added}/attachments"), attachment("a", "a/b", &whole)).await;
    writer.delete(&format!("{draft}/artifacts/{added}/attachments/{attached}")).await.no_content();
    writer.delete(&format!("{draft}/artifacts/{added}")).await.no_content();
    let never = id(&writer.begin(format!("never sent to {name}").as_bytes()).await);
    writer.act(&format!("/v1/uploads/{never}/abort")).await.ok();
    writer.delete(&draft).await.no_content();
    writer.post("/v1/images", json!({ "name": format!("{name}-empty") })).await.created();
    writer.delete(&format!("/v1/images/{name}-empty")).await.no_content();

    // Two parts that were sent the wrong way round are read by a job; one that cannot be published is given up.
    let large = bytes(u64::from(name.as_bytes()[1]), (5 << 20) + 10);
    let upload = id(&writer.begin(&large).await);
    let last = writer.put_part(&upload, 2, large[5 << 20..].to_vec()).await.ok();
    let first = writer.put_part(&upload, 1, large[..5 << 20].to_vec()).await.ok();
    writer.complete(&upload, &[first, last]).await.ok();
    assert_eq!(writer.wait_for_upload(&upload).await["state"], "ready");

    let principal = manager.post("/v1/auth/principals", json!({"kind": "user", "display_name": name})).await.created();
    let principal = format!("/v1/auth/principals/{}", id(&principal));
    for role in ["content-writer", "auth-manager"] {
        manager.call(Method::PUT, &format!("{principal}/roles/{role}")).await.no_content();
        manager.delete(&format!("{principal}/roles/{role}")).await.no_content();
    }
    let token = json!({"expires_at": "2099-01-01T00:00:00Z"});
    let token = id(&manager.post(&format!("{principal}/api-tokens"), token).await.created());
    manager.delete(&format!("/v1/auth/api-tokens/{token}")).await.no_content();
    anybody.get("/readyz").await.no_content();
}

/// The plans in a log: each is JSON in lines that begin with a tab.
fn plans(log: &str) -> Vec<Value> {
    let mut plans = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if line.ends_with("plan:") {
            let mut plan = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with('\t')) {
                plan.push_str(line);
            }
            plans.push(serde_json::from_str(&plan).expect("JSON"));
        }
    }
    plans
}

fn inspect(node: &Value, look: &mut impl FnMut(&Value)) {
    look(node);
    for below in node["Plans"].as_array().into_iter().flatten() {
        inspect(below, look);
    }
}

/// How many rows a node of a plan has looked at.
fn rows(node: &Value) -> f64 {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let each = number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    each * number("Actual Loops")
}

/// An id as `explain.sql` makes them.
fn uid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}
