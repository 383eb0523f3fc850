//! Many small answers.

use std::io;
use std::time::Duration;

use super::in_turn;
use super::table::{Goal, Table};
use crate::latency::{Latencies, ms};
use crate::load::somewhere;
use crate::scenario::{GIB, MIB, Noise, Target, closed_loop, open_loop, prepare_drafts, publish, upload};
use crate::server::{Deployment, Imgsrv};

/// How long one measurement of a round lasts.
const LASTING: Duration = Duration::from_secs(3);

pub(crate) fn measure(table: &mut Table, rounds: u32) -> io::Result<()> {
    let embedded = Imgsrv::start(Deployment::Embedded)?;
    let shared = Imgsrv::start(Deployment::Postgres)?;
    let (sqlite, postgres) = (embedded.target()?, shared.target()?);
    ranges(table, rounds, &sqlite)?;
    let names = [
        "manifests, 16 connections, SQLite",
        "p99 of manifests, SQLite",
        "aliases, 16 connections, SQLite",
        "p99 of aliases, SQLite",
    ];
    catalogue(table, rounds, &sqlite, names, [15_000.0, 10_000.0])?;
    let names = [
        "manifests, 16 connections, PostgreSQL",
        "p99 of manifests, PostgreSQL",
        "aliases, 16 connections, PostgreSQL",
        "p99 of aliases, PostgreSQL",
    ];
    catalogue(table, rounds, &postgres, names, [8_000.0, 8_000.0])?;
    publishing(table, rounds, &sqlite, "publishes, four publishers, SQLite", 150.0)?;
    publishing(table, rounds, &postgres, "publishes, four publishers, PostgreSQL", 75.0)
}

fn ranges(table: &mut Table, rounds: u32, target: &Target) -> io::Result<()> {
    let noise = Noise::new();
    // Four objects, so that a range has to be found.
    let (_, disk) = target.published(&upload(target, &noise, 4, GIB / 4)?.digest, GIB)?;
    let range = |number: u64| (disk.clone(), somewhere(number, GIB));
    let [one, many, open] = in_turn(rounds, |_| {
        let one = closed_loop(target.address, 1, LASTING, range)?;
        let many = closed_loop(target.address, 32, LASTING, range)?;
        let open = open_loop(target.address, 32, 2000, LASTING, range)?;
        Ok([ms(one.median()), per_second(&many), ms(open.permille(990))])
    })?;
    table.add("4 KiB of 1 GiB, one connection, p50", one, "ms", Goal::AtMost(0.4));
    table.add("4 KiB of 1 GiB, 32 connections", many, "/s", Goal::AtLeast(8_000.0));
    table.add("4 KiB of 1 GiB, 2,000/s over 32 connections, p99", open, "ms", Goal::AtMost(3.0));
    Ok(())
}

fn catalogue(
    table: &mut Table,
    rounds: u32,
    target: &Target,
    names: [&'static str; 4],
    goals: [f64; 2],
) -> io::Result<()> {
    let (version, _) = target.published(&upload(target, &Noise::new(), 1, MIB)?.digest, MIB)?;
    let (image, number) = version.split_once("/versions/").unwrap_or_default();
    let body = serde_json::json!({ "version": number });
    target.publisher()?.ask("PUT", &format!("{image}/aliases/latest"), Some(&body))?;
    let alias = format!("{image}/refs/latest");
    let figures = in_turn(rounds, |_| {
        let manifests = closed_loop(target.address, 16, LASTING, |_| (version.clone(), String::new()))?;
        let aliases = closed_loop(target.address, 16, LASTING, |_| (alias.clone(), String::new()))?;
        let p99 = |of: &Latencies| ms(of.permille(990));
        Ok([per_second(&manifests), p99(&manifests), per_second(&aliases), p99(&aliases)])
    })?;
    for (index, (name, value)) in names.into_iter().zip(figures).enumerate() {
        let goal = if index % 2 == 0 { Goal::AtLeast(goals[index / 2]) } else { Goal::AtMost(5.0) };
        table.add(name, value, if index % 2 == 0 { "/s" } else { "ms" }, goal);
    }
    Ok(())
}

fn publishing(table: &mut Table, rounds: u32, target: &Target, name: &'static str, goal: f64) -> io::Result<()> {
    let [per_second] = in_turn(rounds, |_| {
        let drafts = prepare_drafts(target, 400)?;
        let (published, seen) = target.watch.during(|| publish(target, 4, &drafts));
        published?;
        #[expect(clippy::cast_precision_loss, reason = "it is printed")]
        Ok([drafts.len() as f64 / seen.took.as_secs_f64()])
    })?;
    table.add(name, per_second, "/s", Goal::AtLeast(goal));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "it is printed")]
fn per_second(latencies: &Latencies) -> f64 {
    latencies.count() as f64 / LASTING.as_secs_f64()
}
