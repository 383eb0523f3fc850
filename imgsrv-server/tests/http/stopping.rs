//! A stop that takes its time: what has begun is finished, nothing new begins.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::server::{Server, bytes};

#[tokio::test(flavor = "multi_thread")]
async fn a_download_in_progress_is_finished() {
    let server = Server::start();
    let whole = bytes(1, 32 << 20);
    let artifact = server.writer().await.release("debian", "1.0", &whole).await;
    let address = server.address().to_owned();
    let mut download = TcpStream::connect(&address).expect("a connection");
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    download.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).expect("sent");
    let mut received = vec![0; 1000];
    download.read_exact(&mut received).expect("the beginning");

    assert!(Command::new("kill").args(["-TERM", &server.pid().to_string()]).status().expect("kill").success());
    while TcpStream::connect(&address).is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    download.read_to_end(&mut received).expect("the rest");
    assert!(received.ends_with(&whole), "all of it, though the server was told to stop");
    server.wait_for_a_good_end();
}
