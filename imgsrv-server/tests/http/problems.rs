//! Problems: what no route answers is told in the same form as all that a route refuses.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use crate::server::{Server, World, id, operations, raw, request, send};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_framework_refuses_is_a_problem_too() {
    let server = Server::start();
    let api = server.anonymous();
    for path in ["/nowhere", "/v1/images/", "/v1", "/v1/images/a/b/c/d/e"] {
        api.get(path).await.problem(404, "not-found");
    }
    let wrong = api.call(Method::PATCH, "/v1/images").await;
    wrong.problem(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), "GET, POST, HEAD");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_has_its_methods_and_no_others() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    let mut paths = BTreeMap::<String, Vec<String>>::new();
    for operation in operations() {
        let methods = paths.entry(operation.at(|name| world.value(name))).or_default();
        methods.push(operation.method.to_string());
    }
    for (path, methods) in paths {
        let api = if path.starts_with("/v1/auth/") { &manager } else { &writer };
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let known = methods.iter().any(|known| known == method || (method == "HEAD" && known == "GET"));
            if known {
                continue;
            }
            let answer = send(api.request(method.parse().expect("a method"), &path)).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            if method != "HEAD" {
                answer.problem(405, "method-not-allowed");
            }
            let mut allowed: Vec<_> = answer.header("allow").split(", ").map(str::to_owned).collect();
            let mut expected = methods.clone();
            expected.extend(methods.iter().any(|method| method == "GET").then(|| "HEAD".to_owned()));
            allowed.sort_unstable();
            expected.sort_unstable();
            assert_eq!(allowed, expected, "{path}");
        }
        for other in [format!("{path}/"), format!("{path}//"), format!("/{path}"), format!("{path}%2f")] {
            let answer = api.get(&other).await;
            assert!([400, 404, 405].contains(&answer.status.as_u16()), "{other}: {}", answer.status);
            if other.ends_with('/') {
                answer.problem(404, "not-found");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_tries_to_be_another_is_refused() {
    let server = Server::start();
    let writer = server.writer().await;
    writer.release("debian", "1.0", b"x").await;
    for path in [
        "/v1/images/..%2f..%2fetc%2fpasswd",
        "/v1/images/%2e%2e",
        "/v1/images/../images/debian/",
        "/v1/images/debian/../../../../etc/passwd",
        "/v1/images/./debian",
        "/v1/images/debian%00",
        "/v1/images/%ff",
        "/v1/images/%",
        "/v1/images/%zz",
        "/v1/images/debian;x",
        "/v1/images/debian%3fstate=draft",
        "/v1/images//versions",
        "/v1/images/debian/versions/1.0/artifacts/..",
        "/V1/images",
        "//v1/images",
        "/v1/blobs/sha256:../../../../etc/passwd",
        "/docs/../docs",
    ] {
        let answer = raw(&server, request(&writer, "GET", path, &["connection: close"]).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{path}: {answer}");
    }
    // An encoded name is the same name.
    assert_eq!(writer.get("/v1/images/%64ebian").await.ok()["name"], "debian");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_request_is_on_every_answer() {
    let server = Server::start();
    let api = server.anonymous();
    let longest = "~".repeat(128);
    for path in ["/v1/images", "/nowhere", "/v1/uploads", "/v1/images/A", "/healthz", "/docs"] {
        let answer = send(api.request(Method::GET, path).header("x-request-id", &longest)).await;
        assert_eq!(answer.header("x-request-id"), longest, "{path}");
    }
    let with = |id: &str| send(api.request(Method::GET, "/v1/images").header("x-request-id", id));
    assert_eq!(with("my-id_1").await.header("x-request-id"), "my-id_1");
    let is_fresh = |id: &str| (id.len(), id.matches('-').count()) == (36, 4);
    for id in ["", "two words", &"x".repeat(129)] {
        let fresh = with(id).await;
        assert!(is_fresh(fresh.header("x-request-id")), "{id:?}: {}", fresh.header("x-request-id"));
    }
    let (one, two) = (api.get("/healthz").await, api.get("/healthz").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    let odd = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nx-request-id: \xc3\xa9\r\nconnection: close\r\n\r\n";
    let answer = raw(&server, odd);
    let id = answer.split("x-request-id: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("an id");
    assert!(is_fresh(id), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_foresaw_is_told_by_the_id_of_the_request_only() {
    let server = Server::start();
    let writer = server.writer().await;
    let artifact = writer.release("debian", "1.0", b"bytes").await;
    let job = writer.act("/v1/images/debian/versions/1.0/publish").await.accepted();
    let folder = server.stop();
    // As no version of this program would write it.
    folder.change("update jobs set subject = 'gibberish' where kind = 'publish'").await;
    folder.change("update images set name = 'GIBBERISH!'").await;
    let server = Server::start_in(folder, &[]);
    let writer = server.client(writer.token);
    for path in [format!("/v1/publish-jobs/{}", id(&job)), "/v1/images".to_owned()] {
        let answer = writer.get_with(&path, &[("x-request-id", "mine")]).await;
        let expected =
            json!({"type": "urn:imgsrv:problem:internal", "title": "Internal", "status": 500, "instance": "mine"});
        assert_eq!((answer.status.as_u16(), answer.json()), (500, expected), "{path}");
        assert_eq!(writer.head(&path).await.status, 500);
    }
    // It goes on with all that is as it should be.
    writer.get(&format!("/v1/images/debian/versions/1.0/artifacts/{artifact}")).await.problem(404, "not-found");
    assert_eq!(server.anonymous().get("/healthz").await.status, 204);
}
