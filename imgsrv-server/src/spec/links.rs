//! What an answer gives for the requests that follow it.

use serde_json::{Value, json};

/// A parameter of the operation that follows, and where its value stands.
type Source = (&'static str, &'static str);

const IMAGE: Source = ("image", "$request.path.image");
const VERSION: Source = ("version", "$request.path.version");
const ARTIFACT: Source = ("artifact_id", "$request.path.artifact_id");
const PRINCIPAL: Source = ("principal", "$request.path.principal");

/// An operation, what can follow it, and with which parameters.
pub(super) const LINKS: &[(&str, &[&str], &[Source])] = &[
    (
        "begin_upload",
        &["get_upload", "put_part", "list_parts", "complete_upload", "abort_upload"],
        &[("upload_id", "$response.body#/id")],
    ),
    ("put_part", &["list_parts", "complete_upload", "abort_upload"], &[("upload_id", "$response.body#/upload_id")]),
    (
        "create_image",
        &["get_image", "delete_image", "create_version", "list_versions", "list_aliases"],
        &[("image", "$response.body#/name")],
    ),
    (
        "create_version",
        &["get_manifest", "delete_draft", "add_artifact", "list_artifacts", "publish_version"],
        &[IMAGE, ("version", "$response.body#/version")],
    ),
    (
        "add_artifact",
        &["get_artifact", "remove_artifact", "download_artifact", "add_attachment"],
        &[IMAGE, VERSION, ("artifact_id", "$response.body#/id")],
    ),
    ("add_artifact", &["publish_version"], &[IMAGE, VERSION]),
    (
        "add_attachment",
        &["remove_attachment", "download_attachment"],
        &[IMAGE, VERSION, ARTIFACT, ("attachment_id", "$response.body#/id")],
    ),
    ("publish_version", &["get_job", "retry_job", "abandon_job"], &[("job_id", "$response.body#/id")]),
    ("publish_version", &["put_alias"], &[IMAGE]),
    ("publish_version", &["resolve", "list_files"], &[IMAGE, ("reference", "$request.path.version")]),
    ("put_alias", &["get_alias", "delete_alias"], &[IMAGE, ("alias", "$response.body#/alias")]),
    ("put_alias", &["resolve", "list_files"], &[IMAGE, ("reference", "$response.body#/alias")]),
    ("resolve", &["get_manifest", "list_artifacts"], &[IMAGE, ("version", "$response.body#/version")]),
    (
        "create_principal",
        &["get_principal", "assign_role", "issue_api_token", "list_api_tokens"],
        &[("principal", "$response.body#/id")],
    ),
    ("assign_role", &["unassign_role"], &[PRINCIPAL, ("role", "$request.path.role")]),
    ("issue_api_token", &["revoke_api_token"], &[("token", "$response.body#/id")]),
];

/// Links every success of the operation that says something new to what can follow it.
pub(super) fn list_links(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    for (_, following, sources) in LINKS.iter().filter(|(from, ..)| *from == id) {
        let parameters: Value = sources.iter().map(|(name, from)| ((*name).to_owned(), json!(from))).collect();
        for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            if !status.starts_with('2') {
                continue;
            }
            for next in *following {
                response["links"][next] = json!({"operationId": next, "parameters": parameters});
            }
        }
    }
}
