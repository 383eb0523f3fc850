//! What a client hears that speaks plain HTTP where TLS is spoken: to ask again over TLS.

use imgsrv_core::Clock;
use poem::endpoint::make_sync;
use poem::http::uri::{Authority, PathAndQuery};
use poem::http::{HeaderValue, StatusCode, Uri, header};
use poem::{Endpoint, EndpointExt, Request, Response};

use crate::edge;
use crate::problem::Problem;

/// Sends every request to the same place over TLS. It stands in the place of the app, so that nothing of that is told
/// in clear text, and answers at once: Incus tries plain HTTP first, and waits.
pub(crate) fn endpoint() -> impl Endpoint<Output = Response> {
    make_sync(|request| respond(&request))
        .map_to_response()
        .around(|inner, request| edge::answer(Clock::system(), inner, request))
}

fn respond(request: &Request) -> poem::Result<Response> {
    let location = location(request).ok_or_else(|| Problem::invalid("Host", "must name this server"))?;
    Ok(Response::builder()
        .status(StatusCode::MOVED_PERMANENTLY)
        .header(header::LOCATION, location)
        // There is nothing more to say here.
        .header(header::CONNECTION, "close")
        .finish())
}

/// Where the same thing is over TLS, if the client says which server it means.
pub(crate) fn location(request: &Request) -> Option<HeaderValue> {
    let host = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => host(request)?,
    };
    // Neither is a part of what a Host may hold (RFC 9110 §7.2).
    if host.host().is_empty() || host.as_str().contains('@') {
        return None;
    }
    // `OPTIONS *` is about the server as a whole.
    // Printed, because there the slash is not missing that a query without a path leaves out.
    let path = request.uri().path_and_query().map(PathAndQuery::to_string).filter(|path| path.starts_with('/'));
    let path = path.as_deref().unwrap_or("/");
    let uri = Uri::builder().scheme("https").authority(host).path_and_query(path).build().ok()?;
    uri.to_string().try_into().ok()
}

fn host(request: &Request) -> Option<Authority> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location_of(uri: &str, hosts: &[&str]) -> Option<String> {
        let request = Request::builder().uri_str(uri);
        let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host)).finish();
        location(&request).map(|location| location.to_str().unwrap().to_owned())
    }

    #[test]
    fn it_is_the_same_place() {
        for (uri, host, there) in [
            ("/", "h", "https://h/"),
            ("/a/b%20c?d=e&f", "images.example.org:8443", "https://images.example.org:8443/a/b%20c?d=e&f"),
            ("//evil.example.org/", "h", "https://h//evil.example.org/"),
            ("/streams/v1/index.json", "[::1]:8080", "https://[::1]:8080/streams/v1/index.json"),
            ("http://asked/x", "other", "https://asked/x"),
            ("http://asked?x", "other", "https://asked/?x"),
            ("*", "h", "https://h/"),
        ] {
            assert_eq!(location_of(uri, &[host]).as_deref(), Some(there));
        }
    }

    #[test]
    fn a_host_that_names_no_server_is_none() {
        for hosts in [&[][..], &[""], &["a", "b"], &["a/b"], &["user@h"], &[":80"], &["a b"], &["h:port:"]] {
            assert_eq!(location_of("/", hosts), None, "{hosts:?}");
        }
    }
}
