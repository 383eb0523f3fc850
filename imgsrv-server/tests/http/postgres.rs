//! On PostgreSQL: two nodes and a shared folder, and a database that is away.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use imgsrv_core::testing::Postgres;
use reqwest::{Body, Method};
use serde_json::json;
use tokio::sync::oneshot;

use crate::server::{Api, Folder, Server, bytes, digest, id, program, send};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_start_on_an_empty_database_and_share_the_work() {
    let postgres = Postgres::start().expect("PostgreSQL");
    postgres.create_database("imgsrv").expect("a database");
    let url = postgres.url("imgsrv");
    let folder = Folder::new();
    let start = || {
        let (folder, url) = (folder.clone(), url.clone());
        std::thread::spawn(move || Server::start_in(folder, &["--postgres-url", &url]))
    };
    let [one, two] = [start(), start()].map(|starting| starting.join().expect("a server"));
    let tokens: Vec<_> = [&one, &two].into_iter().filter_map(|server| server.token.clone()).collect();
    assert_eq!(tokens.len(), 1, "one bootstrap token between them");

    let token = one.client(tokens.first().cloned()).new_token("content-writer").await;
    let [first, second] = [&one, &two].map(|server| server.client(Some(token.clone())));
    let whole = bytes(1, (5 << 20) + 10);
    let upload = id(&first.begin(&whole).await);
    let parts = [
        second.put_part(&upload, 1, whole[..5 << 20].to_vec()).await.ok(),
        first.put_part(&upload, 2, whole[5 << 20..].to_vec()).await.ok(),
    ];
    assert_eq!(second.complete(&upload, &parts).await.ok()["state"], "ready");
    let artifact = first.release("debian", "1.0", &whole).await;
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    assert_eq!(two.anonymous().get(&path).await.body, whole);

    let left = one.kill();
    second.release("debian", "2.0", b"the other node goes on").await;
    drop(left);
    two.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_of_an_attribute_can_be_read_again() {
    let postgres = Postgres::start().expect("PostgreSQL");
    postgres.create_database("imgsrv").expect("a database");
    let server = Server::start_in(Folder::new(), &["--postgres-url", &postgres.url("imgsrv")]);
    let manager = server.manager();
    let attributes = json!({
        "largest": f64::MAX, "least": f64::MIN, "smallest": f64::MIN_POSITIVE, "many digits": 0.1 + 0.2,
        "whole": [u64::MAX, i64::MIN],
    });
    let principal = json!({"kind": "service", "display_name": "CI", "attributes": attributes});
    let created = manager.post("/v1/auth/principals", principal).await.created();
    assert_eq!(created["attributes"], attributes);
    let found = manager.get(&format!("/v1/auth/principals/{}", id(&created))).await.ok();
    assert_eq!(found["attributes"], attributes);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_a_server_says_so_and_lives_on() {
    let postgres = Postgres::start().expect("PostgreSQL");
    postgres.create_database("imgsrv").expect("a database");
    let url = postgres.url("imgsrv");
    let server = Server::start_in(Folder::new(), &["--postgres-url", &url]);
    let writer = server.writer().await;
    writer.release("debian", "1.0", b"bytes").await;
    drop(postgres);
    let (reader, blob) = (server.anonymous(), format!("/v1/blobs/{}", digest(b"bytes")));
    // At once, because each of them waits a while for a connection.
    let (ready, answers) = tokio::join!(
        reader.get("/readyz"),
        // A token that cannot be looked up is not one that is no good.
        join_all(
            [(&reader, "/v1/images"), (&reader, &blob), (&writer, "/v1/images"), (&writer, "/v1/uploads")]
                .map(|(api, path)| api.get(path))
        )
    );
    let ready = ready.problem(503, "unavailable");
    let detail = ready["detail"].as_str().expect("a detail");
    assert!(detail.contains("database") && !detail.contains("store"), "{detail}");
    for problem in answers.iter().map(|answer| answer.problem(503, "unavailable")).chain([ready]) {
        let problem = problem.to_string();
        assert!(!problem.contains("127.0.0.1") && !problem.contains("postgres"), "{problem}");
    }
    server.anonymous().get("/v1/uploads").await.problem(401, "unauthorized");
    server.anonymous().get("/healthz").await.no_content();
    server.stop();
}

/// A client that goes on reading while the database comes and goes.
struct Reader {
    answered: AtomicU32,
    refused: AtomicU32,
}

impl Reader {
    async fn read(&self, api: Api, path: String, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let answer = api.get(&path).await;
            match answer.status.as_u16() {
                200 => self.answered.fetch_add(1, Ordering::Relaxed),
                // That it says when to come back is checked of every answer.
                _ => {
                    answer.problem(503, "unavailable");
                    self.refused.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }
}

/// Waits until something holds for each of some counts.
async fn until(readers: &[Arc<Reader>], holds: impl Fn(&Reader) -> bool) {
    while !readers.iter().all(|reader| holds(reader)) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_restarted_is_found_again() {
    let mut postgres = Postgres::start().expect("PostgreSQL");
    postgres.create_database("imgsrv").expect("a database");
    let arguments = ["--job-lease=2s", "--cas-promotion-error-backoff=10ms", "--cas-promotion-error-backoff-max=100ms"];
    let url = postgres.url("imgsrv");
    let server = Server::start_in(Folder::new(), &[&["--postgres-url", &url], &arguments[..]].concat());
    let (api, anybody) = (server.writer().await, server.anonymous());
    let artifact = api.release("debian", "1.0", b"published").await;

    // A job that is tried again and again: the store cannot tell what it has of one blob.
    let stuck = bytes(1, 1000);
    api.draft("debian", "2.0", &stuck).await;
    let (objects, away) = (server.folder.objects_of(&stuck), server.folder.path().join("away"));
    std::fs::rename(&objects, &away).expect("objects");
    std::fs::write(&objects, "in the way").expect("a file");
    let job = id(&api.act("/v1/images/debian/versions/2.0/publish").await.accepted());
    let job_path = format!("/v1/publish-jobs/{job}");
    while api.get(&job_path).await.ok()["steps"][0]["attempt_count"].as_i64() < Some(2) {}

    // A part whose last byte has not been sent.
    let whole = bytes(2, 300_000);
    let upload = id(&api.begin(&whole).await);
    let (go_on, told) = oneshot::channel::<()>();
    let (head, tail) = (whole[..200_000].to_vec(), whole[200_000..].to_vec());
    let rest = stream::once(async move {
        told.await.ok();
        Ok::<_, std::io::Error>(tail)
    });
    let body = Body::wrap_stream(stream::iter([Ok(head)]).chain(rest));
    let request = api.request(Method::PUT, &format!("/v1/uploads/{upload}/parts/1")).body(body);
    let part = tokio::spawn(send(request));
    let writing = "select count(*) from part_attempts where state = 'writing'";
    crate::server::until("the part is in progress", async || {
        tokio::task::block_in_place(|| postgres.psql("imgsrv", writing)).expect(writing) == "1"
    })
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let paths = [
        (&anybody, "/v1/images/debian/versions/1.0".to_owned()),
        (&anybody, format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download")),
        (&anybody, format!("/v1/blobs/{}", digest(b"published"))),
        (&api, "/v1/uploads".to_owned()),
        (&api, job_path),
    ];
    let readers: Vec<_> = paths.iter().map(|_| Arc::new(Reader { answered: 0.into(), refused: 0.into() })).collect();
    let reading: Vec<_> = paths
        .into_iter()
        .zip(&readers)
        .map(|((api, path), reader)| {
            let (api, reader, stop) = (api.clone(), Arc::clone(reader), Arc::clone(&stop));
            tokio::spawn(async move { reader.read(api, path, stop).await })
        })
        .collect();
    until(&readers, |reader| reader.answered.load(Ordering::Relaxed) > 2).await;

    tokio::task::block_in_place(|| postgres.stop()).expect("it stops");
    go_on.send(()).expect("a part in progress");
    // At once, because each of them waits a while for a connection.
    let (ready, part, publish, ()) = tokio::join!(
        anybody.get("/readyz"),
        part,
        api.act("/v1/images/debian/versions/2.0/publish"),
        until(&readers, |reader| reader.refused.load(Ordering::Relaxed) > 0),
    );
    assert_eq!(ready.problem(503, "unavailable")["detail"], "no answer from: database");
    part.expect("an answer").problem(503, "unavailable");
    publish.problem(503, "unavailable");

    tokio::task::block_in_place(|| postgres.start_again()).expect("it starts");
    while anybody.get("/readyz").await.status.as_u16() != 204 {}
    let before: Vec<_> = readers.iter().map(|reader| reader.answered.load(Ordering::Relaxed)).collect();
    for (reader, before) in readers.iter().zip(before) {
        until(std::slice::from_ref(reader), |reader| reader.answered.load(Ordering::Relaxed) > before + 1).await;
    }
    let refused: Vec<_> = readers.iter().map(|reader| reader.refused.load(Ordering::Relaxed)).collect();
    let part = api.put_part(&upload, 1, whole.clone()).await.ok();
    assert_eq!(api.complete(&upload, &[part]).await.ok()["state"], "ready");
    std::fs::remove_file(&objects).expect("the file");
    std::fs::rename(&away, &objects).expect("objects");
    assert_eq!(api.wait_for_job(&job).await["state"], "succeeded");
    api.release("debian", "3.0", b"afterwards").await;
    stop.store(true, Ordering::Relaxed);
    for reading in reading {
        reading.await.expect("no other answer than these");
    }
    let later: Vec<_> = readers.iter().map(|reader| reader.refused.load(Ordering::Relaxed)).collect();
    assert_eq!(later, refused, "no connection that the restart has cut fails a request afterwards");
    server.stop();
}

/// A command of the program on a PostgreSQL.
fn command(folder: &Folder, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("--data-dir").arg(folder.data()).args(["--postgres-url", url]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The lines that a program says, as it says them.
fn lines(child: &mut Child) -> impl Iterator<Item = String> {
    let stderr = child.stderr.take().expect("standard error");
    BufReader::new(stderr).lines().map(|line| line.expect("UTF-8"))
}

#[test]
fn a_start_waits_for_its_database() {
    let mut postgres = Postgres::start().expect("PostgreSQL");
    postgres.create_database("imgsrv").expect("a database");
    postgres.stop().expect("it stops");
    let (folder, url) = (Folder::new(), postgres.url("imgsrv").replace("imgsrv@", "imgsrv:hunter2@"));
    for arguments in [&["migrate"][..], &["check"]] {
        let mut child =
            command(&folder, &url, arguments).args(["--postgres-connect-timeout", "10m"]).spawn().expect("a program");
        let mut lines = lines(&mut child);
        let waiting = lines.next().expect("a line");
        assert!(waiting.contains(&format!("waiting for PostgreSQL at 127.0.0.1:{}", postgres.port())), "{waiting}");
        postgres.start_again().expect("it starts");
        let rest: Vec<String> = lines.collect();
        assert!(!waiting.contains("hunter2") && !rest.concat().contains("hunter2"), "{rest:?}");
        assert!(child.wait().expect("its end").success(), "{rest:?}");
        postgres.stop().expect("it stops");
    }
    // Whoever waits can be told not to.
    let mut child = command(&folder, &url, &["--listen", "127.0.0.1:0"]).spawn().expect("a program");
    lines(&mut child).next().expect("a line");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill").success());
    assert!(child.wait().expect("its end").success());
}

#[test]
fn what_waiting_does_not_mend_is_not_waited_for() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let folder = Folder::new();
    for sql in [
        "create database imgsrv".to_owned(),
        "create role guest login password 'secret'".to_owned(),
        // The server trusts everybody who has not this name.
        format!(
            "copy (values ('host all guest 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust')) to '{}'",
            postgres.psql("postgres", "show hba_file").expect("a path")
        ),
        "select pg_reload_conf()".to_owned(),
    ] {
        postgres.psql("postgres", &sql).expect(&sql);
    }
    let port = postgres.port();
    for (url, why) in [
        (format!("postgres://guest:hunter2@127.0.0.1:{port}/imgsrv"), "password authentication failed"),
        (format!("postgres://imgsrv:hunter2@127.0.0.1:{port}/other"), "database \"other\" does not exist"),
        (format!("postgres://imgsrv:hunter2@127.0.0.1:{port}/imgsrv?sslmode=require"), "TLS"),
    ] {
        let output = command(&folder, &url, &["migrate", "--postgres-connect-timeout=10m"]).output().expect("an end");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.starts_with(&format!("error: PostgreSQL at 127.0.0.1:{port} is not usable: ")), "{said}");
        assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
    }
}
