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
            let schemes = operation["security"].as_array();
            let anybody_too = |schemes: &Vec<Value>| schemes.iter().any(|one| one == &json!({}));
            let who = match schemes {
                None => Who::Anybody,
                Some(schemes) if anybody_too(schemes) => Who::Readers,
                Some(_) if path.starts_with("/v1/auth/") => Who::Managers,
                Some(_) => Who::Writers,
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
pub(crate) struct World(BTreeMap<&'static str, String>);

impl World {
    /// A published version with all that one can have.
    pub(crate) async fn make(server: &Server) -> Self {
        let (manager, writer) = (server.manager(), server.writer().await);
        writer.upload(b"bytes").await;
        writer.post("/v1/images", json!({"name": "debian"})).await.created();
        writer.post("/v1/images/debian/versions", json!({"version": "1.0"})).await.created();
        let path = "/v1/images/debian/versions/1.0/artifacts";
        let artifact = writer.add(path, artifact(b"bytes", json!({}))).await;
        let attachment = attachment("notes", "text/plain", b"bytes");
        let attachment = writer.add(&format!("{path}/{artifact}/attachments"), attachment).await;
        let job = writer.publish("debian", "1.0").await;
        writer.put("/v1/images/debian/aliases/latest", json!({"version": "1.0"})).await.ok();
        let uploads = writer.get("/v1/uploads").await.ok();
        let principals = manager.get("/v1/auth/principals").await.ok();
        let principal = id(&principals["principals"][1]);
        let tokens = manager.get(&format!("/v1/auth/principals/{principal}/api-tokens")).await.ok();
        Self(BTreeMap::from([
            ("upload_id", id(&uploads["uploads"][0])),
            ("number", "1".to_owned()),
            ("digest", digest(b"bytes")),
            ("image", "debian".to_owned()),
            ("version", "1.0".to_owned()),
            ("artifact_id", artifact),
            ("attachment_id", attachment),
            ("alias", "latest".to_owned()),
            ("reference", "latest".to_owned()),
            ("job_id", id(&job)),
            ("principal", principal),
            ("role", "content-writer".to_owned()),
            ("token", id(&tokens["api_tokens"][0])),
        ]))
    }

    /// What a parameter of a path stands for.
    pub(crate) fn value(&self, parameter: &str) -> String {
        self.0.get(parameter).unwrap_or_else(|| panic!("{parameter}: what does it stand for?")).clone()
    }
}
