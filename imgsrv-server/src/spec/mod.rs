//! The specification: what the framework generates, made to say all that is so.

mod answers;
mod links;
mod requests;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use imgsrv_core::model::{Text as _, Variant};
use poem::http::HeaderValue;
use serde_json::{Value, json};

use crate::api;

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
    // A directory has its methods without the slash too.
    let is =
        |template: &str| matches(template, path) || template.strip_suffix('/').is_some_and(|bare| matches(bare, path));
    METHODS.iter().find(|(template, _)| is(template)).map(|(_, methods)| methods.clone())
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

/// Makes the generated document say what the framework does not: which problems an operation answers with, the headers
/// both ways, what can follow it, that requests deny unknown members, and the media types that are really sent.
fn finish(mut document: Value) -> Value {
    if let Some(paths) = document["paths"].as_object_mut()
        && let Some(directory) = paths.remove("/d/{image}/{reference}")
    {
        paths.insert("/d/{image}/{reference}/".to_owned(), directory);
    }
    let mut requests = BTreeSet::new();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for operation in item.as_object_mut().into_iter().flat_map(|item| item.values_mut()) {
            requests::collect_schemas(&operation["requestBody"], &mut requests);
            if operation["security"].is_null() {
                operation["security"] = json!([]);
            }
            answers::list_problems(path, operation);
            answers::list_common_headers(operation);
            requests::list_headers(operation);
            requests::allow_no_bytes(operation);
            links::list_links(operation);
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        requests::deny_unknown_members(schemas, requests);
        if let Some(problem) = schemas.get_mut("Problem") {
            describe_problem(problem);
        }
        if let Some(artifact) = schemas.get_mut("AddArtifact") {
            describe_artifact(&mut artifact["properties"]);
        }
    }
    document["components"]["headers"] = answers::headers();
    tidy(&mut document);
    document
}

fn describe_problem(schema: &mut Value) {
    schema["properties"]["type"]["format"] = "uri".into();
    schema["example"] = json!({
        "type": "urn:imgsrv:problem:not-found", "title": "Not found", "status": 404,
        "detail": "there is no image debian", "instance": "018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11",
    });
}

/// What is told of members that the handler reads as plain texts.
fn describe_artifact(members: &mut Value) {
    let variant = Variant::PATTERN.trim_start_matches('^').trim_end_matches('$');
    members["variant"]["pattern"] = format!("^({variant})?$").into();
    members["requirements"]["maxProperties"] = 64.into();
    let value = &mut members["requirements"]["additionalProperties"];
    value["pattern"] = "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,255}$".into();
}

/// Media types as they are sent, whole numbers without a fraction, nothing that goes without saying, and a described
/// reference that stays one: generators take `allOf` of a reference and something else for a new type.
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
            members.retain(|name, value| name != "deprecated" || *value != json!(false));
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
    use super::requests::collect_schemas;
    use super::*;

    #[test]
    fn a_405_says_what_the_path_knows() {
        let allowed = |path| allowed_methods(path).map(|value| value.to_str().unwrap_or_default().to_owned());
        assert_eq!(allowed("/v1/images").as_deref(), Some("GET, POST, HEAD"));
        assert_eq!(allowed("/v1/images/debian/aliases/latest").as_deref(), Some("DELETE, GET, PUT, HEAD"));
        assert_eq!(allowed("/v1/uploads/x/parts/1").as_deref(), Some("PUT"));
        assert_eq!(allowed("/d/debian/latest").as_deref(), Some("GET, HEAD"));
        assert_eq!(allowed("/v1/images/"), None);
        assert_eq!(allowed("/nowhere"), None);
    }

    #[test]
    fn every_listed_operation_is_there() {
        let ids: BTreeSet<&str> = document()["paths"]
            .as_object()
            .into_iter()
            .flat_map(|paths| paths.values())
            .flat_map(|item| item.as_object().into_iter().flat_map(|item| item.values()))
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        for id in answers::REFUSALS.iter().map(|(id, _)| id).chain(answers::SELF_CONTAINED) {
            assert!(ids.contains(id), "{id}");
        }
    }

    #[test]
    fn every_link_leads_to_an_operation_and_gives_what_its_path_needs() {
        let operations = || {
            let items = document()["paths"].as_object().into_iter().flat_map(|paths| paths.values());
            items.flat_map(|item| item.as_object().into_iter().flat_map(|item| item.values()))
        };
        let find = |id: &str| operations().find(|operation| operation["operationId"] == id).unwrap_or(&Value::Null);
        let path_parameters = |operation: &Value| -> BTreeSet<String> {
            let all = operation["parameters"].as_array().into_iter().flatten();
            all.filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
                .collect()
        };
        for (from, following, sources) in links::LINKS {
            let known = path_parameters(find(from));
            for (_, source) in *sources {
                let given = source.strip_prefix("$request.path.").is_none_or(|name| known.contains(name));
                assert!(given, "{from}: {source}");
            }
            let given: BTreeSet<String> = sources.iter().map(|(name, _)| (*name).to_owned()).collect();
            for next in *following {
                let mut needed = path_parameters(find(next));
                // What the client itself chooses.
                needed.retain(|name| !["alias", "number", "role"].contains(&name.as_str()) || given.contains(name));
                assert_eq!(needed, given, "{from} to {next}");
            }
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
