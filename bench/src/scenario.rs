//! What is asked of a server, and what it takes for that.

mod requests;
mod transfers;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use serde::Serialize;

pub(crate) use requests::{closed_loop, open_loop, prepare_drafts, publish};
pub(crate) use transfers::{Noise, Uploaded, download, download_many, upload, upload_at_once, upload_parallel};

use crate::api::Api;
use crate::latency::{Latencies, ms};
use crate::watch::{Seen, Watch};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// A running imgsrv.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) watch: Watch,
}

impl Target {
    pub(crate) fn publisher(&self) -> io::Result<Api> {
        Api::new(self.address, &self.token)
    }

    /// A version that is published, with one disk of these bytes; the path of the version and that of the bytes.
    pub(crate) fn published(&self, digest: &str, size: u64) -> io::Result<(String, String)> {
        let mut api = self.publisher()?;
        let image = unique("image");
        api.post("/v1/images", &serde_json::json!({ "name": image }))?;
        let (draft, disk) = api.draft(&image, "1.0", digest, size)?;
        api.publish(&draft)?;
        Ok((draft, format!("{disk}/download")))
    }
}

/// A name that nothing else has.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What the thread of a client came to.
pub(crate) fn joined<T>(client: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    client.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
}

/// What was seen of one scenario, as it is printed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Line {
    scenario: String,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mb_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_s_per_gib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p999_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_ms: Option<f64>,
    peak_rss_kib: u64,
}

impl Line {
    pub(crate) fn of(scenario: &str, seen: Seen) -> Self {
        let seconds = seen.took.as_secs_f64();
        Self { scenario: scenario.to_owned(), seconds, peak_rss_kib: seen.peak_kib, ..Self::default() }
    }

    pub(crate) fn bytes(mut self, bytes: u64, seen: Seen) -> Self {
        self.mb_per_s = Some(mb_per_s(bytes, seen.took));
        self.cpu_s_per_gib = Some(cpu_per_gib(bytes, seen));
        self
    }

    pub(crate) fn answers(mut self, latencies: &Latencies) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "it is printed")]
        let count = latencies.count() as f64;
        self.per_s = Some(count / self.seconds);
        self.p50_ms = Some(ms(latencies.median()));
        self.p99_ms = Some(ms(latencies.permille(990)));
        self.p999_ms = Some(ms(latencies.permille(999)));
        self
    }

    pub(crate) fn completing(mut self, took: std::time::Duration) -> Self {
        self.complete_ms = Some(ms(took));
        self
    }

    pub(crate) fn print(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is printed")]
pub(crate) fn mb_per_s(bytes: u64, took: std::time::Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "it is printed")]
pub(crate) fn cpu_per_gib(bytes: u64, seen: Seen) -> f64 {
    seen.cpu.as_secs_f64() / (bytes as f64 / f64::from(1 << 30))
}
