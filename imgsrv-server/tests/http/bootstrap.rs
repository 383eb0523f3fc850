//! The first credential, the last one, and that a token is nowhere but with its holder.

use std::process::Command;

use chrono::{DateTime, FixedOffset, TimeDelta};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Folder, Server, id, program, send};

const PAST: &str = "2001-01-01T00:00:00+00:00";

fn time(member: &Value) -> DateTime<FixedOffset> {
    DateTime::parse_from_rfc3339(member.as_str().expect("a time")).expect("a time")
}

/// The token that `imgsrv bootstrap-token` prints.
fn another_token(folder: &Folder) -> String {
    let issued = Command::new(program())
        .args(["bootstrap-token", "--data-dir"])
        .arg(folder.data())
        .output()
        .expect("the program");
    let said = String::from_utf8(issued.stdout).expect("text");
    let token = said.trim().strip_prefix("imgsrv bootstrap token (one-time): ").expect("a token").to_owned();
    assert!(!String::from_utf8_lossy(&issued.stderr).contains(&token), "a token is in no log");
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_manager_gets_one_token_and_more_on_demand() {
    let server = Server::start();
    let first = server.token.clone().expect("a token at the first start");
    let manager = server.manager();
    let asked_while_it_runs = another_token(&server.folder);
    server.client(Some(asked_while_it_runs.clone())).get("/v1/auth/roles").await.ok();
    let folder = server.stop();
    let asked_while_it_does_not = another_token(&folder);
    let server = Server::start_in(folder, &[]);
    assert_eq!(server.token, None, "no new token while one is usable");
    for token in [first, asked_while_it_runs, asked_while_it_does_not] {
        server.client(Some(token)).get("/v1/auth/roles").await.ok();
    }

    // All three are of one principal, and good for a day.
    let manager = server.client(manager.token);
    let principals = manager.get("/v1/auth/principals").await.ok();
    assert_eq!(principals["principals"].as_array().map(Vec::len), Some(1), "{principals}");
    assert_eq!(principals["principals"][0]["role_ids"], json!(["auth-manager"]));
    let tokens = format!("/v1/auth/principals/{}/api-tokens", id(&principals["principals"][0]));
    let tokens = manager.get(&tokens).await.ok();
    assert_eq!(tokens["api_tokens"].as_array().map(Vec::len), Some(3));
    // The time of the server is that of what it makes.
    let writer = server.client(Some(manager.new_token("content-writer").await));
    let now = time(&writer.begin(b"x").await["created_at"]);
    for token in tokens["api_tokens"].as_array().expect("tokens") {
        let left = time(&token["expires_at"]) - now;
        assert!(left <= TimeDelta::hours(24) && left > TimeDelta::hours(23), "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_manager_stays() {
    let server = Server::start();
    let manager = server.manager();
    let me = id(&manager.get("/v1/auth/principals").await.ok()["principals"][0]);
    let role = format!("/v1/auth/principals/{me}/roles/auth-manager");
    manager.delete(&role).await.problem(412, "last-manager");
    let tokens = manager.get(&format!("/v1/auth/principals/{me}/api-tokens")).await.ok();
    let token = format!("/v1/auth/api-tokens/{}", id(&tokens["api_tokens"][0]));
    manager.delete(&token).await.problem(412, "last-manager");

    // A role alone opens nothing.
    let idle = json!({"kind": "user", "display_name": "has a role and no token"});
    let idle = manager.add("/v1/auth/principals", idle).await;
    let idle = format!("/v1/auth/principals/{idle}/roles/auth-manager");
    manager.call(Method::PUT, &idle).await.no_content();
    for last in [&role, &token] {
        manager.delete(last).await.problem(412, "last-manager");
    }
    manager.delete(&idle).await.no_content();

    let other = server.client(Some(manager.new_token("auth-manager").await));
    other.delete(&token).await.no_content();
    manager.get("/v1/auth/roles").await.problem(401, "unauthorized");
    other.get("/v1/auth/roles").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_usable_manager_makes_one_token() {
    let server = Server::start();
    let mut known = vec![server.token.clone().expect("a token at the first start")];
    let mut folder = server.stop();
    for how in [format!("expires_at = '{PAST}'"), format!("revoked_at = '{PAST}'")] {
        folder.change(&format!("update api_tokens set {how}")).await;
        // Of two that start at once one makes the token.
        let starts =
            [folder.clone(), folder.clone()].map(|folder| std::thread::spawn(|| Server::start_in(folder, &[])));
        let servers = starts.map(|start| start.join().expect("a start"));
        let tokens: Vec<_> = servers.iter().filter_map(|server| server.token.clone()).collect();
        let [token] = &tokens[..] else { panic!("one token between two nodes: {}", tokens.len()) };
        for server in &servers {
            server.client(Some(token.clone())).get("/v1/auth/roles").await.ok();
        }
        for old in &known {
            servers[0].client(Some(old.clone())).get("/v1/auth/roles").await.problem(401, "unauthorized");
        }
        let principals = servers[0].client(Some(token.clone())).get("/v1/auth/principals").await.ok();
        assert_eq!(principals["principals"].as_array().map(Vec::len), Some(1), "one bootstrap principal for all");
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
    command.args(["--verbosity", "trace,imgsrv=trace", "--data-dir"]).arg(folder.data());
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
    files.extend(std::fs::read_dir(folder.data()).expect("files").map(|entry| entry.expect("one").path()));
    for file in files.iter().filter(|file| file.is_file()) {
        let text = String::from_utf8_lossy(&std::fs::read(file).expect("a file")).into_owned();
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{}", file.display());
    }
    assert!(std::fs::read_to_string(log).expect("the log").contains("answered"), "the log was written");
}
