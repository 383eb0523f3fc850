//! The operations of the specification, for stories that walk all of them.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, artifact, attachment, digest, id};

/// Who can call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Anybody; a token makes no difference.
    Anybody,
    /// Anybody; a writer may see more.
    Readers,
    /// The role `content-writer`.
    Writers,
    /// The role `auth-manager`.
    Managers,
}

impl Who {
    /// Whether it can be called without a token.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Anybody | Self::Readers)
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    /// With `{parameters}`.
    pub(crate) path: String,
    pub(crate) who: Who,
    /// Whether it reads JSON.
    pub(crate) takes_json: bool,
}

impl Operation {
    pub(crate) fn parameters(&self) -> Vec<String> {
        self.path.split('/').filter_map(|one| one.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned).collect()
    }

    /// Its path with these values.
    pub(crate) fn at(&self, value: impl Fn(&str) -> String) -> String {
        let parameters = self.parameters();
        parameters.iter().fold(self.path.clone(), |path, name| path.replace(&format!("{{{name}}}"), &value(name)))
    }
}

/// Every operation of the specification.
pub(crate) fn operations() -> Vec<Operation> {
    let document = imgsrv_server::specification();
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().expect("operations").iter().map(move |(method, operation)| {
            let schemes = operation["security"].as_array().expect("security");
            let who = match schemes.as_slice() {
                [] => Who::Anybody,
                schemes if schemes.contains(&json!({})) => Who::Readers,
                _ if path.starts_with("/v1/auth/") => Who::Managers,
                _ => Who::Writers,
            };
            Operation {
                id: operation["operationId"].as_str().expect("an id").to_owned(),
                method: method.to_uppercase().parse().expect("a method"),
                path: path.clone(),
                who,
                takes_json: operation["requestBody"]["content"].get("application/json").is_some(),
            }
        })
    });
    operations.collect()
}

/// What there is on a server on which every path of the specification leads somewhere.
pub(crate) struct World {
    published: BTreeMap<&'static str, String>,
    draft: BTreeMap<&'static str, String>,
}

impl World {
    /// A published version with all that one can have, and a draft.
    pub(crate) async fn make(server: &Server) -> Self {
        let (manager, writer) = (server.manager(), server.writer().await);
        writer.upload(b"bytes").await;
        writer.post("/v1/images", json!({"name": "debian"})).await.created();
        let make = async |version: &'static str| {
            writer.post("/v1/images/debian/versions", json!({ "version": version })).await.created();
            let path = format!("/v1/images/debian/versions/{version}/artifacts");
            let artifact = writer.add(&path, artifact(b"bytes", json!({}))).await;
            let notes = attachment("notes", "text/plain", b"bytes");
            let attachment = writer.add(&format!("{path}/{artifact}/attachments"), notes).await;
            [("version", version.to_owned()), ("artifact_id", artifact), ("attachment_id", attachment)]
        };
        let published = make("1.0").await;
        let job = writer.publish("debian", "1.0").await;
        writer.put("/v1/images/debian/aliases/latest", json!({"version": "1.0"})).await.ok();
        let uploads = writer.get("/v1/uploads").await.ok();
        let principals = manager.get("/v1/auth/principals").await.ok();
        let principal = id(&principals["principals"][1]);
        let tokens = manager.get(&format!("/v1/auth/principals/{principal}/api-tokens")).await.ok();
        let mut names = BTreeMap::from([
            ("upload_id", id(&uploads["uploads"][0])),
            ("number", "1".to_owned()),
            ("digest", digest(b"bytes")),
            ("image", "debian".to_owned()),
            ("alias", "latest".to_owned()),
            ("reference", "latest".to_owned()),
            ("file", "debian-latest-linux-amd64.qcow2".to_owned()),
            ("job_id", id(&job)),
            ("principal", principal),
            ("role", "content-writer".to_owned()),
            ("token", id(&tokens["api_tokens"][0])),
        ]);
        names.extend(published);
        let mut draft = names.clone();
        draft.extend(make("2.0").await);
        Self { published: names, draft }
    }

    /// What a parameter of a path stands for.
    pub(crate) fn value(&self, parameter: &str) -> String {
        self.published.get(parameter).unwrap_or_else(|| panic!("{parameter}: what does it stand for?")).clone()
    }

    /// The same for what can be edited.
    pub(crate) fn draft(&self, parameter: &str) -> String {
        self.draft[parameter].clone()
    }
}

/// A value that a parameter may have, and nothing has.
pub(crate) fn unknown(parameter: &str) -> String {
    match parameter {
        "upload_id" | "artifact_id" | "attachment_id" | "job_id" => "00000000-0000-4000-8000-000000000000".to_owned(),
        "digest" => digest(b"unknown"),
        "number" => "1".to_owned(),
        "role" => "content-writer".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// A body that an operation takes, where it takes JSON.
pub(crate) fn body(operation: &Operation) -> Option<Value> {
    let body = match operation.id.as_str() {
        "begin_upload" => json!({"expected_digest": digest(b"begun"), "expected_size_bytes": 5}),
        "complete_upload" => json!({"parts": [{"number": 1, "etag": "x", "size_bytes": 5}]}),
        "create_image" => json!({"name": "new"}),
        "create_version" => json!({"version": "3.0"}),
        "add_artifact" => artifact(b"bytes", json!({"variant": "new"})),
        "add_attachment" => attachment("new", "text/plain", b"bytes"),
        "put_alias" => json!({"version": "1.0"}),
        "create_principal" => json!({"kind": "user", "display_name": "new"}),
        "issue_api_token" => json!({"expires_at": "2099-01-01T00:00:00Z"}),
        id => {
            assert!(!operation.takes_json, "{id}: what does it take?");
            return None;
        }
    };
    Some(body)
}

/// Values that break the rule of a parameter, as they stand in a path.
pub(crate) fn forbidden(parameter: &str) -> Vec<String> {
    let values: &[&str] = match parameter {
        // A UUID is written with hyphens and without braces.
        "upload_id" | "artifact_id" | "attachment_id" | "job_id" => {
            &["1", "not-a-uuid", "00000000000040008000000000000000", "%7b00000000-0000-4000-8000-000000000000%7d"]
        }
        "number" => &["0", "10001", "-1", "x", "1.0"],
        "digest" => &["x", "sha256:", "sha256%3a00", &digest(b"").to_uppercase()],
        "image" => &["A", "-a", "..%2f..%2fetc", "a%2fb", "a%20b", &"a".repeat(129)],
        "version" | "reference" => &["-1", ".1", "a%2fb", "a%20b", &"1".repeat(129)],
        "file" => &["-a", ".a", "a%2fb", "a%20b", &"a".repeat(701)],
        "alias" => &["-a", "a+b", "a:b", "a%2fb", &"a".repeat(65)],
        "principal" | "token" => &["a%2fb", "a%20b", &"a".repeat(129)],
        "role" => &["king", "Content-Writer"],
        name => panic!("{name}: what may it be?"),
    };
    values.iter().chain(&["%00", "%c3%a4"]).map(|value| (*value).to_owned()).collect()
}
