//! Measures imgsrv over TCP, alone and beside what one would use instead.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it measures")]

mod api;
mod bare;
mod compare;
mod http;
mod latency;
mod load;
mod rivals;
mod scenario;
mod server;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures imgsrv over TCP.
#[derive(Debug, Parser)]
enum Command {
    /// Drives a server that runs, and prints a line of JSON for each scenario.
    Load {
        #[command(flatten)]
        server: load::Where,
        /// All when none is named.
        scenarios: Vec<load::Scenario>,
    },
    /// Starts imgsrv and what one would use instead, measures them in turn, and prints a table.
    Compare(compare::Options),
    /// The least that a server has to do with an upload.
    #[command(hide = true)]
    Bare { address: SocketAddr, folder: PathBuf },
}

fn main() -> ExitCode {
    let done: io::Result<bool> = match Command::parse() {
        Command::Load { server, scenarios } => load::run(&server, &scenarios).map(|()| true),
        Command::Compare(options) => compare::run(&options),
        Command::Bare { address, folder } => bare::serve(address, &folder).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("imgsrv-bench: {err}");
            ExitCode::FAILURE
        }
    }
}
