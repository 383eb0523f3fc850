//! The target of a request, then the values of `Host`, one a line: nobody is sent elsewhere than where they asked.

#![no_main]

use imgsrv_fuzz::{head, headers, values};
use imgsrv_server::fuzzing::{redirect, route, with_slash};
use libfuzzer_sys::{Corpus, fuzz_target};
use poem::http::header::{HOST, LOCATION};
use poem::http::uri::Scheme;
use poem::http::{self, HeaderValue, Uri};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Body, Request, RequestParts};

/// As it comes from a connection: a request that is built has no target of its own beside the one that is routed.
fn request(uri: &Uri, hosts: &[HeaderValue]) -> Request {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.uri = uri.clone();
    parts.headers = headers(&HOST, hosts);
    let parts = RequestParts::from((parts, LocalAddr::default(), RemoteAddr::default(), Scheme::HTTP));
    Request::from_parts(parts, Body::empty())
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((uri, rest)) = head(data) else { return Corpus::Reject };
    let Ok(uri) = uri.parse::<Uri>() else { return Corpus::Reject };
    let hosts = values(rest);

    if let Some(location) = redirect(&request(&uri, &hosts)) {
        let there = Uri::try_from(location.as_bytes()).expect("a place");
        assert_eq!(there.scheme_str(), Some("https"));
        let authority = there.authority().expect("a server");
        assert!(!authority.host().is_empty() && !authority.as_str().contains('@'), "{there}");
        match uri.authority() {
            Some(asked) => assert_eq!(asked, authority),
            None => assert!(matches!(&hosts[..], [host] if host == authority.as_str()), "{hosts:?} became {there}"),
        }
        if uri.path().starts_with('/') {
            assert_eq!((there.path(), there.query()), (uri.path(), uri.query()));
        } else {
            assert_eq!((there.path(), there.query()), ("/", None));
        }
    }

    let routed = route(request(&uri, &hosts)).expect("every target can be routed");
    let bare = uri.path().strip_suffix('/').filter(|bare| bare.starts_with("/d/") && bare.matches('/').count() == 3);
    assert_eq!(routed.uri().path(), bare.unwrap_or(uri.path()));
    assert_eq!(routed.uri().query(), uri.query());

    let (slashed, path) = (with_slash(&request(&uri, &hosts)), uri.path());
    assert_eq!(slashed.is_some(), path.contains('/') && !path.ends_with('/'), "{uri}");
    if let Some(answer) = slashed {
        let location = answer.headers().get(LOCATION).expect("a place").as_bytes();
        let location = std::str::from_utf8(location).expect("a text");
        let last = location.strip_prefix("./").and_then(|last| last.strip_suffix('/')).expect("a folder beside it");
        assert!(path.ends_with(&format!("/{last}")) && !last.contains('/'), "{path} became {location}");
    }
    Corpus::Keep
});
