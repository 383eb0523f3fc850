//! An S3 store in this process: the protocol over TCP, the objects in a folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const ACCESS_KEY_ID: &str = "tester";
pub(crate) const SECRET_ACCESS_KEY: &str = "a secret of nobody";
pub(crate) const BUCKET: &str = "bucket";

/// A server that ends when this value is dropped.
pub(crate) struct S3 {
    pub address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl S3 {
    pub(crate) async fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join(BUCKET)).expect("a bucket");
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder).expect("a folder"));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let service = builder.build();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // A small answer would wait for a delayed acknowledgement, 40 ms each time.
                socket.set_nodelay(true).ok();
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(socket), service.clone()));
            }
        });
        Self { address, _serving: AbortOnDropHandle::new(serving) }
    }
}

/// How many objects were begun and neither finished nor given up. Unlike Garage, such a server, as most are, does not
/// give them up when an object of their name is deleted.
pub(crate) fn unfinished(folder: &Path) -> u64 {
    let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".upload-")).count() as u64
}
