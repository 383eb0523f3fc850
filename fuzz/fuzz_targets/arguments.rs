//! An argument of the command line, or the value of a flag: what is taken is what was written.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use imgsrv_cli::fuzzing::{attach, target};
use imgsrv_core::model::{AttachmentName, ImageName, Reference};
use libfuzzer_sys::fuzz_target;
use poem::http::Uri;
use poem::http::uri::Authority;

/// The file itself: the configuration belongs to the program, not to the library.
#[expect(dead_code, reason = "the program uses the rest")]
#[path = "../../imgsrv-server/src/config/value.rs"]
mod value;

fuzz_target!(|data: &[u8]| {
    if let Some((name, path)) = attach(OsStr::from_bytes(data)) {
        assert!(name.parse::<AttachmentName>().is_ok(), "{name:?}");
        assert_eq!([name.as_bytes(), path.as_os_str().as_bytes()].join(&b'='), data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((image, reference, shown)) = target(text) {
        assert!(image.parse::<ImageName>().is_ok() && reference.parse::<Reference>().is_ok(), "{text:?}");
        assert!(shown == text || shown == format!("{text}:latest"), "{text:?} became {shown:?}");
        assert_eq!(target(&shown).map(|(_, _, again)| again), Some(shown));
    }
    check_listen(text);
    check_endpoint(text);
    check_duration(text);
    check_size(text);
});

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn check_listen(text: &str) {
    let Ok(listen) = text.parse::<value::Listen>() else { return };
    let shown = listen.to_string();
    assert_eq!(shown.parse().as_ref(), Ok(&listen), "{text:?} became {shown:?}");
    let (host, port) = text.rsplit_once(':').expect("a port");
    assert!(is_port(port), "{text:?}");
    // An address has more than one form; a name stays.
    assert!(host.starts_with('[') || shown.rsplit_once(':').map(|(host, _)| host) == Some(host), "{text:?}: {shown:?}");
}

fn check_endpoint(text: &str) {
    let Ok(endpoint) = text.parse::<value::Endpoint>() else { return };
    for (tls, scheme) in [(true, "https"), (false, "http")] {
        let url = endpoint.url(tls);
        assert_eq!(url, format!("{scheme}://{text}"));
        let uri: Uri = url.parse().expect("a URL");
        assert_eq!((uri.authority().map(Authority::as_str), uri.path()), (Some(text), "/"), "{url}");
        assert!(uri.port().is_none_or(|port| is_port(port.as_str())), "{url}");
    }
}

/// Digits, then one of the units; the number is multiplied.
fn product(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let (digits, factor) = units.iter().find_map(|(unit, factor)| {
        let digits = text.strip_suffix(unit)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some((digits, factor))
    })?;
    let significant = digits.trim_start_matches('0');
    if significant.len() > 20 { None } else { Some(significant.parse::<u128>().unwrap_or(0) * factor) }
}

fn check_duration(text: &str) {
    let expected = product(text, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)])
        .filter(|milliseconds| u64::try_from(*milliseconds).is_ok());
    assert_eq!(value::duration(text).ok().map(|duration| duration.as_millis()), expected, "{text:?}");
    let positive = expected.filter(|milliseconds| *milliseconds > 0);
    assert_eq!(value::positive_duration(text).ok().map(|duration| duration.as_millis()), positive, "{text:?}");
}

fn check_size(text: &str) {
    let units = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let expected = product(text, &units).filter(|bytes| i64::try_from(*bytes).is_ok());
    assert_eq!(value::size(text).ok().map(u128::from), expected, "{text:?}");
}
