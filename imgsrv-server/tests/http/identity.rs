//! Principals, their roles and their tokens.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, id, names};

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_has_the_roles_it_is_given() {
    let server = Server::start();
    let manager = server.manager();
    assert_eq!(names(&manager.get("/v1/auth/roles").await.ok(), "roles", "id"), ["content-writer", "auth-manager"]);

    let principal = json!({"kind": "service", "display_name": "CI", "attributes": {"team": "images"}});
    let principal = manager.post("/v1/auth/principals", principal).await.created();
    assert_eq!((&principal["kind"], &principal["role_ids"]), (&json!("service"), &json!([])));
    let path = format!("/v1/auth/principals/{}", id(&principal));
    let role = format!("{path}/roles/content-writer");
    for _ in 0..2 {
        manager.call(Method::PUT, &role).await.no_content();
    }
    manager.put(&role, Value::Null).await.no_content();
    manager.call(Method::PUT, &format!("{path}/roles/king")).await.problem(400, "invalid");
    let shown = manager.get(&path).await.ok();
    assert_eq!(shown["role_ids"], json!(["content-writer"]));
    let all = manager.get("/v1/auth/principals").await.ok();
    assert_eq!(all["principals"].as_array().and_then(|all| all.last()), Some(&shown));
    for _ in 0..2 {
        manager.delete(&role).await.no_content();
    }
    assert_eq!(manager.get(&path).await.ok(), principal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_and_a_token_follow_their_rules() {
    let server = Server::start();
    let manager = server.manager();
    for body in [
        json!({"kind": "robot", "display_name": "x"}),
        json!({"kind": "user"}),
        json!({"kind": "user", "display_name": " "}),
        json!({"kind": "user", "display_name": "x", "role_ids": []}),
        json!({"kind": "user", "display_name": "x", "attributes": []}),
    ] {
        manager.post("/v1/auth/principals", body).await.problem(400, "invalid");
    }
    let principal = manager.add("/v1/auth/principals", json!({"kind": "user", "display_name": "x"})).await;
    let tokens = format!("/v1/auth/principals/{principal}/api-tokens");
    for body in [
        json!({}),
        json!({"name": "x"}),
        json!({"name": " ", "expires_at": "2099-01-01T00:00:00Z"}),
        json!({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}),
        json!({"name": "x", "expires_at": "soon"}),
        json!({"name": "x", "expires_at": null}),
    ] {
        manager.post(&tokens, body).await.problem(400, "invalid");
    }
    let nobody = "/v1/auth/principals/nobody";
    for missing in [nobody.to_owned(), format!("{nobody}/api-tokens")] {
        manager.get(&missing).await.problem(404, "not-found");
    }
    let token = json!({"expires_at": "2099-01-01T00:00:00Z"});
    manager.post(&format!("{nobody}/api-tokens"), token).await.problem(404, "not-found");
    for method in [Method::PUT, Method::DELETE] {
        manager.call(method, &format!("{nobody}/roles/content-writer")).await.problem(404, "not-found");
    }
    manager.delete("/v1/auth/api-tokens/nothing").await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_works_until_it_is_revoked() {
    let server = Server::start();
    let manager = server.manager();
    let principal = manager.add("/v1/auth/principals", json!({"kind": "service", "display_name": "CI"})).await;
    let path = format!("/v1/auth/principals/{principal}");
    manager.call(Method::PUT, &format!("{path}/roles/content-writer")).await.no_content();
    let tokens = format!("{path}/api-tokens");
    let issued = manager.post(&tokens, json!({"name": "ci", "expires_at": "2099-01-01T00:00:00Z"})).await.created();
    let text = issued["plaintext"].as_str().expect("a token").to_owned();
    assert!(text.starts_with("imgsrv_at_"));
    let listed = manager.get(&tokens).await;
    assert!(!listed.text().contains(&text) && listed.ok().to_string().contains("\"ci\""));
    let nameless = manager.post(&tokens, json!({"expires_at": "2099-01-01T00:00:00Z"})).await.created();
    assert!(nameless.get("name").is_none() && nameless["expires_at"] == "2099-01-01T00:00:00Z", "{nameless}");

    let writer = server.client(Some(text));
    writer.get("/v1/uploads").await.ok();
    let used = loop {
        // Written down behind the request's back.
        let listed = manager.get(&tokens).await.ok();
        if let Some(used) = listed["api_tokens"][0]["last_used_at"].as_str() {
            break used.to_owned();
        }
    };
    assert!(used.ends_with('Z'), "{used}");

    let revoke = format!("/v1/auth/api-tokens/{}", id(&issued));
    for _ in 0..2 {
        manager.delete(&revoke).await.no_content();
    }
    writer.get("/v1/uploads").await.problem(401, "unauthorized");
}
