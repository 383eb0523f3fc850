//! A PostgreSQL that is gone without a word: no connection to it ends, and none answers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use imgsrv_core::sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
use imgsrv_core::testing::Postgres;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::server::{Folder, Server, until};

/// What stands before PostgreSQL and, like a network, may lose what it is given without telling anybody.
struct Network {
    port: u16,
    carries: watch::Sender<Carries>,
    _carrying: AbortOnDropHandle<()>,
}

/// The connections that the network carries.
#[derive(Clone, Copy, Debug, Default)]
struct Carries {
    nothing: bool,
    /// Connections are numbered; those before this one are lost for good.
    from: usize,
    made: usize,
}

impl Network {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let carries = watch::Sender::new(Carries::default());
        let told = carries.clone();
        let carrying = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = told.borrow().made;
                told.send_modify(|carries| carries.made += 1);
                tokio::spawn(carry(client, server, number, told.subscribe()));
            }
        });
        Self { port, carries, _carrying: AbortOnDropHandle::new(carrying) }
    }

    fn lose_everything(&self) {
        self.carries.send_modify(|carries| carries.nothing = true);
    }

    fn find_everything(&self) {
        self.carries.send_modify(|carries| carries.nothing = false);
    }

    /// Carries new connections, but none that there were.
    fn forget_connections(&self) {
        self.carries.send_modify(|carries| *carries = Carries { nothing: false, from: carries.made, ..*carries });
    }
}

async fn carry(client: TcpStream, server: u16, number: usize, mut carries: watch::Receiver<Carries>) {
    carries.wait_for(|carries| !carries.nothing).await.expect("the network stands");
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(
        carry_one_way(from_client, to_server, number, carries.clone()),
        carry_one_way(from_server, to_client, number, carries),
    );
}

async fn carry_one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: usize,
    mut carries: watch::Receiver<Carries>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if carries.wait_for(|carries| !carries.nothing && carries.from <= number).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            to.shutdown().await.ok();
            return;
        }
    }
}

/// With the five seconds that a connection is waited for and one for the way, a statement has nine.
const STATEMENT_TIMEOUT: &str = "3s";
/// What nobody waits longer for, on a machine that builds beside it.
const LIMIT: Duration = Duration::from_secs(14);
/// One, so that its place is missed when it is lost.
const CONNECTIONS: &str = "1";

/// Another program's connection, in a transaction that keeps everybody from images.
async fn lock_images(url: &str) -> DatabaseConnection {
    let other = Database::connect(ConnectOptions::new(url).max_connections(1).to_owned()).await.expect("a connection");
    other.execute_unprepared("begin; lock table images").await.expect("a lock");
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_not_waited_for_without_an_end() {
    let postgres = Postgres::start().expect("PostgreSQL");
    postgres.create_database("imgsrv").expect("a database");
    let network = Network::before(postgres.port()).await;
    let url = postgres.url("imgsrv").replace(&postgres.port().to_string(), &network.port.to_string());
    let flags = ["--postgres-url", &url, "--postgres-statement-timeout", STATEMENT_TIMEOUT, "--job-lease", "2s"];
    let server = Server::start_in(Folder::new(), &[&flags[..], &["--postgres-connections", CONNECTIONS]].concat());
    let (writer, reader) = (server.writer().await, server.anonymous());
    let ask = |sql: &str| tokio::task::block_in_place(|| postgres.psql("imgsrv", sql)).expect(sql);

    for (version, comes_back) in [("1.0", true), ("2.0", false)] {
        writer.release("debian", version, version.as_bytes()).await;
        writer.draft("fedora", version, b"draft").await;

        let other = lock_images(&postgres.url("imgsrv")).await;
        let in_flight = tokio::spawn({
            let writer = writer.clone();
            async move { writer.post("/v1/images", json!({"name": format!("new{version}")})).await }
        });
        let waiting = "select count(*) from pg_stat_activity where datname = 'imgsrv' and wait_event_type = 'Lock'";
        until("a statement waits", async || ask(waiting) != "0").await;
        network.lose_everything();
        let lost = Instant::now();
        in_flight.await.expect("an answer").problem(503, "unavailable");
        let given_up = lost.elapsed();
        assert!(given_up < LIMIT, "answered after {given_up:?}");
        other.close().await.expect("closed");
        // At once, because each of them waits a while for a connection.
        let publish = format!("/v1/images/fedora/versions/{version}/publish");
        let asked = Instant::now();
        let answers = tokio::join!(
            reader.get("/v1/images"),
            reader.get("/readyz"),
            reader.get("/streams/v1/images.json"),
            writer.act(&publish)
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            answer.problem(503, "unavailable");
        }
        assert!(asked.elapsed() < LIMIT, "answered after {:?}", asked.elapsed());

        if comes_back {
            network.find_everything()
        } else {
            network.forget_connections()
        }
        let back = Instant::now();
        until("the server is ready", async || reader.get("/readyz").await.status == 204).await;
        let ready = back.elapsed();
        let all = (0..16).map(|_| async { reader.get("/v1/images/debian/versions/1.0").await.ok() });
        futures_util::future::join_all(all).await;
        let job = writer.act(&publish).await.accepted();
        assert_eq!(writer.wait_for_job(&crate::server::id(&job)).await["state"], "succeeded", "workers go on");
        println!("given up after {given_up:?}; back and ready after {ready:?}, a job done after {:?}", back.elapsed());
        let open =
            "select count(*) from pg_stat_activity where datname = 'imgsrv' and state like 'idle in transaction%'";
        until("no transaction is left open", async || ask(open) == "0").await;
    }
    server.stop();
}
