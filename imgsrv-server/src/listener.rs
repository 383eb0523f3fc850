//! Accepting connections.

use std::io;
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::{Acceptor, TcpAcceptor};
use poem::web::{LocalAddr, RemoteAddr};
use tokio::net::TcpStream;

/// Long enough not to burn a core while there are no file descriptors, short enough for nobody to notice otherwise.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts TCP connections for as long as it lives, whatever happens.
pub(crate) struct SteadyAcceptor {
    inner: TcpAcceptor,
    failing: bool,
}

impl SteadyAcceptor {
    pub(crate) fn new(listener: tokio::net::TcpListener) -> io::Result<Self> {
        Ok(Self { inner: TcpAcceptor::from_tokio(listener)?, failing: false })
    }
}

impl Acceptor for SteadyAcceptor {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.inner.local_addr()
    }

    /// Never fails: the server would ask again at once, and again, for as long as it lasts.
    async fn accept(&mut self) -> io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        loop {
            match self.inner.accept().await {
                Ok(accepted) => {
                    self.failing = false;
                    // Without it a small answer waits for the client's delayed acknowledgement, 40 ms each time. It
                    // fails for a connection that is gone already, which the first read will tell.
                    let _ = accepted.0.set_nodelay(true);
                    return Ok(accepted);
                }
                Err(err) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(error = %err, "connections cannot be accepted");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
