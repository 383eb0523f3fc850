//! The program as its users run it, and a client that speaks its API.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with a data folder of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    /// What it printed on standard output before it was ready.
    pub(crate) token: Option<String>,
    pub(crate) folder: Folder,
}

/// A data folder, which several runs of the program may use one after the other.
#[derive(Clone)]
pub(crate) struct Folder(std::sync::Arc<TempDir>);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(std::sync::Arc::new(tempfile::tempdir().expect("a folder")))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_in(Folder::new(), &[])
    }

    pub(crate) fn start_in(folder: Folder, arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["--data-dir"]).arg(folder.path().join("data")).args(arguments);
        Self::spawn(command, folder)
    }

    /// Runs a command that ends in the program, and waits until it listens.
    pub(crate) fn spawn(mut command: Command, folder: Folder) -> Self {
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        // A test machine may be nearly full; what the floor does has a test of its own.
        command.env("IMGSRV_MIN_FREE", "0");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        let address = first_line(child.stderr.take().expect("standard error"), |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
        });
        let Some(address) = address else {
            child.kill().ok();
            panic!("the server did not start: {}", child.wait().expect("its end"));
        };
        // A token is printed before the program listens, so it is there now or never.
        let token = read_token(&mut child);
        Self { child, url: format!("http://{address}"), token, folder }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would: nothing of it runs any more.
    pub(crate) fn kill(mut self) -> Folder {
        self.child.kill().expect("kill");
        self.child.wait().expect("its end");
        self.folder.clone()
    }

    /// Ends it as a supervisor would, and checks that it takes that well.
    pub(crate) fn stop(self) -> Folder {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        self.wait_for_a_good_end()
    }

    pub(crate) fn wait_for_a_good_end(mut self) -> Folder {
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "a graceful stop ends with 0, not {status}");
        self.folder.clone()
    }

    /// A client with the token that manages the server.
    pub(crate) fn manager(&self) -> Api {
        Api::new(&self.url, self.token.clone())
    }

    /// A client that may write content.
    pub(crate) async fn writer(&self) -> Api {
        let token = self.manager().new_token("content-writer").await;
        Api::new(&self.url, Some(token))
    }

    pub(crate) fn anonymous(&self) -> Api {
        Api::new(&self.url, None)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_imgsrv").into()
}

/// The first line in which something is found; the rest is read and dropped, so that the program can go on writing.
fn first_line(
    from: impl std::io::Read + Send + 'static,
    mut find: impl FnMut(&str) -> Option<String> + Send + 'static,
) -> Option<String> {
    let (found, wait) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if std::env::var_os("IMGSRV_TEST_LOG").is_some() {
                eprintln!("{line}");
            }
            if let Some(text) = find(&line) {
                found.send(text).ok();
            }
        }
    });
    wait.recv_timeout(PATIENCE).ok()
}

fn read_token(child: &mut Child) -> Option<String> {
    use std::io::Read;
    use std::os::fd::AsFd;
    let mut out = child.stdout.take().expect("standard output");
    let flags = rustix::fs::fcntl_getfl(out.as_fd()).expect("flags");
    rustix::fs::fcntl_setfl(out.as_fd(), flags | rustix::fs::OFlags::NONBLOCK).expect("flags");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = out.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text.lines().find_map(|line| line.strip_prefix("imgsrv bootstrap token (one-time): ")).map(str::to_owned)
}

/// A client with or without a token.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    url: String,
    pub(crate) token: Option<String>,
}

impl Api {
    pub(crate) fn new(url: &str, token: Option<String>) -> Self {
        let client = Client::builder().timeout(PATIENCE).build().expect("a client");
        Self { client, url: url.to_owned(), token }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn put_part(&self, upload: &str, number: u32, bytes: impl Into<reqwest::Body>) -> Answer {
        send(self.request(Method::PUT, &format!("/v1/uploads/{upload}/parts/{number}")).body(bytes)).await
    }

    /// A fresh token with one role.
    pub(crate) async fn new_token(&self, role: &str) -> String {
        let principal = self
            .post("/v1/auth/principals", json!({"kind": "service", "display_name": "a test"}))
            .await
            .created()["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let granted = self.put(&format!("/v1/auth/principals/{principal}/roles/{role}"), Value::Null).await;
        assert_eq!(granted.status, StatusCode::NO_CONTENT, "{}", granted.text());
        let path = format!("/v1/auth/principals/{principal}/api-tokens");
        let token = self.post(&path, json!({"name": "test", "expires_at": "2099-01-01T00:00:00Z"})).await.created();
        token["plaintext"].as_str().expect("a token").to_owned()
    }

    pub(crate) async fn begin(&self, bytes: &[u8]) -> Value {
        let promise = json!({"expected_digest": digest(bytes), "expected_size_bytes": bytes.len()});
        self.post("/v1/uploads", promise).await.created()
    }

    /// Uploads bytes in one part; their digest.
    pub(crate) async fn upload(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let begun =
            self.post("/v1/uploads", json!({"expected_digest": digest, "expected_size_bytes": bytes.len()})).await;
        if begun.status == StatusCode::CREATED {
            let id = begun.json()["id"].as_str().expect("an id").to_owned();
            let part = self.put_part(&id, 1, bytes.to_vec()).await.ok();
            let done = self.complete(&id, &[part]).await.ok();
            assert_eq!(done["state"], "ready");
        }
        digest
    }

    pub(crate) async fn complete(&self, upload: &str, parts: &[Value]) -> Answer {
        let parts: Vec<Value> = parts
            .iter()
            .map(|part| json!({"number": part["part_number"], "etag": part["etag"], "size_bytes": part["size_bytes"]}))
            .collect();
        self.post(&format!("/v1/uploads/{upload}/complete"), json!({ "parts": parts })).await
    }

    pub(crate) async fn wait_for_upload(&self, upload: &str) -> Value {
        loop {
            let session = self.get(&format!("/v1/uploads/{upload}")).await.ok();
            if matches!(session["state"].as_str(), Some("ready" | "failed" | "aborted")) {
                return session;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A draft with one artifact of these bytes; the artifact's id.
    pub(crate) async fn draft(&self, image: &str, version: &str, bytes: &[u8]) -> String {
        let digest = self.upload(bytes).await;
        self.post("/v1/images", json!({ "name": image })).await;
        self.post(&format!("/v1/images/{image}/versions"), json!({ "version": version })).await.created();
        let artifact = json!({
            "operating_system": "linux",
            "architecture": "amd64",
            "format": "raw",
            "primary_blob_digest": digest,
            "primary_blob_size_bytes": bytes.len(),
            "primary_media_type": "application/octet-stream",
        });
        let path = format!("/v1/images/{image}/versions/{version}/artifacts");
        self.post(&path, artifact).await.created()["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn publish(&self, image: &str, version: &str) -> Value {
        let job = self.request(Method::POST, &format!("/v1/images/{image}/versions/{version}/publish"));
        let job = send(job).await;
        assert_eq!(job.status, StatusCode::ACCEPTED, "{}", job.text());
        self.wait_for_job(job.json()["job_id"].as_str().expect("a job id")).await
    }

    pub(crate) async fn wait_for_job(&self, job: &str) -> Value {
        loop {
            let job = self.get(&format!("/v1/publish-jobs/{job}")).await.ok();
            if matches!(job["state"].as_str(), Some("succeeded" | "failed")) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A published version with one artifact of these bytes; the artifact's id.
    pub(crate) async fn release(&self, image: &str, version: &str, bytes: &[u8]) -> String {
        let artifact = self.draft(image, version, bytes).await;
        let job = self.publish(image, version).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        artifact
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    read(request.send().await.expect("an answer")).await
}

async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    assert!(headers.contains_key("x-request-id"), "every answer carries its id");
    let body = response.bytes().await.expect("a whole body").to_vec();
    let answer = Answer { status, headers, body };
    if status.is_client_error() || status.is_server_error() {
        answer.check_problem();
    }
    answer
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.text()))
    }

    #[track_caller]
    fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        self.expect(StatusCode::OK)
    }

    #[track_caller]
    pub(crate) fn created(&self) -> Value {
        self.expect(StatusCode::CREATED)
    }

    /// A problem with this status and slug.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        let problem = self.json();
        assert_eq!(
            (self.status.as_u16(), &problem["type"]),
            (status, &json!(format!("urn:imgsrv:problem:{slug}"))),
            "{problem}"
        );
        problem
    }

    /// What holds for every problem.
    fn check_problem(&self) {
        if self.body.is_empty() {
            return; // HEAD
        }
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        assert_eq!(self.header("cache-control"), "no-store");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["instance"], self.header("x-request-id"));
        for member in ["type", "title"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {problem}");
        }
        match self.status.as_u16() {
            401 => assert_eq!(self.header("www-authenticate"), "Bearer"),
            405 => assert!(!self.header("allow").is_empty()),
            503 => assert!(!self.header("retry-after").is_empty()),
            500 => assert!(problem.get("detail").is_none(), "{problem}"),
            _ => assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{problem}"),
        }
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Bytes that look like no others.
pub(crate) fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}
