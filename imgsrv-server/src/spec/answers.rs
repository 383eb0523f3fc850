//! What an operation answers with: each problem that it can have, and the headers that every answer carries.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// What an operation can refuse beside what follows from its shape: uniqueness, states, ranges.
pub(super) const REFUSALS: &[(&str, &[u16])] = &[
    ("begin_upload", &[412]),
    ("put_part", &[412]),
    ("complete_upload", &[412]),
    ("abort_upload", &[412]),
    ("read_blob", &[412, 416]),
    ("create_image", &[409]),
    ("delete_image", &[412]),
    ("create_version", &[409]),
    ("list_versions", &[401, 403, 429]),
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
    // Where a program that embeds the server shows none.
    ("get_streams_index", &[404]),
    ("get_streams_images", &[404]),
];

/// Operations that ask neither the database nor the store, so they are never unavailable.
pub(super) const SELF_CONTAINED: &[&str] = &["check_health", "get_specification", "browse_specification"];

/// The headers of answers that are the same wherever they stand.
pub(super) fn headers() -> Value {
    let header =
        |description: &str, schema: Value| json!({"description": description, "required": true, "schema": schema});
    let text = |example: &str| json!({"type": "string", "example": example});
    json!({
        "RequestId": header(
            "The request's own `X-Request-ID` where it was usable, else a fresh UUID: what the server's log calls it.",
            json!({"type": "string", "minLength": 1, "maxLength": 128, "example": "018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11"}),
        ),
        "NotStored": header("Only for who asked, and only now.", text("private, no-store")),
        "ProblemNotStored": header("Problems are never kept.", text("no-store")),
        "VaryByToken": header("What is shown depends on the token.", text("Authorization")),
        "WwwAuthenticate": header("How to authenticate.", text("Bearer")),
        "RetryAfter": header(
            "After how many seconds to try again.",
            json!({"type": "integer", "format": "int32", "minimum": 1, "example": 5}),
        ),
        "UnsatisfiedRange": header("How many bytes there are.", text("bytes */20971520")),
    })
}

/// Replaces the `default` answer of a fallible operation by one for each status that it can have.
pub(super) fn list_problems(path: &str, operation: &mut Value) {
    let statuses = problem_statuses(operation);
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    let Some(problem) = responses.remove("default") else { return };
    for status in statuses {
        let mut response = problem.clone();
        response["description"] = meaning(status, path).into();
        let header = match status {
            401 => Some(("WWW-Authenticate", "WwwAuthenticate")),
            416 => Some(("Content-Range", "UnsatisfiedRange")),
            429 | 503 => Some(("Retry-After", "RetryAfter")),
            _ => None,
        };
        if let Some((name, component)) = header {
            response["headers"] = json!({name: reference(component)});
        }
        responses.insert(status.to_string(), response);
    }
}

fn problem_statuses(operation: &Value) -> BTreeSet<u16> {
    let is = |id: &&str| operation["operationId"] == **id;
    let mut statuses = BTreeSet::from([500]);
    if !SELF_CONTAINED.iter().any(is) {
        statuses.insert(503);
    }
    let alternatives = operation["security"].as_array().map_or(&[][..], Vec::as_slice);
    let anonymous_too = |alternative: &Value| alternative.as_object().is_some_and(Map::is_empty);
    if !alternatives.is_empty() && !alternatives.iter().any(anonymous_too) {
        statuses.extend([401, 403, 429]);
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
    let refusals = REFUSALS.iter().find(|(id, _)| is(id));
    statuses.extend(refusals.into_iter().flat_map(|(_, statuses)| statuses.iter()));
    statuses
}

fn meaning(status: u16, path: &str) -> &'static str {
    match status {
        400 => "A value of the request breaks a rule, which `detail` and `errors` tell",
        401 => "There is no valid token",
        403 if path.starts_with("/v1/auth/") => "The token does not allow `auth.manage`",
        403 => "The token does not allow `content.write`",
        404 => "There is no such thing, or not for whoever asks",
        409 => "The name is taken",
        412 => "The state or the content does not allow it",
        413 => "The body has more than 1 MiB",
        415 => "The body is not JSON",
        416 => "No byte is in the range",
        429 => "The token is not valid, and there were many such from this address",
        503 => "Something that this needs does not answer now, or is full",
        _ => "The server failed; its log knows the request by its id",
    }
}

/// What the server adds to every answer on its way out.
pub(super) fn list_common_headers(operation: &mut Value) {
    let by_token = operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if response["description"] == "" {
            response["description"] = "Done, and this is how it is now".into();
        }
        let is_problem = status.starts_with(['4', '5']);
        let Some(response) = response.as_object_mut() else { continue };
        let headers = response.entry("headers").or_insert_with(|| json!({}));
        let Some(headers) = headers.as_object_mut() else { continue };
        let mut add = |name: &str, component| {
            headers.entry(name).or_insert_with(|| reference(component));
        };
        add("X-Request-ID", "RequestId");
        add("Cache-Control", if is_problem { "ProblemNotStored" } else { "NotStored" });
        if by_token {
            add("Vary", "VaryByToken");
        }
    }
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{component}")})
}
