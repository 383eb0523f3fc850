//! The binary `imgsrv`.

mod cli;
mod config;
mod connect;
mod healthcheck;
mod serve;
mod sweep;
mod telemetry;
mod verify;

use std::process::ExitCode;

use cli::{Cli, Failure};
use mimalloc::MiMalloc;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The buffers of transfers are hundreds of KiB, which glibc gives back to the system each time they are freed: the pages
/// that are made anew for the next one were a seventh of what an upload took.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "client")]
    if let Some(command) = Cli::client_from_environment() {
        return talk(command);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code().into()
        }
    }
}

#[cfg(feature = "client")]
fn talk(command: imgsrv_cli::Command) -> ExitCode {
    let done = runtime().map(|runtime| runtime.block_on(imgsrv_cli::run(command)));
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // It has been told of.
        Ok(Err(failure)) => failure.code().into(),
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
    raise_file_limit();
    runtime()?.block_on(cli.run())
}

/// Each transfer takes two descriptors, and what a shell allows at first is meant for programs of another kind. That it
/// cannot be raised is what those see who log why connections are not accepted.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(err) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(error = %err, "the limit of open files stays as it is");
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|err| Failure::run(format!("the runtime does not start: {err}")))
}
