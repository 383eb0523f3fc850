//! Many small requests.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Target, joined, unique};
use crate::http::Connection;
use crate::latency::Latencies;

/// So many connections ask again as soon as they have an answer. `request` gives the path and the headers of the n-th.
pub(crate) fn closed_loop(
    address: SocketAddr,
    connections: usize,
    lasting: Duration,
    request: impl Fn(u64) -> (String, String) + Sync,
) -> io::Result<Latencies> {
    run(connections, |mut number| {
        let (mut connection, mut taken) = (Connection::to(address)?, Vec::new());
        let begun = Instant::now();
        while begun.elapsed() < lasting {
            let (path, headers) = request(number);
            let asked = Instant::now();
            connection.download(&path, &headers)?;
            taken.push(asked.elapsed());
            number += connections as u64;
        }
        Ok(taken)
    })
}

/// So many connections ask, together so many times a second, whether there is an answer yet or not: what had to wait for
/// another answer has waited since its time.
pub(crate) fn open_loop(
    address: SocketAddr,
    connections: u32,
    per_second: u32,
    lasting: Duration,
    request: impl Fn(u64) -> (String, String) + Sync,
) -> io::Result<Latencies> {
    let between = Duration::from_secs(1) * connections / per_second;
    let begin = Instant::now() + Duration::from_millis(50);
    run(connections as usize, |mut number| {
        let (mut connection, mut taken) = (Connection::to(address)?, Vec::new());
        let mut due = begin + between * u32::try_from(number).unwrap_or_default() / connections;
        while due < begin + lasting {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (path, headers) = request(number);
            connection.download(&path, &headers)?;
            taken.push(due.elapsed());
            due += between;
            number += u64::from(connections);
        }
        Ok(taken)
    })
}

fn run(connections: usize, client: impl Fn(u64) -> io::Result<Vec<Duration>> + Sync) -> io::Result<Latencies> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|number| {
                let client = &client;
                scope.spawn(move || client(number as u64))
            })
            .collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(joined(client)?);
        }
        Ok(all.into())
    })
}

/// Drafts of one image, with blobs that are there, ready to be published; their paths.
pub(crate) fn prepare_drafts(target: &Target, count: usize) -> io::Result<Vec<String>> {
    let mut api = target.publisher()?;
    let image = unique("image");
    api.post("/v1/images", &json!({ "name": image }))?;
    let bytes = unique("disk");
    let digest = api.upload_small(bytes.as_bytes())?;
    (0..count).map(|number| Ok(api.draft(&image, &format!("1.{number}"), &digest, bytes.len() as u64)?.0)).collect()
}

/// So many publishers publish drafts, each one after the other and waiting for each; how long each took.
pub(crate) fn publish(target: &Target, publishers: usize, drafts: &[String]) -> io::Result<Latencies> {
    run(publishers, |publisher| {
        let mut api = target.publisher()?;
        let own = drafts.iter().skip(usize::try_from(publisher).unwrap_or_default()).step_by(publishers);
        own.map(|draft| {
            let begun = Instant::now();
            api.publish(draft)?;
            Ok(begun.elapsed())
        })
        .collect()
    })
}
