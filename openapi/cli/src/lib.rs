//! The commands of `imgsrv` that talk to a server: `push`, `pull`, `images`, `versions`, `show`, `alias`, `jobs` and
//! `login`, on the generated [`imgsrv_client`].
//!
//! A program adds [`Command`] to its own command line and hands what was parsed to [`run`].

#[cfg(not(unix))]
compile_error!("imgsrv is for Unix: it keeps tokens in files that only their owner can read");

mod alias;
mod catalog;
mod credentials;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guess;
mod jobs;
mod layout;
mod local;
mod login;
mod part;
mod poll;
mod pull;
mod push;
mod remote;
mod report;
mod table;
mod target;
mod upload;

use clap::{Parser, Subcommand};
pub use failure::Failure;
use report::Report;

/// A command line of nothing but these commands.
#[derive(Clone, Debug, Parser)]
#[command(name = "imgsrv", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command that talks to a server.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Upload files and publish them.
    Push(push::PushArgs),
    /// Download an artifact and check it.
    Pull(pull::PullArgs),
    /// List the images.
    Images(catalog::ImagesArgs),
    /// List the versions of an image.
    Versions(catalog::VersionsArgs),
    /// Show what a version has.
    Show(catalog::ShowArgs),
    /// List, set and remove aliases.
    Alias(alias::AliasArgs),
    /// Look after the job that publishes a version.
    Jobs(jobs::JobsArgs),
    /// Keep a token.
    Login(login::LoginArgs),
}

impl Command {
    fn json(&self) -> bool {
        let common = match self {
            Self::Push(args) => &args.common,
            Self::Pull(args) => &args.common,
            Self::Images(args) => &args.common,
            Self::Versions(args) => &args.common,
            Self::Show(args) => &args.common,
            Self::Alias(args) => &args.common,
            Self::Jobs(args) => &args.common,
            Self::Login(args) => &args.common,
        };
        common.json
    }
}

/// Does what was asked for, and tells of it on standard output and standard error; of what went wrong too. Needs a
/// runtime of several threads.
///
/// # Errors
/// Whatever ends it early. [`Failure::code`] is what the process should exit with.
pub async fn run(command: Command) -> Result<(), Failure> {
    let report = Report::new(command.json());
    let done = match command {
        Command::Push(args) => push::push(args, &report).await,
        Command::Pull(args) => pull::pull(args, &report).await,
        Command::Images(args) => catalog::images(args, &report).await,
        Command::Versions(args) => catalog::versions(args, &report).await,
        Command::Show(args) => catalog::show(args, &report).await,
        Command::Alias(args) => alias::alias(args, &report).await,
        Command::Jobs(args) => jobs::jobs(args, &report).await,
        Command::Login(args) => login::login(args, &report).await,
    };
    if let Err(failure) = &done {
        report.failed(failure);
    }
    done
}
