//! Requests that no schema describes: good ones, spoilt at random. Whatever comes, the server answers or closes, never
//! with an error of its own, and goes on with the next request.
//!
//! `IMGSRV_TEST_SEED` and `IMGSRV_TEST_REQUESTS` choose others, and more.

use fastrand::Rng;

use crate::server::{Api, Server, bytes, half_closed, id, request};

/// How often a good request is asked between the bad ones.
const BETWEEN: u64 = 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spoilt_at_random_harms_nobody() {
    let (seed, requests) = (setting("IMGSRV_TEST_SEED", 1), setting("IMGSRV_TEST_REQUESTS", 600));
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    let content = bytes(1, 10_000);
    let artifact = writer.release("debian", "1.0", &content).await;
    let upload = id(&writer.begin(&bytes(2, 100_000)).await);
    let paths = [
        "/v1/images".to_owned(),
        "/d/debian/1.0/".to_owned(),
        "/d/debian/1.0/debian-1.0-linux-amd64.raw".to_owned(),
        format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download"),
        format!("/v1/uploads/{upload}/parts/1"),
        "/streams/v1/images.json".to_owned(),
        "/readyz".to_owned(),
    ];
    let mut answered = 0;
    for number in 0..requests {
        let mut random = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let sent = spoilt(&mut random, &writer, &paths);
        let shown =
            || format!("seed {seed}, request {number}: {:?}", String::from_utf8_lossy(&sent[..sent.len().min(600)]));
        let answers = half_closed(&server, &sent);
        for status in statuses(&answers) {
            let is_refused = (400..500).contains(&status) || status == 505;
            assert!(is_refused || (200..400).contains(&status) || status == 100, "{}\n{status}: {answers}", shown());
            answered += 1;
        }
        assert!(answers.is_empty() || answers.starts_with("HTTP/1."), "{}\n{answers}", shown());
        if number % BETWEEN == 0 {
            let good = reader.get(&paths[3]).await;
            assert!(good.status == 200 && good.body == content, "after {}", shown());
        }
    }
    assert!(answered > requests / 2, "most are answered: {answered} of {requests}");
    // Nothing of it is left half done.
    assert_eq!(writer.get("/v1/images/debian/versions").await.ok()["versions"].as_array().map(Vec::len), Some(1));
    reader.get("/readyz").await.no_content();
    server.stop();
}

/// The statuses of the answers in what came back; what is in bodies does not begin a line.
fn statuses(answers: &str) -> Vec<u16> {
    let heads = answers.split("HTTP/1.").skip(1).filter(|rest| rest.starts_with("1 ") || rest.starts_with("0 "));
    heads.filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
}

/// One good request or several in line, with one to three things wrong.
fn spoilt(random: &mut Rng, api: &Api, paths: &[String]) -> Vec<u8> {
    let count = if random.u8(..5) == 0 { 3 } else { 1 };
    let mut sent: Vec<u8> = (0..count).flat_map(|_| good(random, api, paths)).collect();
    for _ in 0..random.usize(1..=3) {
        spoil(random, &mut sent);
    }
    sent
}

fn good(random: &mut Rng, api: &Api, paths: &[String]) -> Vec<u8> {
    let path = random.choice(paths).expect("a path");
    let (method, body): (_, &[u8]) = match random.u8(..6) {
        0 => ("POST", b"{\"name\":\"a-name\"}"),
        1 => ("PUT", b"some bytes of a part"),
        2 => ("HEAD", b""),
        3 => ("DELETE", b""),
        _ => ("GET", b""),
    };
    let length = format!("content-length: {}", body.len());
    let chunked = random.bool();
    let framing = if body.is_empty() {
        "accept: */*"
    } else if chunked {
        "transfer-encoding: chunked"
    } else {
        &length
    };
    let lines = [framing, "content-type: application/json", "range: bytes=1-5", "if-none-match: \"x\""];
    let mut sent = request(api, method, path, &lines[..random.usize(1..=4)]).into_bytes();
    if chunked && !body.is_empty() {
        sent.extend(format!("{:x}\r\n", body.len()).bytes());
        sent.extend(body);
        sent.extend(b"\r\n0\r\n\r\n");
    } else {
        sent.extend(body);
    }
    sent
}

/// Makes one thing wrong.
fn spoil(random: &mut Rng, sent: &mut Vec<u8>) {
    const LINES: &[&str] = &[
        "content-length: 5",
        "content-length: 0",
        "content-length: 18446744073709551616",
        "content-length: +5",
        "content-length: 5, 5",
        "content-length: 0x5",
        "transfer-encoding: chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding : chunked",
        "expect: 100-continue",
        "expect: something",
        "connection: close",
        "connection: upgrade",
        "upgrade: websocket",
        "upgrade: h2c",
        "host: other",
        "host:",
        " folded",
        "\tfolded",
        ": nameless",
        "x y: z",
        "nothing",
        "range: bytes=0-0,2-2",
        "range: bytes=-",
        "range: bytes=18446744073709551615-",
        "range: bytes=5-1",
        "range: seconds=1-2",
        "if-range: \"x\"",
        "if-modified-since: yesterday",
        "if-match: \"x",
        "accept-encoding: gzip;q=2, *;q=-1, ;;;",
        "accept: text/html;q=nan",
        "authorization: Bearer",
        "authorization: Bearer x y",
        "authorization: Basic eDp5",
        "content-type:",
        "content-type: /",
        "content-digest: sha-256=:AAAA:",
        "content-digest: sha-256=1",
        "content-encoding: gzip",
        "x-request-id: a b",
        "x-request-id: \u{7f}",
        "te: trailers",
        "trailer: content-length",
        "keep-alive: 99999999999",
        "cookie: a=\"",
        "x-forwarded-host: evil.example",
        "x-http-method-override: DELETE",
    ];
    const TARGETS: &[&str] = &[
        "*",
        "/",
        "//",
        "/%",
        "/%2",
        "/%zz",
        "/%00",
        "/%ff%fe",
        "/v1/images/%2e%2e/%2e%2e/etc/passwd",
        "/v1/../v1/images",
        "/./v1/images",
        "/v1//images",
        "/v1/images/",
        "/v1/images?limit=1&limit=2",
        "/v1/images?limit=%",
        "/v1/images?&&==&",
        "/v1/images#x",
        "/v1/images;a=b",
        "http://x/v1/images",
        "https://x:99999/",
        "x:443",
        "/d/debian/%2e%2e/x",
        "/d/debian/1.0%2fx",
        "/d/%E2%80%AE/x/",
        "/d///",
        "/d/debian/1.0//",
        "/\u{e4}",
        "/v1/images/\u{202e}",
        "?",
        "",
        "/v1/uploads/../../x",
        "/v1/images/debian/refs/1.0%20",
        "/streams/v1/../v1/index.json",
        "/docs/..%5c..%5cx",
    ];
    let head = sent.windows(4).position(|end| end == b"\r\n\r\n").map_or(sent.len(), |at| at + 2);
    let line_end = sent.windows(2).position(|end| end == b"\r\n").map_or(0, |at| at + 2);
    let anywhere = random.usize(..=sent.len());
    match random.u8(..16) {
        0..=4 => {
            let line = format!("{}\r\n", random.choice(LINES).expect("a line"));
            let at = if line_end < head { random.usize(line_end..=head) } else { head };
            let at = (0..=at).rev().find(|at| *at == 0 || sent[..*at].ends_with(b"\r\n")).unwrap_or(0);
            sent.splice(at..at, line.bytes());
        }
        5..=7 => {
            let target = random.choice(TARGETS).expect("a target");
            let first: Vec<usize> = (0..line_end).filter(|at| sent[*at] == b' ').collect();
            if let [start, end, ..] = first[..] {
                sent.splice(start + 1..end, target.bytes());
            }
        }
        8 => sent.truncate(anywhere),
        9 => {
            let end = (anywhere + random.usize(..40)).min(sent.len());
            sent.drain(anywhere..end);
        }
        10 => {
            let junk: Vec<u8> = (0..random.usize(1..40)).map(|_| random.u8(..)).collect();
            sent.splice(anywhere..anywhere, junk);
        }
        11 => {
            if let Some(byte) = sent.get_mut(anywhere) {
                *byte ^= 1 << random.u8(..8);
            }
        }
        12 => {
            let twice = sent[anywhere..].to_vec();
            sent.extend(twice);
        }
        13 => {
            let version: &[u8] =
                random.choice([&b"HTTP/1.0"[..], b"HTTP/0.9", b"HTTP/2.0", b"http/1.1", b"HTTP/1.11"]).expect("one");
            if let Some(at) = sent[..line_end].windows(8).position(|text| text == b"HTTP/1.1") {
                sent.splice(at..at + 8, version.iter().copied());
            }
        }
        14 => {
            let many = format!("x: {}\r\n", "y".repeat(random.usize(1..2000))).repeat(random.usize(1..200));
            sent.splice(line_end..line_end, many.bytes());
        }
        _ => {
            let only_line_feeds = String::from_utf8_lossy(sent).replace("\r\n", "\n");
            *sent = only_line_feeds.into_bytes();
        }
    }
}
