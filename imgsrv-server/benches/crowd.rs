//! Many slow transfers at once: `cargo bench --bench crowd [-- TRANSFERS]`, 500 of each kind unless told otherwise.
//!
//! Prints how much memory the built server takes on SQLite and a folder while as many clients upload and as many
//! download, all of them slowly, and how long another client waits for a manifest meanwhile. In the end all clients
//! hurry, so that what was begun is seen to be finished. Fails if the server ever took more memory than it may. What the
//! other client waits depends on what else the machine does, this crowd included: that fails only if it is far off.

#![allow(missing_docs, clippy::pedantic, clippy::unwrap_used, reason = "a program of one page")]

mod server;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use server::{Api, Server, digest, ms};

/// What a client moves at a time, and how long it pauses then: 32 KiB/s.
const STEP: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(250);

/// For how long they are slow. Much longer would need larger files.
const SLOW: Duration = Duration::from_secs(30);
const PART: usize = 4 << 20;
/// More than sockets take.
const BLOB: usize = 16 << 20;

/// What the server may take: KiB.
const MEMORY: u64 = 512 << 10;

/// What another client may have to wait where nothing else runs, in 99 of 100 cases; and what is too much anywhere.
const WAIT: Duration = Duration::from_millis(50);
const FAR_OFF: u32 = 20;

/// How many begin at the same moment, and hurry. SQLite writes one part after the other to the disk, and a disk that is
/// slow today would make a crowd that comes all at once wait for longer than it may: that is another measurement.
const AT_ONCE: usize = 16;

/// How often the other client asks.
const ASK: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> ExitCode {
    let transfers: usize = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(500);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let (api, disk) = (server.api().writer().await, noise(1, BLOB));
    api.json(Method::POST, "/v1/images", Some(json!({"name": "debian"}))).await;
    api.json(Method::POST, "/v1/images/debian/versions", Some(json!({"version": "1.0"}))).await;
    let version = "/v1/images/debian/versions/1.0";
    let artifact = api.add_disk(version, &disk).await;
    api.publish(version).await;
    let before = server.peak();

    let crowd = Arc::new(Crowd {
        address: server.address().to_owned(),
        token: api.token.clone().unwrap(),
        under_way: AtomicUsize::new(0),
        moved: AtomicU64::new(0),
        hurry: watch::Sender::new(false),
        turns: Semaphore::new(AT_ONCE),
    });
    let mut clients = JoinSet::new();
    let part = Arc::new(noise(2, PART));
    let mut sessions = Vec::new();
    for number in 0..transfers {
        sessions.push(api.begin(&digest(&number.to_be_bytes()), PART).await);
    }
    for session in sessions {
        let (uploading, downloading) = (Arc::clone(&crowd), Arc::clone(&crowd));
        let (part, path) = (Arc::clone(&part), format!("{artifact}/download"));
        clients.spawn(async move { uploading.upload(&format!("{session}/parts/1"), &part).await });
        clients.spawn(async move { downloading.download(&path, BLOB).await });
    }
    let all_begun = async {
        while crowd.under_way.load(Ordering::Relaxed) < 2 * transfers {
            sleep(PAUSE).await;
        }
    };
    timeout(Duration::from_secs(120), all_begun).await.expect("all are under way");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let (begun, moved) = (Instant::now(), crowd.moved.load(Ordering::Relaxed));
    let waits = ask(&server.api(), version, SLOW).await;
    let rate = (crowd.moved.load(Ordering::Relaxed) - moved) as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(crowd.under_way.load(Ordering::Relaxed), 2 * transfers, "all are still under way");
    let slow = server.peak();

    crowd.hurry.send_replace(true);
    let hurried = Instant::now();
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let (hurried, peak) = (hurried.elapsed(), server.peak());

    let least = transfers as f64 * 2.0 * STEP as f64 / PAUSE.as_secs_f64();
    println!("{transfers} uploads and {transfers} downloads at {:.0} % of their pace", 100.0 * rate / least);
    println!("peak memory of the server: {before} KiB before, {slow} KiB while they were slow");
    println!("{peak} KiB when all had hurried to their end, in {} s; it may have {MEMORY} KiB", hurried.as_secs());
    let p99 = waits[waits.len() * 99 / 100];
    println!(
        "GET of a manifest, {} times: median {}, p99 {} (to be less than {}), most {}; load of the machine {}",
        waits.len(),
        ms(waits[waits.len() / 2]),
        ms(p99),
        ms(WAIT),
        ms(waits[waits.len() - 1]),
        load.trim(),
    );
    if peak > MEMORY || p99 > WAIT * FAR_OFF { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// How long the answers take, sorted.
async fn ask(api: &Api, path: &str, lasting: Duration) -> Vec<Duration> {
    let (begun, mut taken) = (Instant::now(), Vec::new());
    while begun.elapsed() < lasting {
        let asked = Instant::now();
        api.get(path, &[]).await.bytes().await.unwrap();
        taken.push(asked.elapsed());
        sleep(ASK).await;
    }
    taken.sort_unstable();
    taken
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes
}

struct Crowd {
    address: String,
    token: String,
    under_way: AtomicUsize,
    moved: AtomicU64,
    hurry: watch::Sender<bool>,
    turns: Semaphore,
}

impl Crowd {
    async fn upload(&self, path: &str, bytes: &[u8]) {
        let turn = self.turns.acquire().await.unwrap();
        let mut connection = self.connect().await;
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\n\r\n",
            self.token,
            bytes.len()
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        answered_with(&mut connection, 100).await;
        drop(turn);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let mut turn = None;
        for step in bytes.chunks(STEP) {
            connection.write_all(step).await.unwrap();
            if self.pause(step.len()).await && turn.is_none() {
                turn = Some(self.turns.acquire().await.unwrap());
            }
        }
        answered_with(&mut connection, 200).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    async fn download(&self, path: &str, size: usize) {
        let turn = self.turns.acquire().await.unwrap();
        let mut connection = self.connect().await;
        connection.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        answered_with(&mut connection, 200).await;
        drop(turn);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let (mut left, mut buffer) = (size, [0; STEP]);
        while left > 0 {
            let most = left.min(STEP);
            let read = connection.read(&mut buffer[..most]).await.unwrap();
            assert!(read > 0, "broken off with {left} bytes to come");
            left -= read;
            self.pause(read).await;
        }
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// With little room for what has come and was not taken, as on a slow line: what waits has to wait at the server.
    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2 * u32::try_from(STEP).unwrap()).unwrap();
        socket.connect(self.address.parse().unwrap()).await.unwrap()
    }

    /// Whether it is over with being slow.
    async fn pause(&self, moved: usize) -> bool {
        self.moved.fetch_add(moved as u64, Ordering::Relaxed);
        let mut hurry = self.hurry.subscribe();
        *hurry.borrow_and_update() || timeout(PAUSE, hurry.changed()).await.is_ok()
    }
}

/// Reads the head of an answer, and nothing behind it.
async fn answered_with(connection: &mut TcpStream, status: u16) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    if !head.starts_with(&format!("HTTP/1.1 {status} ")) {
        let mut rest = Vec::new();
        timeout(PAUSE, connection.read_to_end(&mut rest)).await.ok();
        panic!("{head}{}", String::from_utf8_lossy(&rest));
    }
}
