//! What the specification promises of an answer: every story also checks that it says the whole truth.

use std::sync::LazyLock;

use reqwest::Method;
use serde_json::Value;

use super::Answer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(imgsrv_server::specification);

/// The answer has a status that its operation lists, with the headers and the type that are said to come with it.
pub(super) fn check(answer: &Answer, method: &Method) {
    let Some(operation) = operation(&answer.path, method) else { return };
    let (id, status) = (&operation["operationId"], answer.status.as_u16());
    let response = operation["responses"].get(status.to_string());
    let response = response.unwrap_or_else(|| panic!("{id} does not list {status}: {}", answer.text()));
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let header = header["$ref"].as_str().and_then(|path| DOCUMENT.pointer(&path[1..])).unwrap_or(header);
        assert!(header["required"] != true || answer.headers.contains_key(name), "{id} {status}: no {name}");
    }
    let given = answer.header("content-type").split(';').next().unwrap_or_default();
    let types: Vec<&String> = response["content"].as_object().into_iter().flat_map(|content| content.keys()).collect();
    let promised = types.iter().any(|listed| *listed == given || *listed == "application/octet-stream");
    assert!(promised || (types.is_empty() && given.is_empty()), "{id} {status}: {given} is none of {types:?}");
}

fn operation(path: &str, method: &Method) -> Option<&'static Value> {
    let method = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let paths = DOCUMENT["paths"].as_object()?;
    paths.iter().find(|(template, _)| fits(template, path)).and_then(|(_, item)| item.get(method))
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let fits =
        |(expected, given): (&&str, &&str)| expected == given || (expected.starts_with('{') && !given.is_empty());
    template.len() == path.len() && template.iter().zip(&path).all(fits)
}
