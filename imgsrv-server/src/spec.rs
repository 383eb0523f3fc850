//! The specification: what the framework generates, made to say all that is so.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use poem::http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::api;

/// What an operation can refuse beside what follows from its shape: uniqueness, states, ranges.
const REFUSALS: &[(&str, &[u16])] = &[
    ("begin_upload", &[412]),
    ("put_part", &[412]),
    ("complete_upload", &[412]),
    ("abort_upload", &[412]),
    ("read_blob", &[412, 416]),
    ("create_image", &[409]),
    ("delete_image", &[412]),
    ("create_version", &[409]),
    ("list_versions", &[401, 403]),
    ("delete_draft", &[412]),
    ("publish_version", &[412]),
    ("add_artifact", &[409, 412]),
    ("remove_artifact", &[412]),
    ("download_artifact", &[412, 416]),
    ("add_attachment", &[409, 412]),
    ("remove_attachment", &[412]),
    ("download_attachment", &[412, 416]),
    ("download_file", &[412, 416]),
    ("put_alias", &[412]),
    ("retry_job", &[412]),
    ("abandon_job", &[412]),
    ("unassign_role", &[412]),
    ("revoke_api_token", &[412]),
];

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| finish(serde_json::from_str(&api::service().spec()).unwrap_or_default()));
static TEXT: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_string());
static METHODS: LazyLock<Vec<(String, HeaderValue)>> = LazyLock::new(|| methods(&DOCUMENT));

/// The specification.
pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// The specification as it is served.
pub(crate) fn text() -> &'static str {
    &TEXT
}

/// The methods that a path knows, for the `Allow` of a 405.
pub(crate) fn allowed_methods(path: &str) -> Option<HeaderValue> {
    METHODS.iter().find(|(template, _)| matches(template, path)).map(|(_, methods)| methods.clone())
}

fn matches(template: &str, path: &str) -> bool {
    let (mut expected, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return true,
            (Some(expected), Some(given)) if expected == given => {}
            (Some(parameter), Some(given)) if parameter.starts_with('{') && !given.is_empty() => {}
            _ => return false,
        }
    }
}

fn methods(document: &Value) -> Vec<(String, HeaderValue)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .filter_map(|(path, operations)| {
            let mut methods: Vec<String> = operations.as_object()?.keys().map(|method| method.to_uppercase()).collect();
            if methods.iter().any(|method| method == "GET") {
                methods.push("HEAD".to_owned());
            }
            Some((path.clone(), HeaderValue::try_from(methods.join(", ")).ok()?))
        })
        .collect()
}

/// Makes the generated document say what the framework does not: which problems an operation answers with, that
/// requests deny unknown members, and the media types that are really sent.
fn finish(mut document: Value) -> Value {
    if document["servers"].as_array().is_some_and(Vec::is_empty)
        && let Some(root) = document.as_object_mut()
    {
        root.remove("servers");
    }
    if let Some(paths) = document["paths"].as_object_mut()
        && let Some(directory) = paths.remove("/d/{image}/{reference}")
    {
        paths.insert("/d/{image}/{reference}/".to_owned(), directory);
    }
    let mut requests = BTreeSet::new();
    for item in document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        for operation in item.as_object_mut().into_iter().flat_map(|item| item.values_mut()) {
            collect_schemas(&operation["requestBody"], &mut requests);
            list_problems(operation);
            restore_header_names(operation);
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        deny_unknown_members(schemas, requests);
    }
    tidy(&mut document);
    document
}

/// Replaces the `default` answer of a fallible operation by one for each status that it can have.
fn list_problems(operation: &mut Value) {
    let statuses = problem_statuses(operation);
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    let Some(problem) = responses.remove("default") else { return };
    for status in statuses {
        let mut response = problem.clone();
        response["description"] =
            StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Problem").into();
        responses.insert(status.to_string(), response);
    }
}

fn problem_statuses(operation: &Value) -> BTreeSet<u16> {
    let mut statuses = BTreeSet::from([500, 503]);
    let alternatives = operation["security"].as_array().map_or(&[][..], Vec::as_slice);
    let anonymous_too = |alternative: &Value| alternative.as_object().is_some_and(Map::is_empty);
    if !alternatives.is_empty() && !alternatives.iter().any(anonymous_too) {
        statuses.extend([401, 403]);
    }
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        statuses.insert(400);
        if parameter["in"] == "path" {
            statuses.insert(404);
        }
    }
    if operation["requestBody"].is_object() {
        statuses.insert(400);
        // Bytes are taken whatever their type, and up to a size that 400 speaks of.
        if operation["requestBody"]["content"].get("application/octet-stream").is_none() {
            statuses.extend([413, 415]);
        }
    }
    let refusals = REFUSALS.iter().find(|(id, _)| operation["operationId"] == *id);
    statuses.extend(refusals.into_iter().flat_map(|(_, statuses)| statuses.iter()));
    statuses
}

/// The framework shouts the names of headers.
fn restore_header_names(operation: &mut Value) {
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        if parameter["in"] == "header"
            && let Some(name) = parameter["name"].as_str()
        {
            let words: Vec<String> = name.split('-').map(capitalised).collect();
            parameter["name"] = words.join("-").into();
        }
    }
}

fn capitalised(word: &str) -> String {
    let mut word = word.to_ascii_lowercase();
    if let Some(first) = word.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    word
}

/// The names of the component schemas that a part of the document refers to.
fn collect_schemas(value: &Value, names: &mut BTreeSet<String>) {
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
fn deny_unknown_members(schemas: &mut Map<String, Value>, requests: BTreeSet<String>) {
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

/// Media types as they are sent, whole numbers without a fraction, and a described reference that stays one: generators
/// take `allOf` of a reference and something else for a new type.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(content) = members.remove("application/json; charset=utf-8") {
                members.insert("application/json".to_owned(), content);
            }
            let repeated = json!({"description": members.get("description")});
            if let Some(all_of) = members.get_mut("allOf").and_then(Value::as_array_mut) {
                all_of.retain(|schema| *schema != repeated);
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            #[expect(clippy::cast_possible_truncation, reason = "only what survives it is replaced")]
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
            {
                *value = json!(float as i64);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_405_says_what_the_path_knows() {
        let allowed = |path| allowed_methods(path).map(|value| value.to_str().unwrap_or_default().to_owned());
        assert_eq!(allowed("/v1/images").as_deref(), Some("GET, POST, HEAD"));
        assert_eq!(allowed("/v1/images/debian/aliases/latest").as_deref(), Some("DELETE, GET, PUT, HEAD"));
        assert_eq!(allowed("/v1/uploads/x/parts/1").as_deref(), Some("PUT"));
        assert_eq!(allowed("/v1/images/"), None);
        assert_eq!(allowed("/nowhere"), None);
    }

    #[test]
    fn every_listed_refusal_is_of_an_operation() {
        let ids: BTreeSet<&str> = document()["paths"]
            .as_object()
            .into_iter()
            .flat_map(|paths| paths.values())
            .flat_map(|item| item.as_object().into_iter().flat_map(|item| item.values()))
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        for (id, _) in REFUSALS {
            assert!(ids.contains(id), "{id}");
        }
    }

    #[test]
    fn no_object_is_both_asked_for_and_answered() {
        let (mut requests, mut answers) = (BTreeSet::new(), BTreeSet::new());
        for item in document()["paths"].as_object().into_iter().flat_map(|paths| paths.values()) {
            for operation in item.as_object().into_iter().flat_map(|item| item.values()) {
                collect_schemas(&operation["requestBody"], &mut requests);
                collect_schemas(&operation["responses"], &mut answers);
            }
        }
        assert!(!requests.is_empty());
        let shared: Vec<&String> = requests.intersection(&answers).collect();
        assert!(shared.is_empty(), "clients must bear unknown members of answers: {shared:?}");
    }
}
