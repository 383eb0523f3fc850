//! Two nodes on PostgreSQL and a shared folder.

use futures_util::future::join_all;
use imgsrv_core::testing::Postgres;

use crate::server::{Folder, Server, bytes, digest, id};

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
