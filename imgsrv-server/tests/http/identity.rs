//! Principals, roles and tokens, and the first of them.

use std::process::Command;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::server::{Api, Server, program};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_manager() {
    let server = Server::start();
    let first = server.token.clone().expect("a token at the first start");
    let folder = server.stop();
    let issued = Command::new(program())
        .args(["bootstrap-token", "--data-dir"])
        .arg(folder.path().join("data"))
        .output()
        .expect("the program");
    let said = String::from_utf8(issued.stdout).expect("text");
    let another = said.trim().strip_prefix("imgsrv bootstrap token (one-time): ").expect("a token").to_owned();
    assert!(!String::from_utf8_lossy(&issued.stderr).contains(&another), "a token is in no log");
    let server = Server::start_in(folder, &[]);
    assert_eq!(server.token, None, "no new token while one is usable");
    for token in [first, another] {
        Api::new(&server.url, Some(token)).get("/v1/auth/roles").await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn principals_roles_and_tokens() {
    let server = Server::start();
    let manager = server.manager();
    let roles = manager.get("/v1/auth/roles").await.ok();
    let ids: Vec<_> = roles["roles"].as_array().expect("roles").iter().map(|role| &role["id"]).collect();
    assert_eq!(ids, ["content-writer", "auth-manager"]);

    let principal = json!({"kind": "service", "display_name": "CI", "attributes": {"team": "images"}});
    let principal = manager.post("/v1/auth/principals", principal).await.created();
    assert_eq!((&principal["kind"], &principal["role_ids"]), (&json!("service"), &json!([])));
    for attributes in [json!({"a\0": 1}), json!({"a": [{"b": "\0"}]})] {
        let refused = json!({"kind": "user", "display_name": "x", "attributes": attributes});
        manager.post("/v1/auth/principals", refused).await.problem(400, "invalid");
    }
    manager.post("/v1/auth/principals", json!({"kind": "robot", "display_name": "x"})).await.problem(400, "invalid");
    let path = format!("/v1/auth/principals/{}", principal["id"].as_str().expect("an id"));
    for _ in 0..2 {
        let granted = manager.put(&format!("{path}/roles/content-writer"), Value::Null).await;
        assert_eq!(granted.status, StatusCode::NO_CONTENT);
    }
    manager.put(&format!("{path}/roles/king"), Value::Null).await.problem(400, "invalid");
    manager.put("/v1/auth/principals/nobody/roles/content-writer", Value::Null).await.problem(404, "not-found");
    assert_eq!(manager.get(&path).await.ok()["role_ids"], json!(["content-writer"]));

    let tokens = format!("{path}/api-tokens");
    for expires_at in [json!("2001-01-01T00:00:00Z"), json!("soon"), Value::Null] {
        manager.post(&tokens, json!({"name": "x", "expires_at": expires_at})).await.problem(400, "invalid");
    }
    let issued = manager.post(&tokens, json!({"name": "ci", "expires_at": "2099-01-01T00:00:00Z"})).await.created();
    let text = issued["plaintext"].as_str().expect("a token").to_owned();
    assert!(text.starts_with("imgsrv_at_"));
    let listed = manager.get(&tokens).await;
    assert!(!listed.text().contains(&text) && listed.ok().to_string().contains("\"ci\""));

    let writer = Api::new(&server.url, Some(text.clone()));
    writer.get("/v1/uploads").await.ok();
    for header in [
        format!("Basic {text}"),
        "Bearer".to_owned(),
        format!("Bearer {text} x"),
        format!("{text}"),
        format!("Bearer {text}0"),
    ] {
        let request = server.anonymous().request(reqwest::Method::GET, "/v1/uploads").header("authorization", header);
        crate::server::send(request).await.problem(401, "unauthorized");
    }
    let request = server.anonymous().request(reqwest::Method::GET, "/v1/uploads");
    crate::server::send(request.header("authorization", format!("bEARER {text}"))).await.ok();

    let revoke = format!("/v1/auth/api-tokens/{}", issued["id"].as_str().expect("an id"));
    for _ in 0..2 {
        assert_eq!(manager.delete(&revoke).await.status, StatusCode::NO_CONTENT);
    }
    writer.get("/v1/uploads").await.problem(401, "unauthorized");
    manager.delete("/v1/auth/api-tokens/nothing").await.problem(404, "not-found");
    for _ in 0..2 {
        assert_eq!(manager.delete(&format!("{path}/roles/content-writer")).await.status, StatusCode::NO_CONTENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_manager_stays() {
    let server = Server::start();
    let manager = server.manager();
    let principals = manager.get("/v1/auth/principals").await.ok();
    let me = principals["principals"][0]["id"].as_str().expect("an id").to_owned();
    let role = format!("/v1/auth/principals/{me}/roles/auth-manager");
    manager.delete(&role).await.problem(412, "last-manager");
    let tokens = manager.get(&format!("/v1/auth/principals/{me}/api-tokens")).await.ok();
    let list =
        tokens.as_object().and_then(|members| members.values().find_map(Value::as_array)).expect("tokens").clone();
    let token = format!("/v1/auth/api-tokens/{}", list[0]["id"].as_str().expect("an id"));
    manager.delete(&token).await.problem(412, "last-manager");

    let other = Api::new(&server.url, Some(manager.new_token("auth-manager").await));
    assert_eq!(other.delete(&token).await.status, StatusCode::NO_CONTENT);
    manager.get("/v1/auth/roles").await.problem(401, "unauthorized");
    other.get("/v1/auth/roles").await.ok();
}
