//! The examples do what they say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn embed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.raw");
    std::fs::write(&file, "a very small disk").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).arg(folder.path()).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "validate_catalog succeeded",
            "incus_index succeeded",
            "not_empty succeeded",
            "finalize_publish succeeded",
            "example 1.0: 17 bytes",
        ]
    );
}

#[test]
fn own_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_own_server"))
        .arg(folder.path())
        .arg("127.0.0.1:0")
        .env("SECRET", "open sesame")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let address = address.trim().trim_start_matches("socket://");
    let ask = |request: &str| {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(format!("{request}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask("GET /hello HTTP/1.1").ends_with("my own page, beside the images"));
    assert!(ask("GET /v1/images HTTP/1.1").ends_with(r#"{"images":[]}"#));
    assert!(ask("GET /v1/uploads HTTP/1.1").starts_with("HTTP/1.1 401"));
    assert!(ask("GET /v1/uploads HTTP/1.1\r\nauthorization: Bearer open sesame").starts_with("HTTP/1.1 200"));
    assert!(Command::new("kill").args(["-INT", &server.id().to_string()]).status().unwrap().success());
    assert!(server.wait().unwrap().success());
}
