//! The binary `imgsrv`.

mod cli;
mod config;
mod connect;
mod healthcheck;
mod serve;
mod telemetry;

use std::process::ExitCode;

use cli::{Cli, Failure};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code().into()
        }
    }
}

fn run() -> Result<(), Failure> {
    let cli = Cli::from_environment()?;
    // Hashes of tokens and images that are not published yet are nobody else's business, in whatever folder they lie.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::run(format!("the runtime does not start: {err}")))?;
    runtime.block_on(cli.run())
}
