//! Who may call what: every operation of the specification that asks for a token, whatever else is wrong with the call.

use reqwest::Method;

use crate::server::{Answer, Api, Server, send};

/// A call of an operation in which everything but the token may be wrong.
async fn call(api: &Api, method: &str, path: &str) -> Answer {
    let path = path
        .split('/')
        .map(|segment| if segment.starts_with('{') { "%2f..%00" } else { segment })
        .collect::<Vec<_>>()
        .join("/");
    let method: Method = method.to_uppercase().parse().expect("a method");
    let request = api.request(method.clone(), &path);
    send(if method == Method::GET { request } else { request.body("{\"no such member\": ") }).await
}

/// The operations that need a token, and the role that they ask for.
fn protected() -> Vec<(String, String, &'static str)> {
    let document = imgsrv_server::specification();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let security = operation["security"].as_array().cloned().unwrap_or_default();
            let optional = security.iter().any(|one| one.as_object().is_some_and(serde_json::Map::is_empty));
            if security.is_empty() || optional {
                continue;
            }
            let role = if path.starts_with("/v1/auth/") { "auth-manager" } else { "content-writer" };
            operations.push((method.clone(), path.clone(), role));
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_token_nothing_else_matters() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let operations = protected();
    assert!(operations.len() > 25, "{operations:?}");
    for (method, path, role) in operations {
        let (right, wrong) = if role == "auth-manager" { (&manager, &writer) } else { (&writer, &manager) };
        let nobody = Api::new(&server.url, Some("imgsrv_at_00000000000000000000000000000000_00".to_owned()));
        for api in [&server.anonymous(), &nobody] {
            call(api, &method, &path).await.problem(401, "unauthorized");
        }
        let refused = call(wrong, &method, &path).await.problem(403, "forbidden");
        let action = if role == "auth-manager" { "auth.manage" } else { "content.write" };
        assert!(refused["detail"].as_str().is_some_and(|text| text.contains(action)), "{refused}");
        let admitted = call(right, &method, &path).await.status.as_u16();
        assert!(admitted != 401 && admitted != 403 && admitted < 500, "{method} {path}: {admitted}");
    }
}
