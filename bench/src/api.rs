//! What a publisher asks imgsrv for.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http::{Body, Connection};

/// The shortest pause before a session is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// A publisher with a connection.
pub(crate) struct Api {
    connection: Connection,
    address: SocketAddr,
    token: String,
}

/// A part as it was stored.
pub(crate) type Stored = Value;

impl Api {
    pub(crate) fn new(address: SocketAddr, token: &str) -> io::Result<Self> {
        Ok(Self { connection: Connection::to(address)?, address, token: token.to_owned() })
    }

    /// The same with a connection of its own.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Self::new(self.address, &self.token)
    }

    /// The right to publish, given by whoever may.
    pub(crate) fn publisher(&mut self) -> io::Result<Self> {
        let principal = self.post("/v1/auth/principals", &json!({"kind": "service", "display_name": "bench"}))?;
        let path = format!("/v1/auth/principals/{}", text(&principal, "id"));
        self.ask("PUT", &format!("{path}/roles/content-writer"), None)?;
        let token = self.post(&format!("{path}/api-tokens"), &json!({"expires_at": "2099-01-01T00:00:00Z"}))?;
        Self::new(self.address, text(&token, "plaintext"))
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn authorization(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.token)
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Value> {
        let headers = format!("{}content-type: application/json\r\n", self.authorization());
        let body = body.map(Value::to_string).unwrap_or_default();
        let (_, answer) = self.connection.ask(method, path, &headers, &Body::of(body.as_bytes()))?;
        if answer.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&answer).map_err(io::Error::other) }
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Value> {
        self.ask("GET", path, None)
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> io::Result<Value> {
        self.ask("POST", path, Some(body))
    }

    /// A session for a blob that is not known; its path.
    pub(crate) fn begin(&mut self, digest: &str, size: u64) -> io::Result<String> {
        let upload = self.post("/v1/uploads", &json!({"expected_digest": digest, "expected_size_bytes": size}))?;
        if upload["state"] != "created" {
            return Err(io::Error::other(format!("this blob is known already: {upload}")));
        }
        Ok(format!("/v1/uploads/{}", text(&upload, "id")))
    }

    pub(crate) fn put_part(&mut self, session: &str, number: usize, body: &Body<'_>) -> io::Result<Stored> {
        let path = format!("{session}/parts/{number}");
        let (_, answer) = self.connection.ask("PUT", &path, &self.authorization(), body)?;
        serde_json::from_slice(&answer).map_err(io::Error::other)
    }

    /// Completes a session; how long it took until it was ready, told too late by a fiftieth or a millisecond at most:
    /// whoever asks more often takes from what is measured.
    pub(crate) fn complete(&mut self, session: &str, parts: &[Stored]) -> io::Result<Duration> {
        let listed: Vec<Value> = parts
            .iter()
            .map(|part| json!({"number": part["part_number"], "etag": part["etag"], "size_bytes": part["size_bytes"]}))
            .collect();
        let begun = Instant::now();
        let mut upload = self.post(&format!("{session}/complete"), &json!({ "parts": listed }))?;
        while upload["state"] != "ready" {
            if upload["state"] == "failed" {
                return Err(io::Error::other(format!("an upload failed: {upload}")));
            }
            thread::sleep((begun.elapsed() / 50).max(ASK_AGAIN));
            upload = self.get(session)?;
        }
        Ok(begun.elapsed())
    }

    /// Uploads a few bytes; their digest.
    pub(crate) fn upload_small(&mut self, bytes: &[u8]) -> io::Result<String> {
        let digest = digest(&Body::of(bytes), 1);
        let session = self.begin(&digest, bytes.len() as u64)?;
        let part = self.put_part(&session, 1, &Body::of(bytes))?;
        self.complete(&session, &[part])?;
        Ok(digest)
    }

    /// A draft with one disk; its path and that of the disk.
    pub(crate) fn draft(
        &mut self,
        image: &str,
        version: &str,
        digest: &str,
        size: u64,
    ) -> io::Result<(String, String)> {
        self.post(&format!("/v1/images/{image}/versions"), &json!({ "version": version }))?;
        let draft = format!("/v1/images/{image}/versions/{version}");
        let disk = json!({
            "operating_system": "linux", "architecture": "amd64", "format": "qcow2",
            "primary_media_type": "application/x-qemu-disk",
            "primary_blob_digest": digest, "primary_blob_size_bytes": size,
        });
        let disk = self.post(&format!("{draft}/artifacts"), &disk)?;
        let disk = format!("{draft}/artifacts/{}", text(&disk, "id"));
        Ok((draft, disk))
    }

    /// Publishes a draft and waits until it is.
    pub(crate) fn publish(&mut self, draft: &str) -> io::Result<()> {
        let job = self.ask("POST", &format!("{draft}/publish"), None)?;
        let job = format!("/v1/publish-jobs/{}", text(&job, "id"));
        loop {
            match text(&self.get(&job)?, "state") {
                "succeeded" => return Ok(()),
                "failed" => return Err(io::Error::other(format!("{draft} was not published"))),
                // Asked for more often, the answers would be what is measured.
                _ => thread::sleep(Duration::from_millis(4)),
            }
        }
    }
}

/// A member that is always there.
pub(crate) fn text<'a>(of: &'a Value, member: &str) -> &'a str {
    of[member].as_str().unwrap_or_default()
}

/// The digest of what is going to be sent, so many times over.
pub(crate) fn digest(body: &Body<'_>, times: u64) -> String {
    let mut hasher = Sha256::new();
    for _ in 0..times {
        // What it is given it always takes.
        body.pieces(|bytes| {
            hasher.update(bytes);
            Ok(())
        })
        .ok();
    }
    format!("sha256:{}", hex::encode(hasher.finalize()))
}
