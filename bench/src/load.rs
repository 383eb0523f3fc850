//! Drives one running server and prints a line of JSON for each scenario.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::api::Api;
use crate::latency::Latencies;
use crate::scenario::{
    Line, MIB, Noise, Target, Uploaded, closed_loop, download_many, joined, open_loop, prepare_drafts, publish, upload,
    upload_parallel,
};
use crate::watch::{Seen, Watch};

/// A scenario by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// One stream, one part of 4 GiB.
    UploadOne,
    /// 4 GiB in parts of 64 MiB, in order.
    UploadParts,
    /// 4 GiB in parts of 64 MiB, four at once.
    UploadParallel,
    /// One stream of 4 GiB.
    DownloadOne,
    /// 32 streams of 256 MiB at once.
    DownloadMany,
    /// 4 KiB here and there, over one connection, over 32, and 2,000 times a second.
    Ranges,
    /// The manifest of a published version, over 16 connections.
    Manifest,
    /// What an alias leads to, over 16 connections.
    Alias,
    /// An answer that nothing has to be known for, over 16 connections.
    Healthz,
    /// Four publishers of small versions.
    Publish,
    /// Two uploads and two downloads, while manifests are asked for.
    Mixed,
}

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Where {
    /// Host and port, of numbers.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// A token that may manage, as the server prints it when it first starts.
    #[arg(long, env = "IMGSRV_TOKEN", hide_env_values = true)]
    token: String,
    /// Its process, to see what it takes.
    #[arg(long)]
    pid: u32,
    /// Divides all sizes, times and counts.
    #[arg(long, default_value_t = 1)]
    divide: u32,
}

pub(crate) fn run(server: &Where, scenarios: &[Scenario]) -> io::Result<()> {
    let watch = Watch::of(server.pid);
    let token = Api::new(server.address, &server.token)?.publisher()?.token().to_owned();
    let target = Target { address: server.address, token, watch };
    let all = <Scenario as clap::ValueEnum>::value_variants();
    for scenario in if scenarios.is_empty() { all } else { scenarios } {
        measure(&target, *scenario, server.divide)?;
    }
    Ok(())
}

fn measure(target: &Target, scenario: Scenario, divide: u32) -> io::Result<()> {
    let (address, watch) = (target.address, &target.watch);
    let lasting = Duration::from_secs(10) / divide;
    let (noise, whole) = (Noise::new(), 4096 * MIB / u64::from(divide));
    let parts = (whole / (64 * MIB)).max(1);
    match scenario {
        Scenario::UploadOne => {
            let (uploaded, seen) = watch.during(|| upload(target, &noise, 1, whole));
            sent("upload-one", whole, seen, &uploaded?);
        }
        Scenario::UploadParts => {
            let (uploaded, seen) = watch.during(|| upload(target, &noise, parts, 64 * MIB));
            sent("upload-parts", parts * 64 * MIB, seen, &uploaded?);
        }
        Scenario::UploadParallel => {
            let (uploaded, seen) = watch.during(|| upload_parallel(target, &noise, 4, parts, 64 * MIB));
            sent("upload-parallel", parts * 64 * MIB, seen, &uploaded?);
        }
        Scenario::DownloadOne => {
            let (_, disk) = target.published(&upload(target, &noise, 1, whole)?.digest, whole)?;
            let (bytes, seen) = watch.during(|| download_many(address, &disk, 1));
            Line::of("download-one", seen).bytes(bytes?, seen).print();
        }
        Scenario::DownloadMany => {
            let size = whole / 16;
            let (_, disk) = target.published(&upload(target, &noise, 1, size)?.digest, size)?;
            let (bytes, seen) = watch.during(|| download_many(address, &disk, 32));
            Line::of("download-many", seen).bytes(bytes?, seen).print();
        }
        Scenario::Ranges => {
            let size = 1024 * MIB / u64::from(divide);
            let (_, disk) = target.published(&upload(target, &noise, 1, size)?.digest, size)?;
            let range = |number: u64| (disk.clone(), somewhere(number, size));
            for (name, connections) in [("ranges-1", 1), ("ranges-32", 32)] {
                let (taken, seen) = watch.during(|| closed_loop(address, connections, lasting, range));
                Line::of(name, seen).answers(&taken?).print();
            }
            let (taken, seen) = watch.during(|| open_loop(address, 32, 2000, lasting, range));
            Line::of("ranges-2000/s", seen).answers(&taken?).print();
        }
        Scenario::Manifest | Scenario::Alias => {
            let (version, _) = target.published(&upload(target, &noise, 1, MIB)?.digest, MIB)?;
            let (image, number) = version.split_once("/versions/").unwrap_or_default();
            let body = serde_json::json!({ "version": number });
            target.publisher()?.ask("PUT", &format!("{image}/aliases/latest"), Some(&body))?;
            let alias = format!("{image}/refs/latest");
            let (name, path) =
                if scenario == Scenario::Alias { ("alias", alias) } else { ("manifest", version.clone()) };
            let (taken, seen) = watch.during(|| closed_loop(address, 16, lasting, |_| (path.clone(), String::new())));
            Line::of(name, seen).answers(&taken?).print();
        }
        Scenario::Healthz => {
            let ask = |_| ("/healthz".to_owned(), String::new());
            let (taken, seen) = watch.during(|| closed_loop(address, 16, lasting, ask));
            Line::of("healthz", seen).answers(&taken?).print();
        }
        Scenario::Publish => {
            let drafts = prepare_drafts(target, 2000 / divide as usize)?;
            let (taken, seen) = watch.during(|| publish(target, 4, &drafts));
            Line::of("publish", seen).answers(&taken?).print();
        }
        Scenario::Mixed => mixed(target, whole / 4)?,
    }
    Ok(())
}

fn sent(scenario: &str, bytes: u64, seen: Seen, uploaded: &Uploaded) {
    // The client hashes what it sends before it does, which is nothing that a server takes.
    let seen = Seen { took: uploaded.sending, ..seen };
    Line::of(scenario, seen).bytes(bytes, seen).completing(uploaded.completing).print();
}

/// One of all places of 4 KiB, as if by chance.
pub(crate) fn somewhere(number: u64, size: u64) -> String {
    let at = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (size / 4096) * 4096;
    format!("range: bytes={at}-{}\r\n", at + 4095)
}

fn mixed(target: &Target, size: u64) -> io::Result<()> {
    let first = Noise::new();
    let (version, disk) = target.published(&upload(target, &first, 1, size)?.digest, size)?;
    let noises = [Noise::new(), Noise::new()];
    let (taken, seen) = target.watch.during(|| {
        std::thread::scope(|scope| {
            let mut moving = Vec::new();
            for noise in &noises {
                moving.push(scope.spawn(|| upload(target, noise, 1, size).map(drop)));
                moving.push(scope.spawn(|| download_many(target.address, &disk, 1).map(drop)));
            }
            let mut taken = Vec::new();
            while moving.iter().any(|thread| !thread.is_finished()) {
                let ask = |_| (version.clone(), String::new());
                taken.push(closed_loop(target.address, 1, Duration::from_millis(100), ask)?);
            }
            moving.into_iter().try_for_each(joined)?;
            Ok::<_, io::Error>(Latencies::all(taken))
        })
    });
    Line::of("mixed", seen).bytes(4 * size, seen).answers(&taken?).print();
    Ok(())
}
