//! The specification is what was agreed on, and says of every operation what a client needs to know.

mod breaking;

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use imgsrv_server::specification;
use serde_json::Value;

/// Operations that know no tokens.
const ANONYMOUS: &[&str] = &[
    "get_upload",
    "download_artifact",
    "download_attachment",
    "resolve",
    "list_files",
    "download_file",
    "get_streams_index",
    "get_streams_images",
    "check_health",
    "check_readiness",
    "get_specification",
    "browse_specification",
];

/// Every operation with its method and path.
fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().expect("a path item");
        operations.iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

#[test]
fn the_specification_is_the_golden_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/imgsrv.json");
    let current = specification();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&current).expect("a document serialises");
        fs::write(&path, text + "\n").expect("the golden file can be written");
        return;
    }
    let text = fs::read_to_string(&path).expect("the golden file; UPDATE_GOLDEN=1 writes it");
    let golden: Value = serde_json::from_str(&text).expect("the golden file is JSON");
    assert!(golden == current, "the specification changed; look at the difference after UPDATE_GOLDEN=1 wrote it");
}

#[test]
fn every_operation_has_an_id_a_tag_and_a_summary() {
    let document = specification();
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{id}");
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        for text in ["summary", "description"] {
            assert!(operation[text].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {text}");
        }
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name} has no tag");
    }
}

#[test]
fn every_operation_asks_for_a_token_or_is_listed() {
    let document = specification();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        let schemes = operation["security"].as_array().unwrap_or_else(|| panic!("{name} leaves it open"));
        assert_eq!(schemes.is_empty(), ANONYMOUS.contains(&id), "{name}");
    }
}

#[test]
fn every_operation_lists_its_problems_one_by_one() {
    let document = specification();
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().expect("responses");
        assert!(!responses.contains_key("default") && !responses.contains_key("405"), "{name}");
        let (problems, successes): (Vec<_>, Vec<_>) =
            responses.iter().partition(|(status, _)| status.starts_with(['4', '5']));
        assert!(!successes.is_empty(), "{name} never succeeds");
        for (status, response) in problems {
            let content = response["content"].as_object().expect("content");
            assert_eq!(content.len(), 1, "{name} {status}");
            let schema = &content["application/problem+json"]["schema"];
            assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{name} {status}");
        }
        let lists = |statuses: &[&str]| statuses.iter().all(|status| responses.contains_key(*status));
        assert!(lists(&["500"]), "{name}");
        assert!(
            operation["security"].as_array().map(Vec::len) != Some(1) || lists(&["401", "403", "429", "503"]),
            "{name}"
        );
        assert!(!name.contains('{') || lists(&["400", "404", "503"]), "{name}");
        assert!(operation["requestBody"].is_null() || lists(&["400", "503"]), "{name}");
    }
}

#[test]
fn every_answer_lists_its_headers() {
    let document = specification();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
            let headers = &response["headers"];
            let mut expected = vec!["X-Request-ID", "Cache-Control"];
            expected.extend(match status.as_str() {
                "206" => &["ETag", "Content-Range"][..],
                "302" => &["Location"],
                "304" => &["ETag"],
                "401" => &["WWW-Authenticate"],
                "416" => &["Content-Range"],
                "429" | "503" => &["Retry-After"],
                _ => &[],
            });
            for header in expected {
                assert!(headers[header].is_object(), "{name} {status}: {header}");
            }
        }
    }
}

#[test]
fn every_value_has_a_standard_format_and_is_never_null() {
    fn walk(value: &Value) {
        match value {
            Value::Object(members) => {
                assert!(!members.contains_key("nullable"), "{value}");
                if let Some(format) = members.get("format").and_then(Value::as_str) {
                    let standard = ["int32", "int64", "date-time", "uuid", "binary", "uri"];
                    assert!(standard.contains(&format), "{format}");
                }
                members.values().for_each(walk);
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    walk(&specification());
}

#[test]
fn every_parameter_has_an_example_or_a_list_of_words() {
    let document = specification();
    for (name, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let schema = breaking::resolve(&document, &parameter["schema"]);
            assert!(schema.get("example").or(schema.get("enum")).is_some(), "{name}: {}", parameter["name"]);
        }
    }
}

#[test]
fn every_tag_is_described() {
    let document = specification();
    let described = |tag: &&Value| tag["description"].as_str().is_some_and(|text| !text.is_empty());
    let tags = document["tags"].as_array().expect("tags").iter().filter(described);
    let tags: BTreeSet<_> = tags.filter_map(|tag| tag["name"].as_str()).collect();
    for (name, operation) in operations(&document) {
        assert!(tags.contains(operation["tags"][0].as_str().unwrap_or_default()), "{name}");
    }
}

#[test]
fn what_is_asked_for_denies_unknown_members() {
    let document = specification();
    for (name, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if let Some(reference) = schema["$ref"].as_str() {
            let component = &document["components"]["schemas"][reference.rsplit('/').next().unwrap_or_default()];
            assert_eq!(component["additionalProperties"], false, "{name}");
        }
    }
}

#[test]
fn every_name_and_size_has_its_rule() {
    let document = specification();
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["ImageName"]["pattern"], "^[a-z0-9][a-z0-9._-]{0,127}$");
    assert_eq!(schemas["Digest"]["pattern"], "^sha256:[0-9a-f]{64}$");
    assert_eq!(schemas["VersionState"]["enum"], serde_json::json!(["draft", "publishing", "published"]));
    let size = &schemas["BeginUpload"]["properties"]["expected_size_bytes"];
    assert_eq!((&size["format"], &size["minimum"]), (&"int64".into(), &0.into()));
}
