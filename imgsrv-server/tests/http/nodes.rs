//! Several nodes on PostgreSQL and Garage, which keep nothing of their own.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use imgsrv_core::testing::{Garage, Postgres};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::server::{Folder, Server, artifact, bytes, digest, id, program};

const NODES: usize = 3;
const IMAGES: u64 = 5;
const VERSIONS: u64 = 50;
const ARTIFACTS: u64 = 3;
const VERSIONS_PER_KILL: u64 = 2;
const FORMATS: [&str; ARTIFACTS as usize] = ["raw", "iso", "vmdk"];

/// The servers that the nodes share.
pub(crate) struct Shared {
    pub(crate) postgres: Postgres,
    pub(crate) garage: Garage,
}

impl Shared {
    pub(crate) fn start() -> Self {
        let (postgres, garage) = (Postgres::start().expect("PostgreSQL"), Garage::start().expect("Garage"));
        postgres.create_database("imgsrv").expect("a database");
        garage.create_bucket("images").expect("a bucket");
        Self { postgres, garage }
    }

    pub(crate) fn node(&self) -> Server {
        let mut command = on_services(&self.postgres, "imgsrv", &self.garage, "images");
        command
            .env("IMGSRV_JOB_LEASE", "2s")
            .env("IMGSRV_CAS_PROMOTION_ERROR_BACKOFF", "100ms")
            .env("IMGSRV_CAS_PROMOTION_ERROR_BACKOFF_MAX", "1s");
        let folder = Folder::new();
        command.arg("--data-dir").arg(folder.data());
        Server::spawn(command, folder)
    }

    pub(crate) fn ask(&self, sql: &str) -> String {
        self.postgres.psql("imgsrv", sql).expect(sql)
    }
}

/// A node with the variables of the wire contract, for [`Server::spawn`].
pub(crate) fn on_services(postgres: &Postgres, database: &str, garage: &Garage, bucket: &str) -> Command {
    let mut command = Command::new(program());
    command
        .env("IMGSRV_POSTGRES_URL", postgres.url(database))
        .env("IMGSRV_S3_ENDPOINT", garage.endpoint())
        .env("IMGSRV_S3_BUCKET", bucket)
        .env("IMGSRV_S3_ACCESS_KEY_ID", Garage::ACCESS_KEY_ID)
        .env("IMGSRV_S3_SECRET_ACCESS_KEY", Garage::SECRET_ACCESS_KEY)
        .env("IMGSRV_S3_REGION", Garage::REGION)
        .env("IMGSRV_S3_USE_TLS", "false");
    command
}

/// A client that is sent to any node, and to another one when that does not answer.
#[derive(Clone)]
struct Balanced {
    client: Client,
    urls: Arc<Mutex<Vec<String>>>,
    token: String,
}

impl Balanced {
    /// The answer of whichever node gives one; asks again for as long as they say that they cannot now.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Vec<u8>) {
        self.send(method, path, |request| match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> (StatusCode, Vec<u8>) {
        loop {
            let url = {
                let urls = self.urls.lock().expect("no panic");
                urls[fastrand::usize(..urls.len())].clone()
            };
            let request = self.client.request(method.clone(), format!("{url}{path}")).bearer_auth(&self.token);
            if let Ok(answer) = with(request).send().await {
                let status = answer.status();
                assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}");
                if let (false, Ok(body)) = (status == StatusCode::SERVICE_UNAVAILABLE, answer.bytes().await) {
                    return (status, body.to_vec());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>, expected: &[u16]) -> Value {
        let (status, body) = self.call(method, path, body).await;
        let text = String::from_utf8_lossy(&body);
        assert!(expected.contains(&status.as_u16()), "{path}: {status} {text}");
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    /// Sends bytes in two parts, each to some node.
    async fn upload(&self, whole: &[u8]) {
        let promise = json!({"expected_digest": digest(whole), "expected_size_bytes": whole.len()});
        let begun = self.json(Method::POST, "/v1/uploads", Some(&promise), &[200, 201]).await;
        let path = format!("/v1/uploads/{}", id(&begun));
        if begun["state"] != "ready" {
            let (first, rest) = whole.split_at(whole.len().min(5 << 20));
            let mut parts = Vec::new();
            for (number, bytes) in [(1, first), (2, rest)] {
                let part = format!("{path}/parts/{number}");
                let (status, body) = self.send(Method::PUT, &part, |request| request.body(bytes.to_vec())).await;
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                let part: Value = serde_json::from_slice(&body).expect("a part");
                parts.push(json!({"number": number, "etag": part["etag"], "size_bytes": part["size_bytes"]}));
            }
            parts.retain(|part| part["size_bytes"] != 0);
            let list = json!({ "parts": parts });
            self.json(Method::POST, &format!("{path}/complete"), Some(&list), &[200]).await;
        }
        let session = self.wait_for(&path, &["ready", "failed"]).await;
        assert_eq!(session["state"], "ready", "{session}");
    }

    async fn wait_for(&self, path: &str, states: &[&str]) -> Value {
        loop {
            let shown = self.json(Method::GET, path, None, &[200]).await;
            if states.contains(&shown["state"].as_str().expect("a state")) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Publishes a version of three artifacts. Whatever was done by a request whose answer was lost is there already.
    async fn release(&self, number: u64) {
        let image = format!("image{}", number % IMAGES);
        self.json(Method::POST, "/v1/images", Some(&json!({"name": image})), &[201, 409]).await;
        let versions = format!("/v1/images/{image}/versions");
        self.json(Method::POST, &versions, Some(&json!({"version": number.to_string()})), &[201, 409]).await;
        let version = format!("{versions}/{number}");
        for (content, format) in contents(number).iter().zip(FORMATS) {
            self.upload(content).await;
            let artifact = artifact(content, json!({"format": format}));
            self.json(Method::POST, &format!("{version}/artifacts"), Some(&artifact), &[201, 409]).await;
        }
        let job = self.json(Method::POST, &format!("{version}/publish"), None, &[202]).await;
        let job = self.wait_for(&format!("/v1/publish-jobs/{}", id(&job)), &["succeeded", "failed"]).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let latest = json!({"version": number.to_string()});
        self.json(Method::PUT, &format!("/v1/images/{image}/aliases/latest"), Some(&latest), &[200]).await;
    }
}

/// What a version consists of; now and then more than one part takes.
fn contents(version: u64) -> [Vec<u8>; ARTIFACTS as usize] {
    [0, 1, 2].map(|n| {
        let size = if version % 10 == 0 && n == 0 { (5 << 20) + 1000 } else { 100_000 };
        bytes(version * ARTIFACTS + n, size)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_publish_while_one_of_them_is_killed() {
    let shared = Arc::new(Shared::start());
    let mut nodes: Vec<Server> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..NODES).map(|_| scope.spawn(|| shared.node())).collect();
        starting.into_iter().map(|node| node.join().expect("a node")).collect()
    });
    let tokens: Vec<_> = nodes.iter().filter_map(|node| node.token.clone()).collect();
    assert_eq!(tokens.len(), 1, "one bootstrap token between all that start at once");
    let token = nodes[0].client(tokens.first().cloned()).new_token("content-writer").await;
    let urls = Arc::new(Mutex::new(nodes.iter().map(|node| node.url.clone()).collect::<Vec<_>>()));
    let client = Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
    let balanced = Balanced { client, urls: Arc::clone(&urls), token };

    // A job of which five workers in a row do not come back has failed, and rightly: kills keep pace with the work.
    let (released, mut progress) = watch::channel(0);
    let killing = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move {
            let mut kills = 0;
            while progress.wait_for(|released| *released >= VERSIONS_PER_KILL * (kills + 1)).await.is_ok() {
                let victim = fastrand::usize(..NODES);
                nodes.remove(victim).kill();
                let shared = Arc::clone(&shared);
                let node = tokio::task::spawn_blocking(move || shared.node()).await.expect("a node");
                urls.lock().expect("no panic")[victim] = node.url.clone();
                nodes.insert(victim, node);
                kills += 1;
            }
            (nodes, kills)
        }
    });
    let versions = stream::iter(0..VERSIONS).map(|number| {
        let balanced = balanced.clone();
        tokio::spawn(async move { balanced.release(number).await })
    });
    let count = async |release: Result<(), _>| {
        release.expect("a release");
        released.send_modify(|released| *released += 1);
    };
    versions.buffer_unordered(6).for_each(count).await;
    drop(released);
    let (nodes, kills) = killing.await.expect("nodes");
    assert!(kills >= VERSIONS / VERSIONS_PER_KILL - 1, "a node was killed only {kills} times");

    for number in 0..VERSIONS {
        let image = format!("image{}", number % IMAGES);
        let version = format!("/v1/images/{image}/versions/{number}");
        let manifest = balanced.json(Method::GET, &version, None, &[200]).await;
        let entries = manifest["artifacts"].as_array().expect("artifacts");
        assert_eq!(entries.len(), FORMATS.len(), "{manifest}");
        for (content, format) in contents(number).into_iter().zip(FORMATS) {
            let entry = entries.iter().find(|entry| entry["artifact"]["format"] == format).expect("an artifact");
            let path = format!("{version}/artifacts/{}/download", id(&entry["artifact"]));
            let (status, body) = balanced.call(Method::GET, &path, None).await;
            assert!(status == 200 && body == content, "{path}: {status}, {} bytes", body.len());
        }
    }
    let count = |sql: &str| shared.ask(sql).parse::<u64>().expect(sql);
    assert_eq!(count("select count(*) from jobs where kind = 'publish'"), VERSIONS, "one job each");
    assert_eq!(count("select count(*) from jobs where kind = 'publish' and outcome = 'succeeded'"), VERSIONS);
    assert_eq!(count("select count(*) from events where what = 'published'"), VERSIONS, "each ended once");
    assert_eq!(count("select count(*) from publish_steps where state = 'succeeded'"), 3 * VERSIONS);
    assert_eq!(count("select count(*) from publish_steps where state <> 'succeeded' or attempts < 1"), 0);
    // A step ran again only where its worker was killed, and a killed worker held at most as many jobs as it works on.
    let again = count("select coalesce(sum(attempts - 1), 0) from publish_steps");
    assert!(again <= 2 * kills, "{again} steps ran again, though nodes were killed {kills} times");
    assert_eq!(count("select count(*) from uploads where state in ('completed', 'ingesting')"), 0);
    for node in nodes {
        node.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_away_is_found_again() {
    let mut shared = Shared::start();
    let node = shared.node();
    let (writer, reader) = (node.writer().await, node.anonymous());
    let (content, lost) = (bytes(1, 100_000), bytes(2, 100_000));
    let artifact = writer.release("debian", "1.0", &content).await;
    let download = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    writer.draft("debian", "2.0", &bytes(3, 100_000)).await;
    let upload = id(&writer.begin(&lost).await);

    shared.garage.stop().expect("Garage");
    let ready = reader.get("/readyz").await.problem(503, "unavailable");
    let detail = ready["detail"].as_str().expect("a detail");
    assert!(detail.contains("store") && !detail.contains("database"), "{detail}");
    // That each says when to come back, and nothing of the store's address, is checked of every answer.
    reader.get(&download).await.problem(503, "unavailable");
    writer.put_part(&upload, 1, lost.clone()).await.problem(503, "unavailable");
    let job = writer.act("/v1/images/debian/versions/2.0/publish").await.accepted();
    let path = format!("/v1/publish-jobs/{}", id(&job));
    while writer.get(&path).await.ok()["steps"][0]["attempt_count"] == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let waiting = writer.get(&path).await.ok();
    assert!(["queued", "running"].contains(&waiting["state"].as_str().expect("a state")), "{waiting}");
    assert_eq!(reader.get("/v1/images/debian/versions/1.0").await.status, 200, "what needs no bytes is answered");

    shared.garage.start_again().expect("Garage");
    assert_eq!(writer.wait_for_job(&id(&job)).await["state"], "succeeded", "by itself");
    assert_eq!(reader.get("/readyz").await.status, 204);
    assert_eq!(reader.get(&download).await.body, content);
    let part = writer.put_part(&upload, 1, lost.clone()).await.ok();
    assert_eq!(writer.complete(&upload, &[part]).await.ok()["state"], "ready", "the session stays usable");
    node.stop();
}
