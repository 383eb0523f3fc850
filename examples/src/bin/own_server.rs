//! The HTTP face in a server of one's own, with an idea of its own of who may do what.
//!
//! `SECRET=… cargo run -p imgsrv-examples --bin own_server -- FOLDER ADDRESS`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use imgsrv_core::BoxError;
use imgsrv_core::model::Digest;
use imgsrv_server::auth::{Action, AuthError, Authenticator, Principal};
use imgsrv_server::{Limits, Readiness};
use poem::http::HeaderMap;
use poem::{EndpointExt, Route, get, handler};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whoever knows the secret may publish. Nobody manages access: there is nothing else to know.
struct OneSecret(String);

#[async_trait]
impl Authenticator for OneSecret {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let given = headers.get("authorization").and_then(|value| value.to_str().ok());
        let secret = given.and_then(|given| given.strip_prefix("Bearer ")).unwrap_or_default();
        // Digests are compared, so that the time that it takes tells nothing of the secret.
        if Digest::of(secret.as_bytes()) == Digest::of(self.0.as_bytes()) {
            Ok(Principal { id: "owner".to_owned(), actions: vec![Action::WriteContent] })
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

    let images = imgsrv_server::app(engine, Arc::new(OneSecret(secret)), Readiness::default(), Limits::default());
    let app = Route::new().at("/hello", get(hello)).nest("/", images.map_to_response());
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    let interrupted = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    imgsrv_server::serve(listener, app, interrupted, Duration::from_secs(10)).await;
    stop.cancel();
    working.await?;
    Ok(())
}
