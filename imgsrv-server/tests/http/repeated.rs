//! Each request of a release made twice, as by a client that lost the answer: the release is the same.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Api, Server, artifact, attachment, bytes, id, list_of, promise, send};

/// A client one of whose requests arrives twice.
struct Client {
    api: Api,
    twice: usize,
    made: usize,
}

impl Client {
    /// The last answer's body; none where a repetition is told that it was done before.
    async fn ask(&mut self, method: Method, path: &str, body: Value) -> Option<Value> {
        self.made += 1;
        let ask = async || {
            let request = self.api.request(method.clone(), path);
            send(if body.is_null() { request } else { request.json(&body) }).await
        };
        let first = ask().await;
        assert!(first.status.is_success(), "{method} {path}: {}", first.status);
        let last = if self.made == self.twice { ask().await } else { first };
        match last.status {
            StatusCode::CONFLICT if method == Method::POST && self.made == self.twice => None,
            StatusCode::NOT_FOUND if method == Method::DELETE && self.made == self.twice => None,
            status if status.is_success() => (!last.body.is_empty()).then(|| last.json()),
            status => panic!("{method} {path}: {status}"),
        }
    }

    async fn post(&mut self, path: &str, body: Value) -> Option<Value> {
        self.ask(Method::POST, path, body).await
    }

    async fn put_part(&mut self, upload: &str, number: u32, bytes: &[u8]) -> Value {
        self.made += 1;
        let part = self.api.put_part(upload, number, bytes.to_vec()).await.ok();
        if self.made != self.twice {
            return part;
        }
        let again = self.api.put_part(upload, number, bytes.to_vec()).await.ok();
        assert_eq!(again["etag"], part["etag"]);
        again
    }

    /// Uploads bytes in two parts, the last one first.
    async fn upload(&mut self, whole: &[u8]) {
        let upload = id(&self.post("/v1/uploads", promise(whole)).await.expect("a session"));
        let (head, tail) = whole.split_at(5 << 20);
        let second = self.put_part(&upload, 2, tail).await;
        let first = self.put_part(&upload, 1, head).await;
        self.post(&format!("/v1/uploads/{upload}/complete"), list_of(&[first, second])).await;
        assert_eq!(self.api.wait_for_upload(&upload).await["state"], "ready");
    }

    /// The id of what was added, which a repetition is not told.
    async fn add(&mut self, path: &str, body: Value, find: impl Fn(&Value) -> bool) -> String {
        if let Some(added) = self.post(path, body).await {
            return id(&added);
        }
        let version = path.split("/artifacts").next().expect("a version");
        let manifest = self.api.get(version).await.ok();
        let entries = manifest["artifacts"].as_array().expect("artifacts").iter();
        let rows = entries.flat_map(|entry| {
            std::iter::once(&entry["artifact"]).chain(entry["attachments"].as_array().expect("attachments"))
        });
        id(rows.into_iter().find(|row| find(row)).expect("what was added"))
    }
}

/// A release from its first byte; how many requests that took, and what is there then.
async fn release(api: Api, twice: usize) -> (usize, Value) {
    let name = format!("image-{twice}");
    let mut client = Client { api, twice, made: 0 };
    let (disk, notes) = (bytes(twice as u64, (5 << 20) + 1000), bytes(1000 + twice as u64, 5 << 20));
    client.upload(&disk).await;
    client.upload(&notes).await;
    let given_up = id(&client.post("/v1/uploads", promise(b"never")).await.expect("a session"));
    client.post(&format!("/v1/uploads/{given_up}/abort"), Value::Null).await;

    let image = format!("/v1/images/{name}");
    client.post("/v1/images", json!({ "name": name })).await;
    for version in ["1", "2"] {
        let base = format!("{image}/versions/{version}");
        client.post(&format!("{image}/versions"), json!({ "version": version })).await;
        let artifacts = format!("{base}/artifacts");
        let wrong = artifact(&disk, json!({"format": "iso"}));
        let wrong = client.add(&artifacts, wrong, |row| row["format"] == "iso").await;
        client.ask(Method::DELETE, &format!("{artifacts}/{wrong}"), Value::Null).await;
        let right = client.add(&artifacts, artifact(&disk, json!({})), |row| row["format"] == "qcow2").await;
        let attached = attachment("notes", "text/plain", &notes);
        client.add(&format!("{artifacts}/{right}/attachments"), attached, |row| row["name"] == "notes").await;
        let job = client.post(&format!("{base}/publish"), Value::Null).await.expect("a job");
        assert_eq!(client.api.wait_for_job(&id(&job)).await["state"], "succeeded");
        client.ask(Method::PUT, &format!("{image}/aliases/latest"), json!({ "version": version })).await;
        client.ask(Method::PUT, &format!("{image}/aliases/v{version}"), json!({ "version": version })).await;
    }
    client.ask(Method::DELETE, &format!("{image}/aliases/v1"), Value::Null).await;
    client.post(&format!("{image}/versions"), json!({"version": "3"})).await;
    client.ask(Method::DELETE, &format!("{image}/versions/3"), Value::Null).await;
    (client.made, shown(&client.api, &image, &disk).await)
}

/// What the server shows of an image, without what differs from one to the next.
async fn shown(api: &Api, image: &str, disk: &[u8]) -> Value {
    let mut shown = Vec::new();
    for version in ["1", "2"] {
        let manifest = api.get(&format!("{image}/versions/{version}")).await.ok();
        for entry in manifest["artifacts"].as_array().expect("artifacts") {
            let (artifact, attachments) = (&entry["artifact"], entry["attachments"].as_array().expect("attachments"));
            let path = format!("{image}/versions/{version}/artifacts/{}/download", id(artifact));
            let names: Vec<_> = attachments.iter().map(|attached| &attached["name"]).collect();
            let state = &manifest["version"]["state"];
            let whole = api.get(&path).await.body == disk;
            shown.push(json!({"state": state, "format": artifact["format"], "attached": names, "whole": whole}));
        }
    }
    let aliases = api.get(&format!("{image}/aliases")).await.ok();
    let aliases = aliases["aliases"].as_array().expect("aliases").iter();
    let aliases: Vec<_> = aliases.map(|alias| json!([alias["alias"], alias["version"]])).collect();
    let versions = api.get(&format!("{image}/versions")).await.ok()["versions"].as_array().expect("versions").len();
    let open = api.get("/v1/uploads?state=completed").await.ok();
    json!({"artifacts": shown, "aliases": aliases, "versions": versions, "open": open["uploads"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_requests_arrive_twice() {
    let server = Server::start();
    let api = server.writer().await;
    let (requests, once) = release(api.clone(), 0).await;
    assert!(
        once["artifacts"].as_array().expect("artifacts").iter().all(|artifact| artifact["whole"] == true),
        "{once}"
    );
    for twice in 1..=requests {
        let (_, shown) = release(api.clone(), twice).await;
        assert_eq!(shown, once, "request {twice}");
    }
    server.stop();
}
