//! Who may call what: every way in which a credential is no good, on every operation.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server::{Api, Folder, Operation, Server, Who, World, id, names, operations, raw, request, send};

/// A call that is wrong in all but its route.
fn wrong(api: &Api, operation: &Operation) -> RequestBuilder {
    let call = api.request(operation.method.clone(), &operation.at(|_| "%2f..%00".to_owned()));
    if operation.method == Method::GET { call } else { call.body("{\"no such member\": ") }
}

/// A new token with a role, and its id.
async fn token(manager: &Api, role: &str) -> (String, String) {
    let text = manager.new_token(role).await;
    let principals = manager.get("/v1/auth/principals").await.ok();
    let newest = *names(&principals, "principals", "id").last().expect("principals");
    let tokens = manager.get(&format!("/v1/auth/principals/{newest}/api-tokens")).await.ok();
    (text, names(&tokens, "api_tokens", "id")[0].to_owned())
}

/// The same text with another last digit.
fn altered(token: &str) -> String {
    let (head, last) = token.split_at(token.len() - 1);
    format!("{head}{}", if last == "0" { "1" } else { "0" })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_credential_is_refused_everywhere_and_ignored_where_none_is_needed() {
    let server = Server::start();
    let manager = server.manager();
    let (good, _) = token(&manager, "content-writer").await;
    let (expired, expired_id) = token(&manager, "content-writer").await;
    let (revoked, revoked_id) = token(&manager, "content-writer").await;
    manager.delete(&format!("/v1/auth/api-tokens/{revoked_id}")).await.no_content();
    let folder: Folder = server.stop();
    let past = "2001-01-01T00:00:00+00:00";
    folder.change(&format!("update api_tokens set expires_at = '{past}' where id = '{expired_id}'")).await;
    let server = Server::start_in(folder, &[]);

    let headers = [
        "Basic dXNlcjpwYXNz".to_owned(),
        format!("Basic {good}"),
        "Bearer".to_owned(),
        "Bearer a b".to_owned(),
        format!("Bearer {good} x"),
        good.clone(),
        format!("Bearer {}", "x".repeat(4000)),
        // Well-formed, but nobody's; and not even that.
        format!("Bearer imgsrv_at_{}_{}", "0".repeat(32), "0".repeat(64)),
        format!("Bearer imgsrv_at_{}_00", "0".repeat(32)),
        format!("Bearer {}", altered(&good)),
        format!("Bearer {}", altered(&revoked)),
        format!("Bearer {good}0"),
        format!("Bearer {expired}"),
        format!("Bearer {revoked}"),
    ];
    for (number, operation) in (1..).zip(operations()) {
        // Each from its own address, because so many from one are too many.
        let api = server.anonymous().at([127, 1, 1, number]);
        let Operation { method, who, .. } = &operation;
        let without = send(wrong(&api, &operation)).await;
        assert_eq!(without.status == 401, !who.is_open(), "{}", operation.id);
        for header in &headers {
            let answer = send(wrong(&api, &operation).header("authorization", header)).await;
            assert_eq!(answer.status, without.status, "{} {header}", operation.id);
            if !who.is_open() {
                answer.problem(401, "unauthorized");
            }
        }
        let path = operation.at(|_| "%2f..%00".to_owned());
        if !who.is_open() && *method != Method::GET {
            let lines = ["content-type: application/json", "content-length: 2097152", "connection: close"];
            let answer = raw(&server, request(&api, method.as_str(), &path, &lines).as_bytes());
            assert!(answer.starts_with("HTTP/1.1 401 "), "{method} {path}, before the body is read: {answer}");
        }
        if *method == Method::GET {
            assert_eq!(api.head(&path).await.status, without.status, "HEAD {path}");
        }
    }
    for (token, reason) in [(&expired, "expired"), (&revoked, "revoked")] {
        let refused = server.client(Some(token.clone())).get("/v1/uploads").await.problem(401, "unauthorized");
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(reason)), "{refused}");
    }
    // The scheme has no case (RFC 9110 §11.1).
    send(server.anonymous().request(Method::GET, "/v1/uploads").header("authorization", format!("bEARER {good}")))
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_role_nothing_else_matters() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let protected: Vec<_> = operations().into_iter().filter(|operation| !operation.who.is_open()).collect();
    assert!(protected.len() > 25, "{protected:?}");
    for operation in protected {
        let (right, other, action) = match operation.who {
            Who::Managers => (&manager, &writer, "auth.manage"),
            _ => (&writer, &manager, "content.write"),
        };
        let call = |api| wrong(api, &operation).header("content-type", "application/json");
        let refused = send(call(other)).await.problem(403, "forbidden");
        assert!(refused["detail"].as_str().is_some_and(|text| text.contains(action)), "{refused}");
        let admitted = send(call(right)).await;
        if operation.parameters().is_empty() && !operation.takes_json {
            assert_eq!(admitted.status, 200, "{}", operation.id);
        } else {
            admitted.problem(400, "invalid");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_is_what_the_role_says_now() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    writer.draft("debian", "1.0", b"draft").await;
    let principals = manager.get("/v1/auth/principals").await.ok();
    let writing = principals["principals"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["role_ids"] == json!(["content-writer"])))
        .expect("the writer");
    let role = format!("/v1/auth/principals/{}/roles/content-writer", id(writing));
    writer.get("/v1/uploads").await.ok();
    assert_eq!(names(&writer.get("/v1/images").await.ok(), "images", "name"), ["debian"]);
    manager.delete(&role).await.no_content();
    writer.get("/v1/uploads").await.problem(403, "forbidden");
    assert_eq!(writer.get("/v1/images").await.ok()["images"], json!([]));
    manager.put(&role, Value::Null).await.no_content();
    writer.get("/v1/uploads").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_none_is_needed_a_credential_that_is_none_makes_no_difference() {
    let server = Server::start();
    let world = World::make(&server).await;
    let manager = server.manager();
    let (revoked, revoked_id) = token(&manager, "content-writer").await;
    manager.delete(&format!("/v1/auth/api-tokens/{revoked_id}")).await.no_content();
    // A manager's is one, but not one that shows more.
    let credentials =
        ["", "garbage", "Basic dXNlcjpwYXNz", "Bearer", "Bearer a b", &format!("Bearer {revoked}")].map(str::to_owned);
    let credentials = credentials.into_iter().chain(manager.token.map(|token| format!("Bearer {token}")));
    let credentials: Vec<String> = credentials.collect();
    let reader = server.anonymous();
    let mut asked = 0;
    for operation in operations().iter().filter(|operation| operation.who.is_open()) {
        let path = operation.at(|name| world.value(name));
        let without = reader.get(&path).await;
        assert!(without.status.is_success(), "{path}: {}", without.text());
        for credential in &credentials {
            let with = reader.get_with(&path, &[("authorization", credential)]).await;
            assert_eq!((with.status, &with.body), (without.status, &without.body), "{path} {credential}");
            for header in ["etag", "cache-control", "vary", "content-type"] {
                assert_eq!(with.header(header), without.header(header), "{path} {credential} {header}");
            }
        }
        asked += 1;
    }
    assert!(asked > 15, "{asked}");
}
