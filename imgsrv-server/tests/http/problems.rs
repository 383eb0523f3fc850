//! Problems: on every path, whatever is wrong.

use std::collections::BTreeMap;

use reqwest::Method;

use crate::server::{Api, Server, World, operations, raw, request, send};

#[tokio::test(flavor = "multi_thread")]
async fn on_every_path() {
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
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            let known = methods.iter().any(|known| known == method || (method == "HEAD" && known == "GET"));
            if known {
                continue;
            }
            let answer = send(api.request(method.parse().expect("a method"), &path)).await;
            assert_eq!(answer.status, 405, "{method} {path}");
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
        if methods.iter().any(|method| method == "GET") {
            let (get, head) = (api.get(&path).await, api.head(&path).await);
            assert!(get.status.is_success(), "{path}: {}", get.text());
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
            for header in ["content-type", "etag", "cache-control", "vary"] {
                assert_eq!(head.header(header), get.header(header), "HEAD {path}: {header}");
            }
            // The length may be left out of the answer to a HEAD, but not be another (RFC 9110 §9.3.2).
            assert!(["", get.header("content-length")].contains(&head.header("content-length")), "HEAD {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_a_megabyte_and_one_byte_more() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let body = |size: usize| {
        let start = "{\"name\": \"large\"";
        format!("{start}{}}}", " ".repeat(size - start.len() - 1))
    };
    let post = |content_type: &'static str, body: String| {
        send(writer.request(Method::POST, "/v1/images").header("content-type", content_type).body(body))
    };
    assert_eq!(post("application/json", body(1 << 20)).await.status, 201);
    assert_eq!(post("application/json; charset=utf-8", "{\"name\": \"a\"}".to_owned()).await.status, 201);
    for other in
        ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "application/jsonx", "nonsense"]
    {
        post(other, "{\"name\": \"b\"}".to_owned()).await.problem(415, "unsupported-media-type");
    }
    let bare = send(writer.request(Method::POST, "/v1/images").body("{\"name\": \"b\"}")).await;
    assert!([400, 415].contains(&bare.status.as_u16()), "{}", bare.text());
    // Just what is read is sent: bytes that nobody reads may cost the client the answer.
    let head = |api: &Api, framing: &str| {
        request(api, "POST", "/v1/images", &["content-type: application/json", "connection: close", framing])
    };
    let declared = raw(&server, head(&writer, "content-length: 1048577").as_bytes());
    assert!(declared.starts_with("HTTP/1.1 413 ") && declared.contains("urn:imgsrv:problem:too-large"), "{declared}");
    // Whose right is missing is told that, not how large a body may be.
    let nobody = raw(&server, head(&manager, "content-length: 1048577").as_bytes());
    assert!(nobody.starts_with("HTTP/1.1 403 "), "{nobody}");
    let chunk = format!("100001\r\n{}\r\n", " ".repeat((1 << 20) + 1));
    let chunked = raw(&server, [head(&writer, "transfer-encoding: chunked"), chunk].concat().as_bytes());
    assert!(chunked.starts_with("HTTP/1.1 413 "), "{chunked}");
    writer.get("/v1/images/b").await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_try_to_be_others() {
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
    let (one, two) = (api.get("/healthz").await, api.get("/healthz").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    let odd = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nx-request-id: \xc3\xa9\r\nconnection: close\r\n\r\n";
    let answer = raw(&server, odd);
    let id = answer.split("x-request-id: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("an id");
    assert_eq!(id.len(), 36, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_what_does_not_work() {
    let server = Server::start();
    let objects = server.folder.path().join("data/objects");
    let away = server.folder.path().join("away");
    std::fs::rename(&objects, &away).expect("the store");
    let api = server.anonymous();
    let not_ready = async || {
        let problem = api.get("/readyz").await.problem(503, "unavailable");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("store") && !detail.contains("database") && !detail.contains('/'), "{detail}");
        assert_eq!(api.get("/healthz").await.status, 204);
    };
    not_ready().await;
    std::fs::create_dir(&objects).expect("where nothing is mounted");
    not_ready().await;
    std::fs::remove_dir(&objects).expect("the folder");
    std::fs::write(&objects, "in the way").expect("a file");
    not_ready().await;
    std::fs::remove_file(&objects).expect("the file");
    std::fs::rename(&away, &objects).expect("the store");
    assert_eq!(api.get("/readyz").await.status, 204, "and again when it does");
}
