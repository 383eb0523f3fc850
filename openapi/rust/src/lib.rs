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
/// A transfer may take hours, as long as something arrives every minute; [`Client::new`] would end it after seconds.
///
/// # Errors
/// When the token cannot stand in a header, or TLS cannot be set up.
#[expect(clippy::result_large_err, reason = "it is the error of every operation")]
pub fn connect(url: &str, token: Option<&str>) -> Result<Client, Error> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(15))
        .read_timeout(Duration::from_mins(1))
        .default_headers(headers)
        .build()?;
    Ok(Client::new_with_client(url.trim_end_matches('/'), client))
}
