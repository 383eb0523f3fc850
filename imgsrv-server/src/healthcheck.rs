//! Asks a server that runs with the same configuration how it is: what a supervisor calls that has no HTTP client.

mod pinned;

use std::error::Error;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cli::Failure;
use crate::config::Config;
use crate::serve;

/// Longer than a server waits for its database, or it would have no time to name what is missing.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any problem that is ours.
const LARGEST_PROBLEM: usize = 64 << 10;

/// Succeeds if the server that this configuration describes is ready.
pub(crate) async fn healthcheck(config: &Config) -> Result<(), Failure> {
    let listen = &config.listen;
    let tls = match config.tls().map_err(Failure::Config)? {
        Some(files) => Some(pinned::connector(&files.cert).await?),
        None => None,
    };
    let addresses: Vec<_> = serve::addresses(listen).await?.into_iter().map(reachable).collect();
    match tokio::time::timeout(TIMEOUT, ask(&addresses, tls.as_ref())).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(reason))) => Err(Failure::run(format!("not ready: {reason}"))),
        Ok(Err(err)) => Err(Failure::run(format!("no answer on {listen}: {err}"))),
        Err(_) => Err(Failure::run(format!("no answer on {listen} within {} s", TIMEOUT.as_secs()))),
    }
}

/// Where to find a server that listens there: every address is none that one could connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Why the server at the first of these that takes a connection is not ready, if it is not.
async fn ask(addresses: &[SocketAddr], tls: Option<&TlsConnector>) -> Result<Option<String>, Box<dyn Error>> {
    let socket = TcpStream::connect(addresses).await?;
    let host = socket.peer_addr()?.to_string();
    match tls {
        Some(tls) => ask_on(pinned::connect(tls, socket).await?, host).await,
        None => ask_on(socket, host).await,
    }
}

async fn ask_on<I>(io: I, host: String) -> Result<Option<String>, Box<dyn Error>>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = Request::get("/readyz").header(HOST, host).body(String::new())?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    // What goes wrong with the connection goes wrong with the request as well.
    tokio::spawn(connection);
    let response = client.send_request(request).await?;
    let status = response.status();
    if status == StatusCode::NO_CONTENT {
        return Ok(None);
    }
    let problem: Value = serde_json::from_slice(&read(response.into_body()).await?).unwrap_or_default();
    Ok(Some(problem["detail"].as_str().map_or_else(|| format!("the answer is {status}"), str::to_owned)))
}

async fn read(mut body: Incoming) -> hyper::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < LARGEST_PROBLEM
        && let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_find_a_server() {
        for (listens, found) in [
            ("[::]:8080", "[::1]:8080"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[fd00::2]:80", "[fd00::2]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), found.parse().unwrap());
        }
    }
}
