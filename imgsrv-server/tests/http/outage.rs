//! PostgreSQL and then Garage are away for a while, and the nodes on them have all hands full.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::nodes::Shared;
use crate::server::{Answer, Api, Server, artifact, attachment, bytes, digest, id, names, try_send, until};

/// For how long each of them is away: longer than a request waits for a connection of PostgreSQL. `just soak` says more.
fn outage() -> Duration {
    let seconds = std::env::var("IMGSRV_TEST_OUTAGE").map_or(8, |text| text.parse().expect("seconds"));
    Duration::from_secs(seconds)
}

/// A request is refused within about ten seconds; a machine that builds beside it makes that more.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

const PUBLISHERS: usize = 3;
/// What a publisher does not fall short of, so that a long outage does not fill the disk.
const PACE: Duration = Duration::from_secs(1);
const READERS: usize = 4;
const METADATA: &[u8] = b"metadata";

/// A version of which its publisher was told that it is published.
#[derive(Clone)]
struct Release {
    image: String,
    version: String,
    seed: u64,
    artifact: String,
}

impl Release {
    fn content(&self) -> Vec<u8> {
        content(self.seed)
    }
}

/// Two parts of it make one upload. To make up so many bytes takes longer than anything that is done with them.
fn content(seed: u64) -> Vec<u8> {
    static COMMON: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(1, PART));
    [&COMMON[..], &bytes(seed, 1000)].concat()
}

const PART: usize = 5 << 20;

/// What the clients of all nodes have in common.
struct Load {
    writers: Vec<Api>,
    anybody: Vec<Api>,
    published: Mutex<Vec<Release>>,
    /// How many versions each publisher has published.
    released: [AtomicU64; PUBLISHERS],
    answered: AtomicU32,
    refused: AtomicU32,
    broken: AtomicU32,
    slowest: Mutex<Duration>,
    done: AtomicBool,
}

impl Load {
    fn new(nodes: &[Server], token: &str) -> Arc<Self> {
        Arc::new(Self {
            writers: nodes.iter().map(|node| node.client(Some(token.to_owned()))).collect(),
            anybody: nodes.iter().map(Server::anonymous).collect(),
            published: Mutex::default(),
            released: Default::default(),
            answered: 0.into(),
            refused: 0.into(),
            broken: 0.into(),
            slowest: Mutex::default(),
            done: false.into(),
        })
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn published(&self) -> Vec<Release> {
        self.published.lock().expect("no panic").clone()
    }

    /// The answer of some node; asks again for as long as the nodes say that they cannot now. The connection of a request
    /// whose body is under way may break (`whole` is what it would be if it does not); no other one.
    async fn ask(&self, clients: &[Api], whole: Option<&[u8]>, request: impl Fn(&Api) -> RequestBuilder) -> Answer {
        loop {
            let begun = Instant::now();
            let beginning = |came: &[u8]| {
                let whole = whole.expect("a body that is under way");
                assert!(whole.starts_with(came), "other bytes");
            };
            match try_send(request(&clients[fastrand::usize(..clients.len())]), beginning).await {
                Ok(answer) if answer.status != 503 => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return answer;
                }
                // That it says when to come back is checked of every answer.
                Ok(answer) => {
                    answer.problem(503, "unavailable");
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    let took = begun.elapsed();
                    assert!(took < REFUSED_WITHIN, "refused after {took:?}: {}", answer.text());
                    let mut slowest = self.slowest.lock().expect("no panic");
                    *slowest = slowest.max(took);
                }
                Err(err) => {
                    assert!(whole.is_some() && !err.is_timeout(), "{err:?}");
                    self.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>, expected: &[u16]) -> Value {
        let answer = self
            .ask(&self.writers, None, |api| {
                let request = api.request(method.clone(), path);
                match body {
                    Some(body) => request.json(body),
                    None => request,
                }
            })
            .await;
        assert!(expected.contains(&answer.status.as_u16()), "{method} {path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    async fn post(&self, path: &str, body: Value, expected: &[u16]) -> Value {
        self.json(Method::POST, path, Some(&body), expected).await
    }

    async fn get(&self, path: &str) -> Value {
        self.json(Method::GET, path, None, &[200]).await
    }

    async fn upload(&self, whole: &[u8], slowly: bool) {
        let promise = json!({"expected_digest": digest(whole), "expected_size_bytes": whole.len()});
        let begun = self.post("/v1/uploads", promise, &[200, 201]).await;
        if begun["state"] == "ready" {
            return;
        }
        let path = format!("/v1/uploads/{}", id(&begun));
        let mut parts = Vec::new();
        for (number, bytes) in (1..).zip(whole.chunks(PART)) {
            let part = format!("{path}/parts/{number}");
            let answer = self
                .ask(&self.writers, Some(&[]), |api| {
                    let body = if slowly { trickle(bytes) } else { bytes.to_vec().into() };
                    api.request(Method::PUT, &part).body(body)
                })
                .await
                .ok();
            parts.push(json!({"number": number, "etag": answer["etag"], "size_bytes": answer["size_bytes"]}));
        }
        // What was acknowledged counts: a part that was lost would be refused here.
        self.post(&format!("{path}/complete"), json!({ "parts": parts }), &[200]).await;
        let session = self.wait_for(&path, &["ready", "failed", "aborted"]).await;
        assert_eq!(session["state"], "ready", "{session}");
    }

    async fn wait_for(&self, path: &str, states: &[&str]) -> Value {
        loop {
            let shown = self.get(path).await;
            if states.iter().any(|state| shown["state"] == *state) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Publishes a version; what was done by a request whose answer was lost is there already.
    async fn release(&self, publisher: usize, number: u64) {
        let (image, version) = (format!("image{publisher}"), number.to_string());
        let seed = number * PUBLISHERS as u64 + publisher as u64;
        let disk = content(seed);
        self.upload(&disk, number % 2 == 0).await;
        self.upload(METADATA, false).await;
        self.post("/v1/images", json!({"name": image}), &[201, 409]).await;
        self.post(&format!("/v1/images/{image}/versions"), json!({"version": version}), &[201, 409]).await;
        let path = format!("/v1/images/{image}/versions/{version}");
        self.post(&format!("{path}/artifacts"), artifact(&disk, json!({})), &[201, 409]).await;
        let manifest = self.get(&path).await;
        let artifact = id(&manifest["artifacts"][0]["artifact"]);
        let metadata = attachment("incus.tar.xz", "application/x-xz", METADATA);
        self.post(&format!("{path}/artifacts/{artifact}/attachments"), metadata, &[201, 409]).await;
        let job = self.json(Method::POST, &format!("{path}/publish"), None, &[202]).await;
        let job = self.wait_for(&format!("/v1/publish-jobs/{}", id(&job)), &["succeeded", "failed"]).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        self.published.lock().expect("no panic").push(Release { image, version, seed, artifact });
        self.released[publisher].fetch_add(1, Ordering::Relaxed);
    }

    async fn publish(&self, publisher: usize) {
        let mut pace = tokio::time::interval(PACE);
        for number in 0.. {
            pace.tick().await;
            if self.is_done() {
                return;
            }
            self.release(publisher, number).await;
        }
    }

    /// Downloads what is published, whole and in part.
    async fn download(&self) {
        while !self.is_done() {
            let Some(release) = fastrand::choice(self.published()) else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let content = release.content();
            let start = if fastrand::bool() { 0 } else { fastrand::usize(..content.len()) };
            let rest = &content[start..];
            let path = format!(
                "/v1/images/{}/versions/{}/artifacts/{}/download",
                release.image, release.version, release.artifact
            );
            let answer = self
                .ask(&self.anybody, Some(rest), |api| {
                    api.request(Method::GET, &path).header("range", format!("bytes={start}-"))
                })
                .await;
            assert_eq!(answer.status, 206);
            assert!(answer.body == rest, "{path}: other bytes");
        }
    }

    /// Moves an alias to and fro; wherever it is said to be, there it is.
    async fn move_alias(&self, alias: usize) {
        while !self.is_done() {
            let Some(release) = fastrand::choice(self.published()) else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let path = format!("/v1/images/{}/aliases/alias{alias}", release.image);
            let target = json!({"version": release.version});
            self.json(Method::PUT, &path, Some(&target), &[200]).await;
            assert_eq!(self.get(&path).await["version"], target["version"], "an acknowledged move is seen by all");
        }
    }

    /// Reads lists, and what Incus reads; whatever was said to be published is there.
    async fn read(&self) {
        while !self.is_done() {
            let known = self.published();
            let shown =
                self.ask(&self.anybody, None, |api| api.request(Method::GET, "/streams/v1/images.json")).await.ok();
            for Release { image, version, .. } in &known {
                let product = format!("{image}:{version}:amd64:default");
                assert!(shown["products"].get(&product).is_some(), "{product} is not shown");
            }
            let shown = self.get("/v1/images").await;
            let listed = names(&shown, "images", "name");
            assert!(known.iter().all(|release| listed.contains(&&*release.image)), "{listed:?}");
            if let Some(release) = known.last() {
                let path = format!("/v1/images/{}/versions", release.image);
                let shown = self.ask(&self.anybody, None, |api| api.request(Method::GET, &path)).await.ok();
                assert!(names(&shown, "versions", "version").contains(&&*release.version), "{shown}");
            }
            self.get("/v1/uploads?state=ready&limit=10").await;
        }
    }

    /// Waits until every publisher has published more.
    async fn goes_on(&self) {
        let before: Vec<_> = self.released.iter().map(|released| released.load(Ordering::Relaxed)).collect();
        until("every publisher goes on", async || {
            self.released.iter().zip(&before).all(|(now, before)| now.load(Ordering::Relaxed) > before + 1)
        })
        .await;
    }

    /// Checks for the length of an outage that every node says what is away.
    async fn say_so(&self, away: &str) {
        let over = Instant::now() + outage();
        let asking = self.anybody.iter().map(async |node| {
            while Instant::now() < over {
                let answer = node.get("/readyz").await.problem(503, "unavailable");
                assert_eq!(answer["detail"], format!("no answer from: {away}"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        join_all(asking).await;
    }

    async fn are_ready(&self) {
        for node in &self.anybody {
            until("a node is ready", async || node.get("/readyz").await.status == 204).await;
        }
    }
}

/// Bytes that take a second to be sent.
fn trickle(bytes: &[u8]) -> Body {
    let frames: Vec<_> = bytes.chunks(bytes.len().div_ceil(20)).map(<[u8]>::to_vec).collect();
    Body::wrap_stream(stream::iter(frames).then(|frame| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, std::io::Error>(frame)
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_nodes_stand_on_is_away_for_a_while() {
    let mut shared = Shared::start();
    let nodes = [shared.node(), shared.node()];
    let token = nodes[0].writer().await.token.expect("a token");
    let load = Load::new(&nodes, &token);
    let publishers = (0..PUBLISHERS).map(|n| {
        tokio::spawn({
            let load = Arc::clone(&load);
            async move { load.publish(n).await }
        })
    });
    let others = (0..READERS).flat_map(|n| {
        let [downloads, moves, reads] = [Arc::clone(&load), Arc::clone(&load), Arc::clone(&load)];
        [
            tokio::spawn(async move { downloads.download().await }),
            tokio::spawn(async move { moves.move_alias(n).await }),
            tokio::spawn(async move { reads.read().await }),
        ]
    });
    let mut clients = tokio::task::JoinSet::new();
    for client in publishers.chain(others).collect::<Vec<_>>() {
        clients.spawn(async move { client.await.expect("what a client may see") });
    }

    let story = async {
        for away in ["database", "store"] {
            load.goes_on().await;
            let refused = load.refused.load(Ordering::Relaxed);
            tokio::task::block_in_place(|| match away {
                "database" => shared.postgres.stop(),
                _ => shared.garage.stop(),
            })
            .expect("it stops");
            let stopped = Instant::now();
            load.say_so(away).await;
            until("somebody is refused", async || load.refused.load(Ordering::Relaxed) > refused).await;
            let refused = load.refused.load(Ordering::Relaxed) - refused;
            tokio::task::block_in_place(|| match away {
                "database" => shared.postgres.start_again(),
                _ => shared.garage.start_again(),
            })
            .expect("it starts");
            let (gone, back) = (stopped.elapsed(), Instant::now());
            load.are_ready().await;
            load.goes_on().await;
            println!("{away} away for {gone:?}: {refused} refused; all went on {:?} after its return", back.elapsed());
        }
        load.done.store(true, Ordering::Relaxed);
    };
    tokio::select! {
        () = story => {}
        Some(ended) = clients.join_next() => panic!("a client ended early: {ended:?}"),
    }
    until("every client comes to its end", async || {
        while let Some(ended) = clients.try_join_next() {
            ended.expect("what a client may see");
        }
        clients.is_empty()
    })
    .await;

    let published = load.published();
    for release in &published {
        let path = format!("/v1/blobs/{}", digest(&release.content()));
        assert!(load.anybody[0].get(&path).await.body == release.content(), "{path}: other bytes");
    }
    let count = |sql: &str| shared.ask(sql).parse::<usize>().expect(sql);
    assert_eq!(count("select count(*) from jobs where kind = 'publish' and outcome = 'succeeded'"), published.len());
    assert_eq!(count("select count(*) from jobs where kind = 'publish'"), published.len(), "one job each");
    assert_eq!(count("select count(*) from events where what = 'published'"), published.len(), "each ended once");
    assert_eq!(count("select count(*) from versions where state <> 'published'"), 0);
    assert_eq!(count("select count(*) from uploads where state in ('completed', 'ingesting', 'failed')"), 0);
    assert_eq!(count("select count(*) from blobs where state <> 'live'"), 0);
    println!(
        "{} versions published; {} requests answered, {} refused, the slowest after {:?}; {} connections broke",
        published.len(),
        load.answered.load(Ordering::Relaxed),
        load.refused.load(Ordering::Relaxed),
        load.slowest.lock().expect("no panic"),
        load.broken.load(Ordering::Relaxed),
    );
    for node in nodes {
        node.stop();
    }
}
