//! Every way in which a credential is no good, and that a good one is nowhere but with its holder.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Api, Folder, Server, program, raw, request, send};

/// An operation as a request that is wrong in all but its route.
struct Operation {
    method: Method,
    path: String,
    /// Whether it can be called without a token.
    open: bool,
}

fn operations() -> Vec<Operation> {
    let document = imgsrv_server::specification();
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().expect("operations").iter().map(move |(method, operation)| {
            let schemes = operation["security"].as_array();
            let anybody =
                |schemes: &Vec<Value>| schemes.iter().any(|one| one.as_object().is_some_and(|one| one.is_empty()));
            Operation {
                method: method.to_uppercase().parse().expect("a method"),
                path: path
                    .split('/')
                    .map(|one| if one.starts_with('{') { "%00" } else { one })
                    .collect::<Vec<_>>()
                    .join("/"),
                open: schemes.is_none_or(anybody),
            }
        })
    });
    operations.collect()
}

/// A new token with a role, and its id.
async fn token(manager: &Api, role: &str) -> (String, String) {
    let text = manager.new_token(role).await;
    let principals = manager.get("/v1/auth/principals").await.ok();
    let newest = principals["principals"].as_array().and_then(|all| all.last()).expect("principals")["id"].clone();
    let path = format!("/v1/auth/principals/{}/api-tokens", newest.as_str().expect("an id"));
    let tokens = manager.get(&path).await.ok();
    (text, tokens["api_tokens"][0]["id"].as_str().expect("an id").to_owned())
}

const PAST: &str = "2001-01-01T00:00:00+00:00";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_credential_is_refused_everywhere_and_ignored_where_none_is_needed() {
    let server = Server::start();
    let manager = server.manager();
    let (expired, expired_id) = token(&manager, "content-writer").await;
    let (revoked, revoked_id) = token(&manager, "content-writer").await;
    let gone = manager.delete(&format!("/v1/auth/api-tokens/{revoked_id}")).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let folder = server.stop();
    folder.change(&format!("update api_tokens set expires_at = '{PAST}' where id = '{expired_id}'")).await;
    let server = Server::start_in(folder, &[]);

    let mut other = revoked.clone().into_bytes();
    let last = other.last_mut().expect("a text");
    *last = if *last == b'0' { b'1' } else { b'0' };
    let headers = [
        "Basic dXNlcjpwYXNz".to_owned(),
        "Bearer".to_owned(),
        "Bearer a b".to_owned(),
        format!("Bearer {}", "x".repeat(4000)),
        format!("Bearer {}", String::from_utf8(other).expect("text")),
        format!("Bearer {expired}"),
        format!("Bearer {revoked}"),
    ];
    let api = server.anonymous();
    for Operation { method, path, open } in operations() {
        let ask = || {
            let call = api.request(method.clone(), &path);
            if method == Method::GET { call } else { call.body("{\"no such member\": ") }
        };
        let without = send(ask()).await;
        assert_eq!(without.status == 401, !open, "{method} {path}");
        for header in &headers {
            let answer = send(ask().header("authorization", header)).await;
            assert_eq!(answer.status, without.status, "{method} {path} {header}");
            if !open {
                answer.problem(401, "unauthorized");
            }
        }
        if !open && method != Method::GET {
            let lines = ["content-type: application/json", "content-length: 2097152", "connection: close"];
            let large = request(&api, method.as_str(), &path, &lines);
            let answer = raw(&server, large.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 401 "), "{method} {path}, before the body is read: {answer}");
        }
        if method == Method::GET {
            let head = api.head(&path).await;
            assert_eq!(head.status, without.status, "HEAD {path}");
        }
    }
    for (token, reason) in [(&expired, "expired"), (&revoked, "revoked")] {
        let refused = Api::new(&server.url, Some(token.clone())).get("/v1/uploads").await.problem(401, "unauthorized");
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(reason)), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_is_what_the_role_says_now() {
    let server = Server::start();
    let manager = server.manager();
    let writer = server.writer().await;
    writer.draft("debian", "1.0", b"draft").await;
    let principals = manager.get("/v1/auth/principals").await.ok();
    let writing = principals["principals"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["role_ids"] == json!(["content-writer"])))
        .expect("the writer");
    let path = format!("/v1/auth/principals/{}", writing["id"].as_str().expect("an id"));
    assert_eq!(manager.get(&path).await.ok(), *writing);
    let used = loop {
        // Written down behind the request's back.
        let tokens = manager.get(&format!("{path}/api-tokens")).await.ok();
        if let Some(used) = tokens["api_tokens"][0]["last_used_at"].as_str() {
            break used.to_owned();
        }
    };
    assert!(used.ends_with('Z'), "{used}");

    let role = format!("{path}/roles/content-writer");
    assert_eq!(manager.delete(&role).await.status, StatusCode::NO_CONTENT);
    writer.get("/v1/uploads").await.problem(403, "forbidden");
    assert_eq!(writer.get("/v1/images").await.ok()["images"], json!([]));
    assert_eq!(manager.put(&role, Value::Null).await.status, StatusCode::NO_CONTENT);
    writer.get("/v1/uploads").await.ok();

    for missing in ["/v1/auth/principals/nobody", "/v1/auth/principals/nobody/api-tokens"] {
        manager.get(missing).await.problem(404, "not-found");
    }
    let token = json!({"expires_at": "2099-01-01T00:00:00Z"});
    manager.post("/v1/auth/principals/nobody/api-tokens", token.clone()).await.problem(404, "not-found");
    manager.delete("/v1/auth/principals/nobody/roles/content-writer").await.problem(404, "not-found");
    let nameless = manager.post(&format!("{path}/api-tokens"), token).await.created();
    assert!(nameless.get("name").is_none() && nameless["expires_at"] == "2099-01-01T00:00:00Z", "{nameless}");
    for body in [json!({}), json!({"name": "x"}), json!({"name": " ", "expires_at": "2099-01-01T00:00:00Z"})] {
        manager.post(&format!("{path}/api-tokens"), body).await.problem(400, "invalid");
    }
    for body in [
        json!({"kind": "user"}),
        json!({"kind": "user", "display_name": " "}),
        json!({"kind": "user", "display_name": "x", "role_ids": []}),
        json!({"kind": "user", "display_name": "x", "attributes": []}),
    ] {
        manager.post("/v1/auth/principals", body).await.problem(400, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_without_a_usable_token_counts_for_nothing() {
    let server = Server::start();
    let first = server.token.clone().expect("a token at the first start");
    let manager = server.manager();
    let body = json!({"kind": "user", "display_name": "has a role and no token"});
    let idle = manager.post("/v1/auth/principals", body).await.created()["id"].as_str().expect("an id").to_owned();
    let idle = format!("/v1/auth/principals/{idle}/roles/auth-manager");
    assert_eq!(manager.put(&idle, Value::Null).await.status, StatusCode::NO_CONTENT);
    let principals = manager.get("/v1/auth/principals").await.ok();
    let me = principals["principals"][0]["id"].as_str().expect("an id").to_owned();
    manager.delete(&format!("/v1/auth/principals/{me}/roles/auth-manager")).await.problem(412, "last-manager");
    assert_eq!(manager.delete(&idle).await.status, StatusCode::NO_CONTENT);

    let mut folder = server.stop();
    let mut known = vec![first];
    for how in [format!("expires_at = '{PAST}'"), format!("revoked_at = '{PAST}'")] {
        folder.change(&format!("update api_tokens set {how}")).await;
        // Of two that start at once one makes the token.
        let starts =
            [folder.clone(), folder.clone()].map(|folder| std::thread::spawn(|| Server::start_in(folder, &[])));
        let servers = starts.map(|start| start.join().expect("a start"));
        let tokens: Vec<_> = servers.iter().filter_map(|server| server.token.clone()).collect();
        let [token] = &tokens[..] else { panic!("one token between two nodes: {}", tokens.len()) };
        Api::new(&servers[0].url, Some(token.clone())).get("/v1/auth/roles").await.ok();
        Api::new(&servers[1].url, Some(token.clone())).get("/v1/auth/roles").await.ok();
        for old in &known {
            Api::new(&servers[0].url, Some(old.clone())).get("/v1/auth/roles").await.problem(401, "unauthorized");
        }
        known.push(token.clone());
        folder = servers.map(Server::stop)[0].clone();
    }
    assert_eq!(Server::start_in(folder, &[]).token, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_and_no_file_holds_a_token() {
    let folder = Folder::new();
    let log = folder.path().join("log");
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$@\" 2> >(exec tee \"$0\" >&2)"]).arg(&log).arg(program());
    command.args(["--verbosity", "trace,imgsrv=trace", "--data-dir"]).arg(folder.path().join("data"));
    let server = Server::spawn(command, folder.clone());
    let bootstrap = server.token.clone().expect("a token");
    let writer = server.writer().await;
    writer.draft("debian", "1.0", b"x").await;
    let issued = writer.token.clone().expect("a token");
    for refused in ["Bearer", "Basic"] {
        let request = server.anonymous().request(Method::GET, "/v1/auth/roles");
        send(request.header("authorization", format!("{refused} {issued}"))).await;
    }
    server.stop();
    let secrets = [bootstrap, issued].map(|token| token.rsplit('_').next().expect("a secret").to_owned());
    let mut files = vec![log.clone()];
    files.extend(std::fs::read_dir(folder.path().join("data")).expect("files").map(|entry| entry.expect("one").path()));
    for file in files.iter().filter(|file| file.is_file()) {
        let text = String::from_utf8_lossy(&std::fs::read(file).expect("a file")).into_owned();
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{}", file.display());
    }
    assert!(std::fs::read_to_string(log).expect("the log").contains("answered"), "the log was written");
}
