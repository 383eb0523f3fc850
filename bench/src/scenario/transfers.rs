//! Large bytes, in and out.

use std::io;
use std::net::SocketAddr;
use std::sync::{Barrier, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use super::{Target, joined, unique};
use crate::api::{Stored, digest};
use crate::http::{Body, Connection};

/// Bytes that nothing compresses: one block of them over and over, behind a head that makes them like no others.
pub(crate) struct Noise(Vec<u8>);

static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut block = vec![0; 8 << 20];
    fastrand::Rng::with_seed(1).fill(&mut block);
    block
});

impl Noise {
    pub(crate) fn new() -> Self {
        Self(unique("noise").into_bytes())
    }

    /// Other bytes.
    pub(crate) fn another(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn body(&self, size: u64) -> Body<'_> {
        Body { head: &self.0, block: &BLOCK, size }
    }
}

/// What an upload came to.
pub(crate) struct Uploaded {
    pub(crate) digest: String,
    /// From the first byte to the answer to the last.
    pub(crate) sending: Duration,
    /// From complete to ready.
    pub(crate) completing: Duration,
    /// What one pass of SHA-256 takes over what was not hashed on its way.
    pub(crate) pass: Duration,
}

/// Uploads one blob in `parts` of `size` bytes each, in order.
pub(crate) fn upload(target: &Target, noise: &Noise, parts: u64, size: u64) -> io::Result<Uploaded> {
    let mut api = target.publisher()?;
    let whole = digest(&noise.body(size), parts);
    let session = api.begin(&whole, parts * size)?;
    let begun = Instant::now();
    let mut stored = Vec::new();
    for number in 1..=parts {
        stored.push(api.put_part(&session, usize::try_from(number).unwrap_or_default(), &noise.body(size))?);
    }
    let sending = begun.elapsed();
    let completing = api.complete(&session, &stored)?;
    Ok(Uploaded { digest: whole, sending, completing, pass: Duration::ZERO })
}

/// Uploads one blob in parts of which `streams` are under way at once.
pub(crate) fn upload_parallel(
    target: &Target,
    noise: &Noise,
    streams: u64,
    parts: u64,
    size: u64,
) -> io::Result<Uploaded> {
    let mut api = target.publisher()?;
    let whole = digest(&noise.body(size), parts);
    let session = api.begin(&whole, parts * size)?;
    let begun = Instant::now();
    let sent: io::Result<Vec<Vec<Stored>>> = thread::scope(|scope| {
        let senders: Vec<_> = (0..streams)
            .map(|stream| {
                let (session, mut api) = (&session, api.again());
                scope.spawn(move || {
                    let numbers = (1..=parts).filter(|number| number % streams == stream);
                    let api = api.as_mut().map_err(|err| io::Error::other(err.to_string()))?;
                    numbers
                        .map(|number| {
                            api.put_part(session, usize::try_from(number).unwrap_or_default(), &noise.body(size))
                        })
                        .collect()
                })
            })
            .collect();
        senders.into_iter().map(joined).collect()
    });
    let stored = sent?.concat();
    let sending = begun.elapsed();
    let completing = api.complete(&session, &stored)?;
    // The first part is always hashed on its way.
    let begun = Instant::now();
    std::hint::black_box(digest(&noise.body(size), parts - 1));
    Ok(Uploaded { digest: whole, sending, completing, pass: begun.elapsed() })
}

/// Uploads so many blobs at once, each in one part.
pub(crate) fn upload_at_once(target: &Target, blobs: usize, size: u64) -> io::Result<()> {
    let mut sessions = Vec::new();
    let mut api = target.publisher()?;
    for _ in 0..blobs {
        let noise = Noise::new();
        sessions.push((api.begin(&digest(&noise.body(size), 1), size)?, noise));
    }
    let together = Barrier::new(blobs);
    thread::scope(|scope| {
        let senders: Vec<_> = sessions
            .iter()
            .map(|(session, noise)| {
                let together = &together;
                scope.spawn(move || {
                    let mut api = target.publisher()?;
                    together.wait();
                    let part = api.put_part(session, 1, &noise.body(size))?;
                    api.complete(session, &[part]).map(drop)
                })
            })
            .collect();
        senders.into_iter().try_for_each(joined)
    })
}

/// Downloads once, on a new connection; how many bytes came.
pub(crate) fn download(address: SocketAddr, path: &str) -> io::Result<u64> {
    Connection::to(address)?.download(path, "connection: close\r\n")
}

/// Downloads so many times at once; how many bytes came.
pub(crate) fn download_many(address: SocketAddr, path: &str, times: usize) -> io::Result<u64> {
    thread::scope(|scope| {
        let readers: Vec<_> = (0..times).map(|_| scope.spawn(|| download(address, path))).collect();
        readers.into_iter().map(joined).sum()
    })
}
