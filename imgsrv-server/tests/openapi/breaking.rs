//! What a client of a released specification would stumble over in the current one.
//!
//! The rules are those of the API: what a client sees only grows, what it may send is never less, and the statuses of a
//! success are exact. New words in a list of states are growth.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use imgsrv_server::specification;
use serde_json::{Value, json};

/// Whose values a schema describes.
#[derive(Clone, Copy, PartialEq)]
enum Sent {
    ByClient,
    ByServer,
}

/// The schema itself, where it is told by a reference.
pub(crate) fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    reference.and_then(|path| document.pointer(path.trim_start_matches('#'))).unwrap_or(schema)
}

/// Every change from one document to another that breaks a client, in words.
fn breaking_changes(old: &Value, new: &Value) -> Vec<String> {
    let mut comparison = Comparison { old, new, found: Vec::new() };
    for (path, item) in object(&old["paths"]) {
        for (method, operation) in object(item) {
            let at = format!("{} {path}", method.to_uppercase());
            match new["paths"][path].get(method) {
                Some(now) => comparison.operation(&at, operation, now),
                None => comparison.found.push(format!("{at} is gone")),
            }
        }
    }
    comparison.found
}

struct Comparison<'a> {
    old: &'a Value,
    new: &'a Value,
    found: Vec<String>,
}

impl Comparison<'_> {
    fn check(&mut self, kept: bool, at: &str, what: impl std::fmt::Display) {
        if !kept {
            self.found.push(format!("{at} {what}"));
        }
    }

    fn operation(&mut self, at: &str, old: &Value, new: &Value) {
        self.check(old["operationId"] == new["operationId"], at, "has another operationId");
        let open = |operation: &Value| {
            operation["security"].as_array().is_none_or(|schemes| schemes.is_empty() || schemes.contains(&json!({})))
        };
        self.check(!open(old) || open(new), at, "needs a token");
        self.parameters(at, old, new);
        self.body(at, &old["requestBody"], &new["requestBody"]);
        let successes = |operation: &Value| -> BTreeSet<String> {
            object(&operation["responses"])
                .map(|(status, _)| status.clone())
                .filter(|status| status.as_str() < "4")
                .collect()
        };
        self.check(successes(old) == successes(new), at, "has other statuses of success");
        for (status, response) in object(&old["responses"]) {
            let Some(now) = new["responses"].get(status) else { continue };
            let at = format!("{at}: {status}");
            for (name, _) in object(&response["headers"]) {
                self.check(now["headers"].get(name).is_some(), &at, format!("has lost {name}"));
            }
            self.content(&at, response, now, Sent::ByServer);
        }
    }

    fn parameters(&mut self, at: &str, old: &Value, new: &Value) {
        let list = |operation: &Value| operation["parameters"].as_array().cloned().unwrap_or_default();
        let (old, new) = (list(old), list(new));
        let same = |one: &Value, other: &Value| one["in"] == other["in"] && one["name"] == other["name"];
        for parameter in &new {
            let before = old.iter().find(|before| same(before, parameter));
            let needed = parameter["required"] == true && before.is_none_or(|before| before["required"] != true);
            self.check(!needed, at, format!("needs the parameter {}", parameter["name"]));
        }
        for parameter in &old {
            let at = format!("{at}: the parameter {}", parameter["name"]);
            match new.iter().find(|now| same(now, parameter)) {
                Some(now) => self.schema(&at, &parameter["schema"], &now["schema"], Sent::ByClient),
                None => self.found.push(format!("{at} is gone")),
            }
        }
    }

    fn body(&mut self, at: &str, old: &Value, new: &Value) {
        self.check(new["required"] != true || old["required"] == true, at, "needs a body");
        self.content(&format!("{at}: the body"), old, new, Sent::ByClient);
    }

    fn content(&mut self, at: &str, old: &Value, new: &Value, sent: Sent) {
        for (media_type, content) in object(&old["content"]) {
            match new["content"].get(media_type) {
                Some(now) => self.schema(at, &content["schema"], &now["schema"], sent),
                None => self.found.push(format!("{at} is no longer {media_type}")),
            }
        }
    }

    fn schema(&mut self, at: &str, old: &Value, new: &Value, sent: Sent) {
        let (old, new) = (resolve(self.old, old), resolve(self.new, new));
        for keyword in ["type", "format"] {
            self.check(old[keyword] == new[keyword], at, format!("has another {keyword}"));
        }
        if sent == Sent::ByClient {
            self.limits(at, old, new);
        }
        for word in old["enum"].as_array().into_iter().flatten() {
            let kept = new["enum"].as_array().is_none_or(|words| words.contains(word));
            self.check(kept, at, format!("is never {word}"));
        }
        let required =
            |schema: &Value, name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&name.into()));
        for (name, property) in object(&old["properties"]) {
            let at = format!("{at}: {name}");
            let Some(now) = new["properties"].get(name) else {
                self.found.push(format!("{at} is gone"));
                continue;
            };
            self.schema(&at, property, now, sent);
            self.check(sent == Sent::ByClient || !required(old, name) || required(new, name), &at, "may be missing");
        }
        if sent == Sent::ByClient {
            for (name, _) in object(&new["properties"]) {
                self.check(required(old, name) || !required(new, name), &format!("{at}: {name}"), "is needed");
            }
        }
        if old["items"].is_object() {
            self.schema(&format!("{at}: an item"), &old["items"], &new["items"], sent);
        }
    }

    /// What may be sent is never less.
    fn limits(&mut self, at: &str, old: &Value, new: &Value) {
        // Whether one pattern holds all that another does is more than can be told.
        let pattern = new["pattern"].is_null() || old["pattern"] == new["pattern"];
        self.check(pattern, at, "has another pattern");
        self.check(new["enum"].is_null() || old["enum"].is_array(), at, "is one of a few words");
        for (keyword, grows) in [("maxLength", true), ("maximum", true), ("minLength", false), ("minimum", false)] {
            let kept = match (old[keyword].as_f64(), new[keyword].as_f64()) {
                (Some(old), Some(new)) => (new >= old && grows) || (new <= old && !grows),
                (None, Some(_)) => false,
                (_, None) => true,
            };
            self.check(kept, at, format!("has a narrower {keyword}"));
        }
        let open = |schema: &Value| schema["additionalProperties"] != false;
        self.check(old["type"] != "object" || !open(old) || open(new), at, "refuses unknown members");
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The specification of the last release, `openapi/released/<version>.json`, if there was one.
fn last_release() -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/released");
    let names = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let numbers = |path: &Path| -> Option<Vec<u64>> {
        let version = path.file_name()?.to_str()?.strip_suffix(".json")?;
        version.split('.').map(|number| number.parse().ok()).collect()
    };
    let (_, path) = names.filter_map(|path| Some((numbers(&path)?, path))).max()?;
    Some(serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON"))
}

#[test]
fn nothing_breaks_a_client_of_the_last_release() {
    if let Some(released) = last_release() {
        let found = breaking_changes(&released, &specification());
        assert!(found.is_empty(), "clients of the last release would break:\n{}", found.join("\n"));
    }
}

/// Puts a value where the pointer leads, or takes away what is there.
fn change(document: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let (parent, name) = (document.pointer_mut(parent).expect("a parent"), name.replace("~1", "/"));
    match value {
        Some(value) if parent.is_array() => parent.as_array_mut().expect("a list").push(value),
        Some(value) => parent[name] = value,
        None => assert!(parent.as_object_mut().expect("an object").remove(&name).is_some(), "no {pointer}"),
    }
}

#[test]
fn a_breaking_change_is_found() {
    const IMAGES: &str = "/paths/~1v1~1images/post";
    let document = specification();
    for (pointer, value, expected) in [
        ("/paths/~1v1~1uploads", None, "POST /v1/uploads is gone"),
        (&format!("{IMAGES}/operationId"), Some(json!("make_image")), "POST /v1/images has another operationId"),
        ("/paths/~1v1~1images/get/security", Some(json!([{"bearer": []}])), "GET /v1/images needs a token"),
        (
            "/paths/~1v1~1images/get/parameters/-",
            Some(json!({"in": "query", "name": "tenant", "required": true, "schema": {"type": "string"}})),
            "GET /v1/images needs the parameter \"tenant\"",
        ),
        ("/paths/~1v1~1uploads/get/parameters", None, "GET /v1/uploads: the parameter \"state\" is gone"),
        (&format!("{IMAGES}/responses/200"), Some(json!({})), "POST /v1/images has other statuses of success"),
        (&format!("{IMAGES}/responses/201"), None, "POST /v1/images has other statuses of success"),
        (&format!("{IMAGES}/responses/201/headers/X-Request-ID"), None, "POST /v1/images: 201 has lost X-Request-ID"),
        (
            &format!("{IMAGES}/responses/409/content"),
            Some(json!({"application/json": {}})),
            "POST /v1/images: 409 is no longer application/problem+json",
        ),
        (
            &format!("{IMAGES}/requestBody/content"),
            Some(json!({"application/xml": {}})),
            "POST /v1/images: the body is no longer application/json",
        ),
        (
            "/components/schemas/CreateImage/required/-",
            Some(json!("description")),
            "POST /v1/images: the body: description is needed",
        ),
        (
            "/components/schemas/CreateImage/properties/description",
            None,
            "POST /v1/images: the body: description is gone",
        ),
        ("/components/schemas/Image/required", Some(json!([])), "POST /v1/images: 201: id may be missing"),
        ("/components/schemas/Image/properties/id", None, "GET /v1/images: 200: images: an item: id is gone"),
        ("/components/schemas/Image/properties/id/format", None, "GET /v1/images/{image}: 200: id has another format"),
        (
            "/components/schemas/ImageName/pattern",
            Some(json!("^[a-z]+$")),
            "GET /v1/images/{image}: the parameter \"image\" has another pattern",
        ),
        (
            "/components/schemas/Prose/maxLength",
            Some(json!(80)),
            "POST /v1/images: the body: description has a narrower maxLength",
        ),
        (
            "/components/schemas/BeginUpload/properties/expected_size_bytes/minimum",
            Some(json!(1)),
            "POST /v1/uploads: the body: expected_size_bytes has a narrower minimum",
        ),
        (
            "/components/schemas/JobState/enum",
            Some(json!(["queued", "running", "failed"])),
            "GET /v1/publish-jobs/{job_id}: 200: state is never \"succeeded\"",
        ),
    ] {
        let mut changed = document.clone();
        change(&mut changed, pointer, value);
        let found = breaking_changes(&document, &changed);
        assert!(found.iter().any(|found| found == expected), "{pointer}: {found:#?}");
    }
}

#[test]
fn growth_breaks_nobody() {
    let document = specification();
    assert_eq!(breaking_changes(&document, &document), Vec::<String>::new());
    for (pointer, value) in [
        ("/paths/~1v2", Some(json!({"get": {"operationId": "get_v2"}}))),
        ("/paths/~1v1~1images/get/parameters/-", Some(json!({"in": "query", "name": "tenant", "required": false}))),
        ("/paths/~1v1~1images/get/responses/429", Some(json!({"description": "Too many"}))),
        ("/paths/~1v1~1images/get/responses/404", Some(json!({"description": "Gone"}))),
        ("/paths/~1v1~1uploads/post/security", Some(json!([{"bearer": []}, {}]))),
        ("/components/schemas/CreateImage/properties/tenant", Some(json!({"type": "string"}))),
        ("/components/schemas/Image/properties/tenant", Some(json!({"type": "string"}))),
        ("/components/schemas/JobState/enum/-", Some(json!("abandoned"))),
        ("/components/schemas/ImageName/pattern", None),
        ("/components/schemas/Prose/maxLength", Some(json!(16000))),
        ("/components/schemas/CreateImage/additionalProperties", None),
    ] {
        let mut changed = document.clone();
        change(&mut changed, pointer, value);
        assert_eq!(breaking_changes(&document, &changed), Vec::<String>::new(), "{pointer}");
    }
}
