//! What is measured: the built program over TCP, and clients of it. Each measurement uses some of it.

#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

pub(crate) struct Server {
    child: Child,
    url: String,
    token: Option<String>,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_imgsrv"))
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--verbosity", "imgsrv=info,warn", "--data-dir"])
            .arg(data)
            .env("IMGSRV_MIN_FREE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listening =
            lines.find_map(|line| serde_json::from_str::<Value>(&line).ok()?["address"].as_str().map(str::to_owned));
        // What the server complains of is worth knowing where a measurement fails.
        std::thread::spawn(move || {
            let complaints = lines.filter(|line| ["WARN", "ERROR"].iter().any(|level| line.contains(level)));
            complaints.filter(|line| !line.contains("sqlx::pool")).for_each(|line| eprintln!("{line}"));
        });
        let issued =
            Command::new(env!("CARGO_BIN_EXE_imgsrv")).arg("--data-dir").arg(data).arg("bootstrap-token").output();
        let issued = String::from_utf8(issued.unwrap().stdout).unwrap();
        let token = issued.split_whitespace().last().map(str::to_owned);
        Self { child, url: format!("http://{}", listening.unwrap()), token }
    }

    /// A client that manages it.
    pub(crate) fn api(&self) -> Api {
        let client = Client::builder().no_gzip().no_zstd().build().unwrap();
        Api { client, url: self.url.clone(), token: self.token.clone() }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The most memory that it ever had: KiB.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    url: String,
    pub(crate) token: Option<String>,
}

impl Api {
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.client.get(format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.unwrap();
        assert!(matches!(response.status(), StatusCode::OK | StatusCode::NOT_MODIFIED), "{}", response.status());
        response
    }

    pub(crate) async fn json(&self, method: Method, path: impl AsRef<str>, body: Option<Value>) -> Value {
        let request = self.client.request(method, format!("{}{}", self.url, path.as_ref()));
        let request = request.bearer_auth(self.token.as_ref().unwrap());
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{}: {status} {text}", path.as_ref());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub(crate) async fn writer(&self) -> Self {
        let principal = json!({"kind": "service", "display_name": "bench"});
        let principal = self.json(Method::POST, "/v1/auth/principals", Some(principal)).await;
        let path = format!("/v1/auth/principals/{}", principal["id"].as_str().unwrap());
        self.json(Method::PUT, format!("{path}/roles/content-writer"), None).await;
        let token = json!({"expires_at": "2099-01-01T00:00:00Z"});
        let token = self.json(Method::POST, format!("{path}/api-tokens"), Some(token)).await;
        Self { token: Some(token["plaintext"].as_str().unwrap().to_owned()), ..self.clone() }
    }

    /// A session for a blob; its path.
    pub(crate) async fn begin(&self, digest: &str, size: usize) -> String {
        let promise = json!({"expected_digest": digest, "expected_size_bytes": size});
        let upload = self.json(Method::POST, "/v1/uploads", Some(promise)).await;
        format!("/v1/uploads/{}", upload["id"].as_str().unwrap())
    }

    pub(crate) async fn upload(&self, bytes: &[u8]) {
        let path = self.begin(&digest(bytes), bytes.len()).await;
        let part = self.client.put(format!("{}{path}/parts/1", self.url)).bearer_auth(self.token.as_ref().unwrap());
        let part: Value =
            serde_json::from_slice(&part.body(bytes.to_vec()).send().await.unwrap().bytes().await.unwrap()).unwrap();
        let parts = json!({"parts": [{"number": 1, "etag": part["etag"], "size_bytes": part["size_bytes"]}]});
        self.json(Method::POST, format!("{path}/complete"), Some(parts)).await;
    }

    /// Adds a disk to a draft; its path.
    pub(crate) async fn add_disk(&self, version: &str, bytes: &[u8]) -> String {
        self.upload(bytes).await;
        let artifact = json!({
            "operating_system": "linux", "architecture": "amd64", "format": "qcow2", "primary_media_type": "a/b",
            "primary_blob_digest": digest(bytes), "primary_blob_size_bytes": bytes.len(),
        });
        let artifact = self.json(Method::POST, format!("{version}/artifacts"), Some(artifact)).await;
        format!("{version}/artifacts/{}", artifact["id"].as_str().unwrap())
    }

    /// Publishes a draft and waits until that is done.
    pub(crate) async fn publish(&self, version: &str) {
        let job = self.json(Method::POST, format!("{version}/publish"), None).await;
        while self.json(Method::GET, format!("/v1/publish-jobs/{}", job["id"].as_str().unwrap()), None).await["state"]
            != "succeeded"
        {}
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    imgsrv_core::model::Digest::of(bytes).to_string()
}

pub(crate) fn middle(mut taken: Vec<Duration>) -> String {
    taken.sort_unstable();
    format!("median {}, most {}", ms(taken[taken.len() / 2]), ms(taken[taken.len() - 1]))
}

pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
