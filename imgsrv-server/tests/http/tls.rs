//! TLS that the server speaks itself: nothing is told in clear text, and certificates are renewed under way.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{KeyPair, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::server::{Api, Authority, Server, bytes, connect, program, raw, read_until, request, send, until};

/// A connection of a client that trusts the authority.
async fn dial(server: &Server, authority: &Authority) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca_file()).expect("PEM")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(server.address()).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake")
}

/// The certificate that a connection begins with.
fn shown(connection: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    connection.get_ref().1.peer_certificates().expect("certificates")[0].clone().into_owned()
}

fn issued(authority: &Authority) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(authority.cert_file()).expect("PEM")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_published_and_downloaded() {
    let (server, authority) = Server::start_tls(&[]);
    let whole = bytes(1, 3 << 20);
    let artifact = server.writer().await.release("debian", "1.0", &whole).await;
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    let anonymous = server.anonymous();
    assert_eq!(anonymous.get(&path).await.body, whole);
    assert_eq!(anonymous.get_with(&path, &[("range", "bytes=1-9")]).await.body, whole[1..10]);
    assert!(server.url.starts_with("https://127.0.0.1:"));
    assert_eq!(shown(&dial(&server, &authority).await), issued(&authority));

    let stranger = Api::new(&server.url, None, None).request(reqwest::Method::GET, "/healthz").send().await;
    assert!(stranger.expect_err("an authority that it does not know").is_connect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_clear_text_is_sent_on() {
    let (server, authority) = Server::start_tls(&[]);
    for (head, place) in [
        ("GET /streams/v1/index.json?a=b&c HTTP/1.1\r\nhost: h:8443", "https://h:8443/streams/v1/index.json?a=b&c"),
        ("HEAD /v1/images HTTP/1.1\r\nhost: images.example.org", "https://images.example.org/v1/images"),
        ("DELETE /nowhere HTTP/1.1\r\nhost: [::1]:80\r\nx-request-id: mine", "https://[::1]:80/nowhere"),
        ("GET http://a.example.org/x HTTP/1.1\r\nhost: b.example.org", "https://a.example.org/x"),
        ("GET / HTTP/1.0\r\nhost: h", "https://h/"),
    ] {
        let begun = Instant::now();
        let answer = raw(&server, format!("{head}\r\n\r\n").as_bytes());
        assert!(answer.contains(" 301 Moved Permanently\r\n"), "{answer}");
        assert!(answer.contains(&format!("location: {place}\r\n")), "{answer}");
        assert!(answer.contains("\r\nx-request-id: ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(!head.contains("mine") || answer.contains("\r\nx-request-id: mine\r\n"), "{answer}");
        assert!(answer.contains("cache-control: private, no-store\r\n"), "what is sent on is nobody else's: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a/b\r\n", "host: \r\n"] {
        let answer = raw(&server, format!("GET / HTTP/1.1\r\n{hosts}connection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
        assert!(answer.contains("\"type\":\"urn:imgsrv:problem:invalid\""), "{answer}");
    }
    // Who does as it is told gets there.
    let plain = Api::new(&server.url.replace("https", "http"), None, Some(&authority.ca_file()));
    assert_eq!(plain.get("/openapi.json").await.ok(), imgsrv_server::specification());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_still_sending_hears_where_to() {
    let (server, _) = Server::start_tls(&[]);
    let length = format!("content-length: {}", 16 << 20);
    for lines in [&[length.as_str()][..], &[length.as_str(), "expect: 100-continue"]] {
        let mut head = request(&server.manager(), "PUT", "/v1/uploads/x/parts/1", lines).into_bytes();
        head.extend(bytes(1, 16 << 20));
        let answer = raw(&server, &head);
        assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
        assert!(answer.contains("location: https://x/v1/uploads/x/parts/1\r\n"), "{answer}");
    }
    // It need not send all, or any, of it to hear.
    let mut connection = connect(&server);
    connection.write_all(request(&server.manager(), "POST", "/v1/images", &[&length]).as_bytes()).expect("sent");
    assert!(read_until(&mut connection, "\r\n\r\n").starts_with("HTTP/1.1 301 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let (server, authority) = Server::start_tls(&[]);
    let mut connection = dial(&server, &authority).await;
    let whole = bytes(1, 8 << 20);
    let length = format!("content-length: {}", whole.len());
    let head = request(&server.anonymous(), "PUT", "/v1/uploads/x/parts/1", &[&length]);
    connection.write_all(head.as_bytes()).await.expect("sent");
    connection.write_all(&whole).await.expect("the server reads on");
    let mut answer = String::new();
    // Without a `close_notify` this is an error: the answer might have been cut short.
    connection.read_to_string(&mut answer).await.expect("an orderly end");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");

    let part = server.anonymous().request(reqwest::Method::PUT, "/v1/uploads/x/parts/1").body(whole);
    send(part).await.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_whoever_comes_next() {
    let (server, authority) = Server::start_tls(&[]);
    let mut stays = dial(&server, &authority).await;
    let first = issued(&authority);
    assert_eq!(shown(&stays), first);

    authority.renew();
    let second = issued(&authority);
    assert_ne!(first, second);
    until("the new certificate is shown", async || shown(&dial(&server, &authority).await) == second).await;
    let ask = request(&server.anonymous(), "GET", "/healthz", &["connection: close"]);
    stays.write_all(ask.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stays.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204 "), "who is there is not sent away: {answer}");

    // In place, one after the other: for a moment they are of different pairs.
    let (certificate, key) = authority.issue();
    std::fs::write(authority.key_file(), key).expect("written");
    std::fs::write(authority.cert_file(), certificate).expect("written");
    let third = issued(&authority);
    until("the third is shown", async || shown(&dial(&server, &authority).await) == third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_be_used_leaves_the_old_one() {
    let (server, authority) = Server::start_tls(&[]);
    let first = issued(&authority);
    let another = KeyPair::generate().expect("a key").serialize_pem();
    for (file, text, complaint) in [
        (authority.key_file(), another.as_str(), "tls.key: does not belong to the certificate in "),
        (authority.key_file(), "", "tls.key: holds no private key in PEM"),
        (authority.cert_file(), "-----BEGIN CERTIFICATE-----\nAAAA", "tls.crt: not PEM"),
    ] {
        std::fs::write(&file, text).expect("written");
        until(complaint, async || server.log().contains(complaint)).await;
        assert_eq!(shown(&dial(&server, &authority).await), first);
    }
    std::fs::remove_file(authority.cert_file()).expect("removed");
    until("it is missed", async || server.log().contains("tls.crt: No such file")).await;
    assert_eq!(shown(&dial(&server, &authority).await), first);

    authority.renew();
    let second = issued(&authority);
    until("the new certificate is shown", async || shown(&dial(&server, &authority).await) == second).await;
    assert_eq!(server.log().matches("cannot be renewed").count(), 4, "each is told once: {}", server.log());
    assert!(!server.log().contains("PRIVATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_keeps_nobody_waiting() {
    let (server, authority) = Server::start_tls(&["--shutdown-timeout", "1h"]);
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
    let silent: Vec<_> = (0..60)
        .map(|number| {
            let mut connection = connect(&server);
            connection.write_all(&hello[..number % 6]).expect("sent");
            connection
        })
        .collect();
    server.anonymous().get("/healthz").await.no_content();
    let idle = dial(&server, &authority).await;

    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(20), "a stop does not wait for them: {:?}", begun.elapsed());
    drop((silent, idle));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_after_all_harms_nobody_else() {
    let (server, _) = Server::start_tls(&[]);
    for sent in
        [&b"\x16\x03\x01\x00\x02no"[..], b"\x16GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x80\x2e\x01\x03\x01", b"\0"]
    {
        let mut connection = connect(&server);
        connection.write_all(sent).expect("sent");
        drop(connection);
        server.anonymous().get("/healthz").await.no_content();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_in_progress_is_finished() {
    let (server, authority) = Server::start_tls(&[]);
    let whole = bytes(1, 32 << 20);
    let artifact = server.writer().await.release("debian", "1.0", &whole).await;
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    let mut download = dial(&server, &authority).await;
    download.write_all(request(&server.anonymous(), "GET", &path, &[]).as_bytes()).await.expect("sent");
    let mut received = vec![0; 1000];
    download.read_exact(&mut received).await.expect("the beginning");

    assert!(Command::new("kill").args(["-TERM", &server.pid().to_string()]).status().expect("kill").success());
    until("nobody else is let in", async || TcpStream::connect(server.address()).await.is_err()).await;
    download.read_to_end(&mut received).await.expect("the rest, and an orderly end");
    assert!(received.ends_with(&whole), "all of it, though the server was told to stop");
    server.wait_for_a_good_end();
}

/// What `imgsrv healthcheck` ends with, and its line if it has one.
fn healthcheck(server: &Server, flags: &[String]) -> (Option<i32>, String) {
    let output = Command::new(program()).args(["healthcheck", "--listen", server.address()]).args(flags).output();
    let output = output.expect("the program");
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_tells_whether_its_server_is_ready() {
    let (server, authority) = Server::start_tls(&[]);
    let [cert, key] = authority.flags();
    assert_eq!(healthcheck(&server, &[cert.clone(), key.clone()]), (Some(0), String::new()));
    // A server that cannot be asked in this way is none that this configuration describes.
    let (code, line) = healthcheck(&server, &[]);
    assert_eq!((code, line.as_str()), (Some(1), "error: not ready: the answer is 301 Moved Permanently\n"));
    let (code, line) = healthcheck(&server, &[cert]);
    assert_eq!((code, line.as_str()), (Some(2), "error: --tls-key-file: missing, and --tls-cert-file needs it\n"));

    // Of the same name, and of the same authority: still not the one.
    let other = server.folder.path().join("other.pem");
    for certificate in
        [authority.issue().0, generate_simple_self_signed(["localhost".to_owned()]).expect("one").cert.pem()]
    {
        std::fs::write(&other, certificate).expect("written");
        let (code, line) = healthcheck(&server, &[format!("--tls-cert-file={}", other.display()), key.clone()]);
        assert_eq!(code, Some(1));
        assert!(line.starts_with("error: no answer on ") && line.contains("another certificate"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }

    std::fs::remove_dir_all(server.folder.data().join("objects")).expect("the store");
    let reason = "error: not ready: no answer from: store\n".to_owned();
    assert_eq!(healthcheck(&server, &authority.flags()), (Some(1), reason));

    let plain = Server::start();
    let (code, line) = healthcheck(&plain, &authority.flags());
    assert_eq!(code, Some(1));
    assert!(line.starts_with("error: no answer on ") && line.lines().count() == 1, "{line}");
}
