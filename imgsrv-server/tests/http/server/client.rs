//! A client that speaks the API.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Answer, id, send};

/// Longer than anything here takes on a busy machine; only a hang gets there.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A client with or without a token.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    url: String,
    pub(crate) token: Option<String>,
}

impl Api {
    /// A client that trusts the authority in this file, or needs none.
    pub(crate) fn new(url: &str, token: Option<String>, ca: Option<&Path>) -> Self {
        let client = Client::builder().timeout(PATIENCE);
        let client = match ca {
            Some(ca) => {
                client.tls_certs_only([Certificate::from_pem(&std::fs::read(ca).expect("a file")).expect("PEM")])
            }
            None => client,
        };
        let client = client.build().expect("a client");
        Self { client, url: url.to_owned(), token }
    }

    /// The same client with this token.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    /// The same client, at another address of this machine.
    pub(crate) fn at(&self, address: [u8; 4]) -> Self {
        let client = Client::builder().timeout(PATIENCE).local_address(IpAddr::from(address));
        Self { client: client.build().expect("a client"), ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// A request without a body.
    pub(crate) async fn call(&self, method: Method, path: &str) -> Answer {
        send(self.request(method, path)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.request(Method::GET, path);
        send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.call(Method::HEAD, path).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path).await
    }

    /// A POST that says all with its path.
    pub(crate) async fn act(&self, path: &str) -> Answer {
        self.call(Method::POST, path).await
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
        let principal =
            self.post("/v1/auth/principals", json!({"kind": "service", "display_name": "a test"})).await.created();
        let path = format!("/v1/auth/principals/{}", id(&principal));
        self.call(Method::PUT, &format!("{path}/roles/{role}")).await.no_content();
        let token = json!({"name": "test", "expires_at": "2099-01-01T00:00:00Z"});
        let token = self.post(&format!("{path}/api-tokens"), token).await.created();
        token["plaintext"].as_str().expect("a token").to_owned()
    }

    /// A new session for bytes that the server does not have.
    pub(crate) async fn begin(&self, bytes: &[u8]) -> Value {
        self.post("/v1/uploads", promise(bytes)).await.created()
    }

    /// Uploads bytes in one part, if the server does not have them; their digest.
    pub(crate) async fn upload(&self, bytes: &[u8]) -> String {
        let begun = self.post("/v1/uploads", promise(bytes)).await;
        if begun.status == StatusCode::CREATED {
            let upload = id(&begun.json());
            let part = self.put_part(&upload, 1, bytes.to_vec()).await.ok();
            let done = self.complete(&upload, &[part]).await.ok();
            assert_eq!(done["state"], "ready");
        }
        digest(bytes)
    }

    /// Lists parts as the answers to them described them.
    pub(crate) async fn complete(&self, upload: &str, parts: &[Value]) -> Answer {
        self.post(&format!("/v1/uploads/{upload}/complete"), list_of(parts)).await
    }

    pub(crate) async fn wait_for_upload(&self, upload: &str) -> Value {
        self.wait_for(&format!("/v1/uploads/{upload}"), &["ready", "failed", "aborted"]).await
    }

    pub(crate) async fn wait_for_job(&self, job: &str) -> Value {
        self.wait_for(&format!("/v1/publish-jobs/{job}"), &["succeeded", "failed"]).await
    }

    /// What a path shows when it shows one of these states.
    async fn wait_for(&self, path: &str, states: &[&str]) -> Value {
        let mut shown = Value::Null;
        until(&format!("{path} is one of {states:?}"), async || {
            shown = self.get(path).await.ok();
            states.iter().any(|state| shown["state"] == *state)
        })
        .await;
        shown
    }

    /// A draft with one artifact of these bytes; the artifact's id.
    pub(crate) async fn draft(&self, image: &str, version: &str, bytes: &[u8]) -> String {
        self.upload(bytes).await;
        self.post("/v1/images", json!({ "name": image })).await;
        self.post(&format!("/v1/images/{image}/versions"), json!({ "version": version })).await.created();
        let plain = json!({"format": "raw", "primary_media_type": "application/octet-stream"});
        self.add(&format!("/v1/images/{image}/versions/{version}/artifacts"), artifact(bytes, plain)).await
    }

    /// Makes something under a path; its id.
    pub(crate) async fn add(&self, path: &str, body: Value) -> String {
        id(&self.post(path, body).await.created())
    }

    pub(crate) async fn publish(&self, image: &str, version: &str) -> Value {
        let job = self.act(&format!("/v1/images/{image}/versions/{version}/publish")).await.accepted();
        self.wait_for_job(&id(&job)).await
    }

    /// A published version with one artifact of these bytes; the artifact's id.
    pub(crate) async fn release(&self, image: &str, version: &str, bytes: &[u8]) -> String {
        let artifact = self.draft(image, version, bytes).await;
        let job = self.publish(image, version).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        artifact
    }
}

/// Waits for what happens behind the back of every request.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// The list of parts as the answers to them described them.
pub(crate) fn list_of(parts: &[Value]) -> Value {
    let listed: Vec<Value> = parts
        .iter()
        .map(|part| json!({"number": part["part_number"], "etag": part["etag"], "size_bytes": part["size_bytes"]}))
        .collect();
    json!({ "parts": listed })
}

pub(crate) fn promise(bytes: &[u8]) -> Value {
    json!({"expected_digest": digest(bytes), "expected_size_bytes": bytes.len()})
}

/// An artifact of these bytes to be added: a disk for Linux on amd64 where `more` does not say otherwise.
pub(crate) fn artifact(bytes: &[u8], more: Value) -> Value {
    let disk = json!({
        "operating_system": "linux", "architecture": "amd64", "format": "qcow2",
        "primary_blob_digest": digest(bytes), "primary_blob_size_bytes": bytes.len(),
        "primary_media_type": "application/x-qemu-disk",
    });
    with(disk, more)
}

/// An attachment of these bytes to be added.
pub(crate) fn attachment(name: &str, media_type: &str, bytes: &[u8]) -> Value {
    json!({"name": name, "media_type": media_type, "blob_digest": digest(bytes), "blob_size_bytes": bytes.len()})
}

/// An object with more members, or others.
pub(crate) fn with(mut object: Value, more: Value) -> Value {
    object.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    object
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Bytes that look like no others.
pub(crate) fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}
