//! imgsrv beside what one would use instead: measured in turn, round by round, so that what else the machine does meets
//! all alike. What counts are ratios of medians.

mod downloads;
mod growth;
mod many_parts;
mod memory;
mod requests;
mod resident;
mod table;
mod uploads;

use std::io;
use std::path::PathBuf;

use self::resident::Resident;
use self::table::Table;
use crate::latency::median;

/// How to compare.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What is measured; all when none is named.
    sections: Vec<Section>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Writes the table here, as Markdown, between the lines that begin and end it.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Fails when a ratio is worse by more than 15 % than the one in this file, or another figure misses its goal.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Writes the figures here, for a later check.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    Uploads,
    Downloads,
    Requests,
    Memory,
    Growth,
}

/// Whether everything is as it should be.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let _memory = Resident::new()?;
    let mut table = Table::default();
    let all = <Section as clap::ValueEnum>::value_variants();
    for section in if options.sections.is_empty() { all } else { &options.sections } {
        match section {
            Section::Uploads => uploads::measure(&mut table, options.rounds)?,
            Section::Downloads => downloads::measure(&mut table, options.rounds)?,
            Section::Requests => requests::measure(&mut table, options.rounds)?,
            Section::Memory => memory::measure(&mut table)?,
            Section::Growth => growth::measure(&mut table, options.rounds)?,
        }
    }
    if let Some(path) = &options.write {
        table.write(path)?;
    }
    if let Some(path) = &options.store {
        table.store(path)?;
    }
    match &options.check {
        Some(path) => table.check(path),
        None => Ok(true),
    }
}

/// Waits for the disk: what one has left to be written is not for the next to wait for.
fn settle() {
    rustix::fs::sync();
}

/// The median of some rounds of each of some measurements that take turns.
fn in_turn<const N: usize>(rounds: u32, mut measure: impl FnMut(u32) -> io::Result<[f64; N]>) -> io::Result<[f64; N]> {
    let settled = (0..rounds).inspect(|_| settle());
    let rounds = settled.map(&mut measure).collect::<io::Result<Vec<_>>>()?;
    Ok(std::array::from_fn(|index| median(rounds.iter().map(|round| round[index]).collect())))
}
