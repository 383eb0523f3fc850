//! The specification is what was agreed on, and says of every operation what a client needs to know.

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

/// Every operation with its path and method.
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
        assert!(operation["summary"].is_string(), "{name} has no summary");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name} has no tag");
    }
}

#[test]
fn every_operation_asks_for_a_token_or_is_listed() {
    let document = specification();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        assert_eq!(operation["security"].is_array(), !ANONYMOUS.contains(&id), "{name}");
    }
}

#[test]
fn every_operation_lists_its_problems_one_by_one() {
    let document = specification();
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().expect("responses");
        assert!(!responses.contains_key("default"), "{name}");
        for required in ["500", "503"] {
            assert!(responses.contains_key(required), "{name} has no {required}");
        }
        let (problems, successes): (Vec<_>, Vec<_>) =
            responses.iter().partition(|(status, _)| status.starts_with(['4', '5']));
        assert!(!successes.is_empty(), "{name} never succeeds");
        for (status, response) in problems {
            assert_eq!(
                response["content"]["application/problem+json"]["schema"]["$ref"], "#/components/schemas/Problem",
                "{name} {status}"
            );
        }
        let mandatory_token = operation["security"].as_array().is_some_and(|schemes| schemes.len() == 1);
        assert!(!mandatory_token || ["401", "403"].iter().all(|status| responses.contains_key(*status)), "{name}");
        assert!(!name.contains('{') || ["400", "404"].iter().all(|status| responses.contains_key(*status)), "{name}");
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
