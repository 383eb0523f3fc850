//! The binary `imgsrv`.

mod cli;
mod config;
mod connect;
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::run(format!("the runtime does not start: {err}")))?;
    runtime.block_on(cli.run())
}
