//! What a request may carry beyond what its handler's signature tells.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::content_digest;

/// A header that a request may carry: its name, what it does, and an example.
type Header = (&'static str, &'static str, &'static str);

const ETAG: &str = "\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"";

/// What every answer with an ETag heeds.
const IF_NONE_MATCH: Header =
    ("If-None-Match", "The ETags that the client has: 304 where the current one is among them.", ETAG);

/// What a download heeds as well.
const OF_RANGES: &[Header] = &[
    ("If-Match", "The ETags that will do: 412 where the current one is not among them.", ETAG),
    (
        "If-Range",
        "The ETag, or the date, of what the client has a part of: `Range` is heeded for no other bytes.",
        ETAG,
    ),
    ("Range", "One range of bytes: `bytes=a-b`, `bytes=a-` or `bytes=-n` (RFC 9110 §14).", "bytes=0-1048575"),
];

/// What bytes may come with.
const CONTENT_DIGEST: Header = (
    content_digest::HEADER,
    "`sha-256=:<base64>:` (RFC 9530), checked against the bytes; other algorithms are ignored.",
    "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
);

/// Lists the headers that the answers of the operation depend on.
pub(super) fn list_headers(operation: &mut Value) {
    let answers = |status| operation["responses"].get(status).is_some();
    let mut headers = Vec::new();
    if operation["requestBody"]["content"].get("application/octet-stream").is_some() {
        headers.push(CONTENT_DIGEST);
    }
    if answers("304") {
        headers.push(IF_NONE_MATCH);
    }
    if answers("206") {
        headers.extend(OF_RANGES);
    }
    if headers.is_empty() {
        return;
    }
    let Some(operation) = operation.as_object_mut() else { return };
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    let listed = headers.into_iter().map(|(name, description, example)| {
        json!({
            "name": name, "in": "header", "required": false, "description": description,
            "schema": {"type": "string", "example": example},
        })
    });
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.extend(listed);
    }
}

/// A body of bytes may be empty, and then there is none.
pub(super) fn allow_no_bytes(operation: &mut Value) {
    if operation["requestBody"]["content"].get("application/octet-stream").is_some() {
        operation["requestBody"]["required"] = false.into();
    }
}

/// The names of the component schemas that a part of the document refers to.
pub(super) fn collect_schemas(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
            names.extend(name.map(str::to_owned));
            members.values().for_each(|member| collect_schemas(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_schemas(item, names)),
        _ => {}
    }
}

/// Every object of a request, however deep, is read by a type that denies what it does not know.
pub(super) fn deny_unknown_members(schemas: &mut Map<String, Value>, requests: BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<String> = requests.into_iter().collect();
    while let Some(name) = waiting.pop() {
        let Some(schema) = schemas.get_mut(&name) else { continue };
        if schema["type"] == "object" && schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = json!(false);
        }
        let mut inner = BTreeSet::new();
        collect_schemas(schema, &mut inner);
        seen.insert(name);
        waiting.extend(inner.into_iter().filter(|name| !seen.contains(name)));
    }
}
