//! The server itself: whether it is well, and how it describes itself.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use crate::server::{Folder, Server, program};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_well_and_describes_itself() {
    let server = Server::start();
    let api = server.anonymous();
    for path in ["/healthz", "/readyz"] {
        api.get(path).await.no_content();
        assert_eq!(api.head(path).await.status, 204);
    }
    assert_eq!(api.get("/openapi.json").await.ok(), imgsrv_server::specification());
    let page = api.get("/docs").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let text = page.text();
    assert!(text.contains("openapi.json"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!text.contains(outside), "{outside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_what_does_not_work() {
    let server = Server::start();
    let (objects, away) = (server.folder.data().join("objects"), server.folder.path().join("away"));
    let api = server.anonymous();
    let not_ready = async || {
        let problem = api.get("/readyz").await.problem(503, "unavailable");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("store") && !detail.contains("database") && !detail.contains('/'), "{detail}");
        assert_eq!(api.get("/healthz").await.status, 204);
    };
    std::fs::rename(&objects, &away).expect("the store");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_database_was_migrated_under_it_is_not_ready() {
    let server = Server::start();
    let api = server.anonymous();
    let (later, none) = ("m9999_later", "m0001_initial");
    for (change, back) in [
        (
            format!("insert into seaql_migrations (version, applied_at) values ('{later}', 0)"),
            format!("delete from seaql_migrations where version = '{later}'"),
        ),
        (
            format!("delete from seaql_migrations where version = '{none}'"),
            format!("insert into seaql_migrations (version, applied_at) values ('{none}', 0)"),
        ),
    ] {
        server.folder.change(&change).await;
        let problem = api.get("/readyz").await.problem(503, "unavailable");
        assert_eq!(problem["detail"], "the migrations of the database are not those of this version", "{change}");
        server.folder.change(&back).await;
        api.get("/readyz").await.no_content();
    }
}

/// What `imgsrv healthcheck` ends with, and its line if it has one. Of the configuration it uses the address only.
fn healthcheck(listen: &str) -> (Option<i32>, String) {
    let nothing = Folder::new();
    let mut command = Command::new(program());
    command.args(["healthcheck", "--postgres-url", "postgres://u@127.0.0.1:1/d"]);
    command.arg("--data-dir").arg(nothing.data()).env("IMGSRV_LISTEN", listen);
    let output = command.output().expect("the program");
    assert!(output.stdout.is_empty() && !nothing.data().exists());
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_tells_whether_its_server_is_ready() {
    let server = Server::start();
    let address = server.address().to_owned();
    let port = address.rsplit(':').next().expect("a port").to_owned();
    let ready = (Some(0), String::new());
    for listen in [address.clone(), format!(":{port}"), format!("0.0.0.0:{port}"), format!("localhost:{port}")] {
        assert_eq!(healthcheck(&listen), ready, "{listen}");
    }

    std::fs::remove_dir_all(server.folder.data().join("objects")).expect("the store");
    let reason = "error: not ready: no answer from: store\n".to_owned();
    assert_eq!(healthcheck(&address), (Some(1), reason));

    server.stop();
    let (code, line) = healthcheck(&address);
    assert_eq!(code, Some(1));
    assert!(line.starts_with(&format!("error: no answer on {address}: ")) && line.lines().count() == 1, "{line}");
}

#[test]
fn what_answers_in_the_place_of_a_server_is_not_ready() {
    for (answer, line) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nNone", "not ready: the answer is 404 Not Found"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "not ready: the answer is 200 OK"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "no answer on "),
        ("", "no answer on "),
    ] {
        // The loopback address of IPv6 is one to connect to, where there is one.
        let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut request = [0; 1000];
            let read = client.read(&mut request).expect("a request");
            client.write_all(answer.as_bytes()).expect("an answer");
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let (code, said) = healthcheck(&address);
        let request = server.join().expect("a request").to_ascii_lowercase();
        assert!(request.starts_with("get /readyz http/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
        assert_eq!(code, Some(1));
        assert!(said.starts_with(&format!("error: {line}")) && said.lines().count() == 1, "{said}");
    }
}
