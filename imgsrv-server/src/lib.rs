//! The HTTP face of [`imgsrv_core`]: routes, rights, errors and the specification.
//!
//! A program that has an engine mounts it in three lines:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use imgsrv_server::{Limits, Readiness, auth::Authenticator};
//! # async fn serve(engine: imgsrv_core::Engine, authenticator: Arc<dyn Authenticator>) -> std::io::Result<()> {
//! let app = imgsrv_server::app(engine, authenticator, Readiness::default(), Limits::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! imgsrv_server::serve(listener, app, std::future::pending(), std::time::Duration::ZERO).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`serve_tls`] does the same over TLS. Whoever brings their own identities implements [`auth::Authenticator`].

pub mod auth;

mod api;
mod attempts;
mod body;
mod caching;
mod capacity;
mod coding;
pub mod conditional;
mod connections;
pub mod content_digest;
mod directory;
mod download;
mod edge;
mod extract;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod lingering;
mod meta;
mod negotiation;
mod number;
mod optional;
mod paced;
mod problem;
pub mod range;
mod redirect;
mod request_id;
mod said;
mod spec;
mod text;
mod tls;
mod view;

use std::sync::Arc;

use imgsrv_core::Engine;
use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt, IntoEndpoint};

pub use api::Readiness;
use auth::Authenticator;
pub use capacity::Limits;
pub use connections::{serve, serve_tls};
pub use tls::{Tls, TlsError};

/// Every route, answering with the engine's data to whom the authenticator lets in.
///
/// Errors, panics and requests that no route wants are answered here, so the endpoint never fails.
pub fn app(
    engine: Engine,
    authenticator: Arc<dyn Authenticator>,
    readiness: Readiness,
    limits: Limits,
) -> BoxEndpoint<'static> {
    let clock = engine.clock().clone();
    api::service()
        .into_endpoint()
        .before(body::prepare)
        .before(directory::route)
        .data(engine)
        .data(authenticator)
        .data(readiness)
        .data(capacity::Capacity::new(limits))
        .data(attempts::FailedAttempts::default())
        .data(coding::Compressed::default())
        .around(move |inner, request| edge::answer(clock.clone(), inner, request))
        // The type of the whole is one that `tokio::spawn` cannot see through; boxed, it can.
        .boxed()
}

/// The specification (OpenAPI 3.0) that `/openapi.json` serves. Needs no database.
pub fn specification() -> serde_json::Value {
    spec::document().clone()
}
