//! SIGKILL at any moment: what was acknowledged is there afterwards, and what was not can be finished or given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use imgsrv_core::opendal::{Operator, services};
use imgsrv_core::sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use imgsrv_core::{Clock, Engine, Settings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Api, Folder, Server, bytes, digest};

const KILLS: u32 = 20;

/// What the server acknowledged.
#[derive(Default)]
struct Ledger {
    /// Sessions by id: the seed of their bytes, and the parts that were acknowledged.
    uploads: BTreeMap<String, (u64, Vec<Value>)>,
    /// Sessions of which `ready` was told.
    ready: BTreeSet<String>,
    /// Versions by name: the seed of their bytes and the artifact's id.
    artifacts: BTreeMap<String, (u64, String)>,
    jobs: BTreeSet<String>,
    published: BTreeSet<String>,
    /// The last version that `latest` was acknowledged to point at, and one that it may point at.
    alias: Option<String>,
    alias_tried: Option<String>,
}

type Shared = Arc<Mutex<Ledger>>;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment() {
    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let ledger = Shared::default();

    let mut server = Server::start_in(Folder::new(), &["--job-lease", "1s"]);
    let token = server.writer().await.token;
    server.client(token.clone()).post("/v1/images", json!({"name": "loop"})).await.created();
    for kill in 0..KILLS {
        let api = server.client(token.clone());
        let walking = tokio::spawn(walk(api, Arc::clone(&ledger), u64::from(kill) * 1000));
        tokio::time::sleep(Duration::from_millis(random.u64(5..600))).await;
        let folder = server.kill();
        walking.await.expect("the walk ends when its server is gone");
        server = Server::start_in(folder, &["--job-lease", "1s"]);
        assert_eq!(server.token, None, "the first token still manages the server");
        check(&server.client(token.clone()), &ledger).await;
    }
    let published = ledger.lock().expect("ledger").published.len();
    println!("{published} versions were published between the kills");
    assert!(published > 0, "a loop that publishes nothing proves nothing");
    check_bytes(&server.anonymous(), &ledger).await;
    nothing_is_left_over(&server.stop()).await;
}

/// Publishes versions one after the other until the server does not answer.
async fn walk(api: Api, ledger: Shared, first: u64) {
    for seed in first.. {
        if release(&api, &ledger, seed).await.is_none() {
            return;
        }
    }
}

fn content(seed: u64) -> Vec<u8> {
    // Every third one in two parts, sent in the wrong order, so that the worker has something to do.
    let size = if seed.is_multiple_of(3) { (5 << 20) + 1000 } else { 60_000 };
    bytes(seed, size)
}

async fn release(api: &Api, ledger: &Shared, seed: u64) -> Option<()> {
    let whole = content(seed);
    let promise = json!({"expected_digest": digest(&whole), "expected_size_bytes": whole.len()});
    let upload = call(api, Method::POST, "/v1/uploads", promise).await?["id"].as_str()?.to_owned();
    ledger.lock().ok()?.uploads.insert(upload.clone(), (seed, Vec::new()));
    for (number, part) in chunks(&whole) {
        let path = format!("/v1/uploads/{upload}/parts/{number}");
        let answer = api.request(Method::PUT, &path).body(part).send().await.ok()?;
        let part: Value = answer.json().await.ok()?;
        ledger.lock().ok()?.uploads.get_mut(&upload)?.1.push(part);
    }
    finish(api, ledger, &upload).await?;

    let version = format!("v{seed}");
    let versions = "/v1/images/loop/versions";
    call(api, Method::POST, versions, json!({ "version": version })).await?;
    let artifact = json!({
        "operating_system": "linux", "architecture": "amd64", "format": "raw",
        "primary_blob_digest": digest(&whole), "primary_blob_size_bytes": whole.len(),
        "primary_media_type": "application/octet-stream",
    });
    let artifact = call(api, Method::POST, &format!("{versions}/{version}/artifacts"), artifact).await?;
    let id = artifact["id"].as_str()?.to_owned();
    ledger.lock().ok()?.artifacts.insert(version.clone(), (seed, id));

    let job = call(api, Method::POST, &format!("{versions}/{version}/publish"), json!({})).await?;
    let job = job["job_id"].as_str()?.to_owned();
    ledger.lock().ok()?.jobs.insert(job.clone());
    loop {
        let job = call(api, Method::GET, &format!("/v1/publish-jobs/{job}"), Value::Null).await?;
        match job["state"].as_str()? {
            "succeeded" => break,
            "failed" => panic!("{job}"),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    ledger.lock().ok()?.published.insert(version.clone());
    ledger.lock().ok()?.alias_tried = Some(version.clone());
    call(api, Method::PUT, "/v1/images/loop/aliases/latest", json!({ "version": version })).await?;
    ledger.lock().ok()?.alias = Some(version);
    Some(())
}

/// The parts of some bytes, the last one first.
fn chunks(whole: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut chunks: Vec<_> = (1..).zip(whole.chunks(5 << 20).map(<[u8]>::to_vec)).collect();
    chunks.reverse();
    chunks
}

/// Completes an upload and waits until it is ready.
async fn finish(api: &Api, ledger: &Shared, upload: &str) -> Option<()> {
    let parts: Vec<Value> = ledger.lock().ok()?.uploads.get(upload)?.1.iter().map(list_entry).collect();
    call(api, Method::POST, &format!("/v1/uploads/{upload}/complete"), json!({ "parts": parts })).await?;
    loop {
        let session = call(api, Method::GET, &format!("/v1/uploads/{upload}"), Value::Null).await?;
        match session["state"].as_str()? {
            "ready" => break,
            "failed" | "aborted" => panic!("{session}"),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    ledger.lock().ok()?.ready.insert(upload.to_owned());
    Some(())
}

fn list_entry(part: &Value) -> Value {
    json!({"number": part["part_number"], "etag": part["etag"], "size_bytes": part["size_bytes"]})
}

/// The body of a success; `None` when the server is gone.
async fn call(api: &Api, method: Method, path: &str, body: Value) -> Option<Value> {
    let request = api.request(method, path);
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.ok()?;
    let status = answer.status();
    let text = answer.text().await.ok()?;
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).ok()
}

/// Every acknowledged write is there; what is unfinished goes on or is given up.
async fn check(api: &Api, ledger: &Shared) {
    let (uploads, ready, artifacts, jobs, published, alias, alias_tried) = {
        let ledger = ledger.lock().expect("ledger");
        (
            ledger.uploads.clone(),
            ledger.ready.clone(),
            ledger.artifacts.clone(),
            ledger.jobs.clone(),
            ledger.published.clone(),
            ledger.alias.clone(),
            ledger.alias_tried.clone(),
        )
    };
    for (id, (seed, parts)) in uploads {
        let session = api.get(&format!("/v1/uploads/{id}")).await.ok();
        match session["state"].as_str().expect("a state") {
            "ready" => {}
            "created" | "uploading" => {
                assert!(!ready.contains(&id), "was ready: {session}");
                go_on_or_abort(api, ledger, &id, seed, &parts).await;
            }
            "completed" | "ingesting" => {
                assert_eq!(api.wait_for_upload(&id).await["state"], "ready");
            }
            "aborted" if !ready.contains(&id) => {}
            _ => panic!("{session}"),
        }
    }
    for job in jobs {
        assert_eq!(api.wait_for_job(&job).await["state"], "succeeded");
    }
    for version in artifacts.keys() {
        let manifest = api.get(&format!("/v1/images/loop/versions/{version}")).await.ok();
        let state = manifest["version"]["state"].as_str().expect("a state").to_owned();
        assert!(state == "published" || !published.contains(version), "{manifest}");
        if state == "publishing" {
            // Its publish was never acknowledged; asking again gives the job, which ends.
            assert_eq!(api.publish("loop", version).await["state"], "succeeded");
        }
    }
    let hanging = api.get("/v1/images/loop/versions?state=publishing").await.ok();
    assert_eq!(hanging["versions"], json!([]));
    if let Some(alias) = alias {
        let points_at = api.get("/v1/images/loop/aliases/latest").await.ok()["version"].clone();
        assert!(points_at == alias || Some(points_at.as_str().expect("a version")) == alias_tried.as_deref());
    }
}

async fn go_on_or_abort(api: &Api, ledger: &Shared, id: &str, seed: u64, acknowledged: &[Value]) {
    let stored = api.get(&format!("/v1/uploads/{id}/parts")).await.ok();
    let stored = stored["parts"].as_array().expect("parts").clone();
    for part in acknowledged {
        assert!(stored.iter().any(|stored| stored["etag"] == part["etag"]), "{part} was acknowledged: {stored:?}");
    }
    if seed.is_multiple_of(2) {
        assert_eq!(api.post(&format!("/v1/uploads/{id}/abort"), json!({})).await.ok()["state"], "aborted");
        return;
    }
    let mut parts = Vec::new();
    for (number, bytes) in chunks(&content(seed)) {
        let part = match stored.iter().find(|stored| stored["number"] == number) {
            Some(stored) => json!({
                "part_number": number, "etag": stored["etag"], "size_bytes": stored["size_bytes"],
            }),
            None => api.put_part(id, number, bytes).await.ok(),
        };
        parts.push(part);
    }
    ledger.lock().expect("ledger").uploads.insert(id.to_owned(), (seed, parts));
    finish(api, ledger, id).await.expect("the server is there");
}

async fn check_bytes(anonymous: &Api, ledger: &Shared) {
    let (artifacts, published) = {
        let ledger = ledger.lock().expect("ledger");
        (ledger.artifacts.clone(), ledger.published.clone())
    };
    for version in published {
        let (seed, artifact) = &artifacts[&version];
        let path = format!("/v1/images/loop/versions/{version}/artifacts/{artifact}/download");
        assert_eq!(digest(&anonymous.get(&path).await.body), digest(&content(*seed)), "{version}");
    }
}

/// With every session past its time, a sweep leaves no object without a row and no row without its object.
async fn nothing_is_left_over(folder: &Folder) {
    let data = folder.data();
    let database =
        Database::connect(format!("sqlite://{}", data.join("imgsrv.db").display())).await.expect("the database");
    let objects = services::Fs::default().root(&data.join("objects").display().to_string());
    let store = Operator::new(objects).expect("the store");
    let engine = Engine::builder(database.clone(), store.clone())
        .clock(Clock::manual(in_two_days()))
        .settings(Settings { min_free: 0, ..Settings::default() })
        .build()
        .await
        .expect("an engine");
    let swept = engine.sweep().await.expect("a sweep");
    println!("{swept:?}");
    let open = texts(&database, "select state from uploads where state not in ('ready', 'failed', 'aborted')").await;
    assert_eq!(open, BTreeSet::new());

    let listed = store.list_with("blobs/").recursive(true).await.expect("a listing");
    let objects: BTreeSet<_> =
        listed.iter().map(|entry| entry.path().to_owned()).filter(|path| !path.ends_with('/')).collect();
    let rows = texts(&database, "select key from part_attempts").await;
    assert_eq!(objects, rows, "objects and rows are the same");
    assert_eq!(texts(&database, "select key from blob_segments").await, rows, "and each holds bytes of a blob");
}

#[expect(clippy::disallowed_methods, reason = "the program under test keeps the machine's time")]
fn in_two_days() -> chrono::DateTime<Utc> {
    Utc::now() + TimeDelta::days(2)
}

async fn texts(database: &DatabaseConnection, sql: &str) -> BTreeSet<String> {
    let statement = Statement::from_string(database.get_database_backend(), sql);
    let rows = database.query_all_raw(statement).await.expect(sql);
    rows.iter().map(|row| row.try_get_by_index(0).expect("a text")).collect()
}
