//! Principals, their roles and their tokens.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, id, members, names, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_has_the_roles_it_is_given() {
    let server = Server::start();
    let manager = server.manager();
    let roles = manager.get("/v1/auth/roles").await.ok();
    assert_eq!(
        (members(&roles), names(&roles, "roles", "id")),
        (vec!["roles"], vec!["content-writer", "auth-manager"])
    );
    for (role, action) in roles["roles"].as_array().expect("roles").iter().zip(["content.write", "auth.manage"]) {
        assert_eq!(members(role), ["actions", "description", "display_name", "id"]);
        // Neither contains the other.
        assert_eq!(role["actions"], json!([action]));
        assert!(
            ["description", "display_name"].iter().all(|text| role[text].as_str().is_some_and(|text| !text.is_empty()))
        );
    }

    let plain = manager.post("/v1/auth/principals", json!({"kind": "user", "display_name": "Zoë"})).await.created();
    assert_eq!(members(&plain), ["display_name", "id", "kind", "role_ids"]);
    // What the attributes are is the client's business.
    let attributes = json!({"team": "images", "on call": null, "tags": [1, {"a": true}]});
    let principal = json!({"kind": "service", "display_name": "CI", "attributes": attributes});
    let principal = manager.post("/v1/auth/principals", principal).await.created();
    assert_eq!(members(&principal), ["attributes", "display_name", "id", "kind", "role_ids"]);
    assert_eq!((&principal["kind"], &principal["role_ids"]), (&json!("service"), &json!([])));
    assert_eq!((&principal["display_name"], &principal["attributes"]), (&json!("CI"), &attributes));
    let path = format!("/v1/auth/principals/{}", id(&principal));
    let role = format!("{path}/roles/content-writer");
    for _ in 0..2 {
        manager.call(Method::PUT, &role).await.no_content();
    }
    manager.put(&role, Value::Null).await.no_content();
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_works_until_it_is_revoked() {
    let server = Server::start();
    let manager = server.manager();
    let principal = manager.add("/v1/auth/principals", json!({"kind": "service", "display_name": "CI"})).await;
    let path = format!("/v1/auth/principals/{principal}");
    manager.call(Method::PUT, &format!("{path}/roles/content-writer")).await.no_content();
    let tokens = format!("{path}/api-tokens");
    let issued =
        manager.post(&tokens, json!({"name": "ci", "expires_at": "2099-01-01T00:00:00+02:00"})).await.created();
    assert_eq!(members(&issued), ["expires_at", "id", "name", "plaintext", "principal_id"]);
    assert_eq!((&issued["principal_id"], &issued["expires_at"]), (&json!(principal), &json!("2098-12-31T22:00:00Z")));
    let text = issued["plaintext"].as_str().expect("a token").to_owned();
    let fields: Vec<&str> = text.strip_prefix("imgsrv_at_").expect("the prefix").split('_').collect();
    let [lookup, secret] = fields[..] else { panic!("{text}") };
    assert!(!lookup.is_empty() && secret.len() >= 32, "at least 128 bits, four a digit: {text}");
    assert!(secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    let listed = manager.get(&tokens).await;
    assert!(!listed.text().contains(secret) && listed.ok().to_string().contains("\"ci\""));
    assert_eq!(members(&listed.ok()["api_tokens"][0]), ["expires_at", "id", "name", "principal_id"]);
    let nameless = manager.post(&tokens, json!({"expires_at": "2099-01-01T00:00:00Z"})).await.created();
    assert!(nameless.get("name").is_none() && nameless["expires_at"] == "2099-01-01T00:00:00Z", "{nameless}");

    let writer = server.client(Some(text));
    writer.get("/v1/uploads").await.ok();
    let mut used = Value::Null;
    until("its use is noted", async || {
        used = manager.get(&tokens).await.ok()["api_tokens"][0]["last_used_at"].clone();
        !used.is_null()
    })
    .await;
    assert!(used.as_str().is_some_and(|used| used.ends_with('Z')), "{used}");

    let revoke = format!("/v1/auth/api-tokens/{}", id(&issued));
    for _ in 0..2 {
        manager.delete(&revoke).await.no_content();
    }
    writer.get("/v1/uploads").await.problem(401, "unauthorized");
    let listed = manager.get(&tokens).await.ok();
    let [revoked, other] = &listed["api_tokens"].as_array().expect("tokens")[..] else { panic!("{listed}") };
    assert_eq!(members(revoked), ["expires_at", "id", "last_used_at", "name", "principal_id", "revoked_at"]);
    assert_eq!(members(other), ["expires_at", "id", "principal_id"], "only one was revoked");
    manager.delete(&revoke).await.no_content();
    assert_eq!(manager.get(&tokens).await.ok(), listed, "revoking again changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_use_of_a_token_is_noted_once_a_minute() {
    let server = Server::start();
    let (manager, writer) = (server.token.clone(), server.writer().await.token);
    let principals = server.manager().get("/v1/auth/principals").await.ok();
    let tokens = format!("/v1/auth/principals/{}/api-tokens", id(&principals["principals"][1]));
    let mut folder = server.stop();
    // In the future, so that no use of today is a minute later; and long ago.
    for (noted, moves) in [("9000-01-01T00:00:00+00:00", false), ("2001-01-01T00:00:00+00:00", true)] {
        folder.change(&format!("update api_tokens set last_used_at = '{noted}'")).await;
        let server = Server::start_in(folder, &[]);
        let (manager, writer) = (server.client(manager.clone()), server.client(writer.clone()));
        let shown = async || manager.get(&tokens).await.ok()["api_tokens"][0]["last_used_at"].clone();
        let before = shown().await;
        writer.get("/v1/uploads").await.ok();
        until("its use is noted", async || !moves || shown().await != before).await;
        let after = shown().await;
        // As often as it takes to see a write that comes late.
        for _ in 0..50 {
            writer.get("/v1/uploads").await.ok();
        }
        assert_eq!((shown().await, after != before), (after, moves));
        folder = server.stop();
    }
}
