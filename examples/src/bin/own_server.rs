//! The HTTP face in a server of one's own, with an idea of its own of who may do what.
//!
//! `SECRET=… cargo run -p imgsrv-examples --bin own_server -- FOLDER ADDRESS`

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use imgsrv_core::BoxError;
use imgsrv_server::Readiness;
use imgsrv_server::auth::{Action, AuthError, Authenticator, Principal};
use poem::http::HeaderMap;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{EndpointExt, Route, Server, get, handler};
use tokio_util::sync::CancellationToken;

/// Whoever knows the secret may do everything.
struct OneSecret(String);

#[async_trait]
impl Authenticator for OneSecret {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let given = headers.get("authorization").and_then(|value| value.to_str().ok());
        if given == Some(&format!("Bearer {}", self.0)) {
            Ok(Principal { id: "owner".to_owned(), actions: vec![Action::WriteContent, Action::ManageAuth] })
        } else {
            Err(AuthError::Unauthenticated("the secret is not the one".to_owned()))
        }
    }
}

#[handler]
fn hello() -> &'static str {
    "my own page, beside the images"
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(address)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("usage: own_server FOLDER ADDRESS".into());
    };
    let secret = std::env::var("SECRET")?;

    let engine = imgsrv_examples::open(&folder).await?.build().await?;
    let stop = CancellationToken::new();
    let working = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.run(stop).await }
    });

    let images = imgsrv_server::app(engine, Arc::new(OneSecret(secret)), Readiness::default());
    let app = Route::new().at("/hello", get(hello)).nest("/", images.map_to_response());
    let acceptor = TcpListener::bind(address).into_acceptor().await?;
    println!("{}", acceptor.local_addr()[0]);
    Server::new_with_acceptor(acceptor)
        .run_with_graceful_shutdown(app, async { tokio::signal::ctrl_c().await.unwrap_or_default() }, None)
        .await?;
    stop.cancel();
    working.await?;
    Ok(())
}
