//! Requests byte by byte, for what no client library would send.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::client::PATIENCE;
use super::{Api, Server};

/// The head of a request with the client's token and these further lines, each without its end.
pub(crate) fn request(api: &Api, method: &str, path: &str, lines: &[&str]) -> String {
    let token = api.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{token}{lines}\r\n")
}

pub(crate) fn connect(server: &Server) -> TcpStream {
    let connection = TcpStream::connect(server.address()).expect("a connection");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    connection
}

/// Sends bytes as they are; what comes back before the server closes.
pub(crate) fn raw(server: &Server, request: &[u8]) -> String {
    exchange(server, request, false)
}

/// The same, with the client's side closed: a server that waits for more bytes learns that none come.
pub(crate) fn half_closed(server: &Server, request: &[u8]) -> String {
    exchange(server, request, true)
}

fn exchange(server: &Server, request: &[u8], and_done: bool) -> String {
    let mut connection = connect(server);
    // The server may have answered and closed before it has all of this.
    connection.write_all(request).ok();
    if and_done {
        connection.shutdown(Shutdown::Write).ok();
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // A reset may follow the answer.
    while let Ok(read @ 1..) = connection.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// What has come back once this text is in it.
pub(crate) fn read_until(connection: &mut TcpStream, text: &str) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&answer).contains(text) {
        connection.read_exact(&mut byte).unwrap_or_else(|err| panic!("{err}: {}", String::from_utf8_lossy(&answer)));
        answer.push(byte[0]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
