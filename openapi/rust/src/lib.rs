//! A client of imgsrv, generated from its specification: an operation is a method of [`Client`] that returns a builder.
//!
//! Bodies of parts and downloads are streams. What the server refuses is an [`Error::ErrorResponse`] with a
//! [`types::Problem`].

use std::time::Duration;

#[allow(clippy::all, clippy::pedantic, clippy::unwrap_used, missing_docs, unreachable_pub, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/client.rs"));
}

pub use generated::*;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

/// A client of the server at this URL, with a token if it has one.
///
/// A transfer may take hours. A connection to a host that is gone ends after 30 seconds (on Linux).
///
/// # Errors
/// When the token cannot stand in a header, or TLS cannot be set up.
#[expect(clippy::result_large_err, reason = "it is the error of every operation")]
pub fn connect(url: &str, token: Option<&str>) -> Result<Client, Error> {
    connect_with(reqwest::Client::builder(), url, token)
}

/// The same, for who has certificates, a proxy or another name to set.
///
/// # Errors
/// When the token cannot stand in a header, or TLS cannot be set up.
#[expect(clippy::result_large_err, reason = "it is the error of every operation")]
pub fn connect_with(builder: reqwest::ClientBuilder, url: &str, token: Option<&str>) -> Result<Client, Error> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    // What reqwest calls a read timeout would also end a long upload, whose answer comes when all of it is sent.
    let client = builder.connect_timeout(Duration::from_secs(15)).default_headers(headers).build()?;
    Ok(Client::new_with_client(url.trim_end_matches('/'), client))
}
