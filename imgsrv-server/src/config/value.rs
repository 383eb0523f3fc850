//! What stands behind a flag: durations, sizes, and where something listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    host: Option<String>,
    port: u16,
}

impl Listen {
    /// The addresses to try, best first.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        match &self.host {
            Some(host) => Ok(tokio::net::lookup_host((host.as_str(), self.port)).await?.collect()),
            // The first takes IPv4 as well, where there is IPv6 at all.
            None => Ok([IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED.into()]
                .map(|address| (address, self.port).into())
                .to_vec()),
        }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be a port with an optional host, as in :8080, 127.0.0.1:8080 or [::1]:8080";
        let (host, port) = text.rsplit_once(':').ok_or(RULE)?;
        let port = parse_port(port).ok_or(RULE)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| RULE)?.to_string(),
            None if host.contains([':', '[', ']', '/', ' ']) => return Err(RULE),
            None => host.to_owned(),
        };
        Ok(Self { host: Some(host).filter(|host| !host.is_empty()), port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{}:{}", host.unwrap_or_default(), self.port),
        }
    }
}

/// A host with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

impl Endpoint {
    pub(super) fn url(&self, tls: bool) -> String {
        format!("{}://{}", if tls { "https" } else { "http" }, self.0)
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be a host with an optional port, as in s3.example.org or 127.0.0.1:9000; --s3-use-tls \
                            says whether to speak TLS";
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(named),
        };
        let port_fits = port.is_none_or(|port| parse_port(port).is_some_and(|port| port > 0));
        if host_fits && port_fits { Ok(Self(text.to_owned())) } else { Err(RULE) }
    }
}

/// Digits only: the standard library would take a sign as well.
fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const RULE: &str = "must be a duration as in 500ms, 5s, 1m or 24h";
    let (number, unit) = split_unit(text).ok_or(RULE)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(RULE),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or("too long")
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, &'static str> {
    duration(text).and_then(|duration| if duration.is_zero() { Err("must be more than nothing") } else { Ok(duration) })
}

pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    const RULE: &str = "must be a number of bytes, or a size as in 512MiB or 4GiB";
    let (number, unit) = split_unit(text).ok_or(RULE)?;
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(RULE),
    };
    number.checked_mul(1 << shift).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or("too large")
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in
            [("500ms", 500), ("5s", 5_000), ("1m", 60_000), ("24h", 86_400_000), ("0s", 0), ("007s", 7_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "+5s", "1.5h", "5S", "1h30m", "5d", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("18446744073709551615h"), Err("too long"));
        assert!(positive_duration("0ms").is_err());
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("1024", 1024), ("1KiB", 1 << 10), ("512MiB", 1 << 29), ("4GiB", 1 << 32)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("1TiB"), Ok(1 << 40));
        for text in ["", "MiB", "1 MiB", "1MB", "1mib", "-1", "1.5GiB", "0x10"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("9223372036854775808"), Err("too large"));
        assert_eq!(size("99999999TiB"), Err("too large"));
    }

    #[test]
    fn where_to_listen() {
        for text in [":8080", "127.0.0.1:0", "[::1]:8080", "localhost:80", "0.0.0.0:65535"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in
            ["", "8080", ":", ":http", ":65536", ":+80", "::1:8080", "[::1]", "[::1:80", "[host]:80", "http://h:80"]
        {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints() {
        for (text, url) in [
            ("s3.example.org", "https://s3.example.org"),
            ("127.0.0.1:9000", "https://127.0.0.1:9000"),
            ("minio:9000", "https://minio:9000"),
            ("[::1]:3900", "https://[::1]:3900"),
            ("[::1]", "https://[::1]"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.url(true), url);
            assert_eq!(endpoint.url(false), url.replace("https", "http"));
        }
        for text in
            ["", ":9000", "http://h", "h:", "h:x", "h:0", "h:65536", "h:+80", "::1", "h/p", "u@h", "[h]:1", "a b"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
