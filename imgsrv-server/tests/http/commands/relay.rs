//! What stands between the commands and the server, counts what passes, and may hold it back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A relay of TCP connections. What a connection holds when it is not to pass any more waits.
pub(super) struct Relay {
    pub(super) url: String,
    target: watch::Sender<SocketAddr>,
    pub(super) up: Arc<Gate>,
    pub(super) down: Arc<Gate>,
    _relaying: AbortOnDropHandle<()>,
}

/// One of the two ways.
#[derive(Debug, Default)]
pub(super) struct Gate {
    passed: watch::Sender<u64>,
    /// How much may pass in all; nothing is everything.
    limit: watch::Sender<Option<u64>>,
}

impl Relay {
    pub(super) async fn before(server: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let target = watch::Sender::new(server.parse().expect("an address"));
        let (up, down) = (Arc::<Gate>::default(), Arc::<Gate>::default());
        let (to, gates) = (target.subscribe(), (Arc::clone(&up), Arc::clone(&down)));
        let relaying = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, (up, down)) = (*to.borrow(), gates.clone());
                tokio::spawn(async move {
                    // Where there is no server, the client finds its connection closed.
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::join!(carry(from_client, to_server, &up), carry(from_server, to_client, &down));
                });
            }
        });
        Self { url, target, up, down, _relaying: AbortOnDropHandle::new(relaying) }
    }

    /// Where connections lead that are made from now on.
    pub(super) fn lead_to(&self, server: &str) {
        self.target.send_replace(server.parse().expect("an address"));
    }
}

impl Gate {
    pub(super) fn passed(&self) -> u64 {
        *self.passed.borrow()
    }

    /// Lets so many bytes more pass, and waits until they have.
    pub(super) async fn let_pass(&self, bytes: u64) {
        let limit = self.passed() + bytes;
        self.limit.send_replace(Some(limit));
        self.passed.subscribe().wait_for(|passed| *passed >= limit).await.expect("a gate");
    }

    pub(super) fn open(&self) {
        self.limit.send_replace(None);
    }

    async fn pass(&self, bytes: u64) {
        let mut limit = self.limit.subscribe();
        limit.wait_for(|limit| limit.is_none_or(|limit| self.passed() < limit)).await.expect("a gate");
        self.passed.send_modify(|passed| *passed += bytes);
    }
}

/// One way of a connection. Either end of it is the end of it.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: &Gate) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        gate.pass(count as u64).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}
