//! The command line.

use std::error::Error as _;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command as Clap, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use imgsrv_core::model::Digest;
use imgsrv_server::auth;

use crate::config::{Config, NOT_YET};
use crate::connect::{self, Schema};
use crate::sweep::{self, SweepArgs};
use crate::{healthcheck, serve, telemetry, verify};

/// Stores, catalogues, publishes and serves VM and disk images.
#[derive(Debug, Parser)]
#[command(name = "imgsrv", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve HTTP and work in the background (the default)
    Serve,
    /// Work in the background only
    Worker,
    /// Bring the schema of the database up to date
    Migrate,
    /// Check that the database and the store are fit for use
    Check {
        /// Print the objects that make up this blob instead, in order: key, offset and size
        #[arg(long, value_name = "DIGEST")]
        blob: Option<Digest>,
    },
    /// Compare the bytes of all blobs, or of these, with their digests
    Verify {
        #[arg(value_name = "DIGEST")]
        digests: Vec<Digest>,
    },
    /// Tidy now: give up sessions that have expired, and delete what nobody needs
    Sweep(SweepArgs),
    /// Ask the server that listens where this configuration says whether it is ready
    Healthcheck,
    /// Print the OpenAPI specification
    Openapi,
    /// Make a token that manages the server, valid for 24 hours
    BootstrapToken,
    /// Print what makes a shell complete these commands
    Completions { shell: Shell },
    /// Write the manual into a folder, a page for each command
    Man { folder: PathBuf },
}

/// Why the program ends with another code than 0. Each is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was told something that it cannot use: 2.
    Config(String),
    /// It could not do what it was told: 1.
    Run(String),
}

impl Failure {
    /// A failure at run time, however many lines its source has.
    pub(crate) fn run(text: impl AsRef<str>) -> Self {
        Self::Run(text.as_ref().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Run(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Config(line) | Self::Run(line)) = self;
        write!(f, "error: {line}")
    }
}

impl From<imgsrv_core::Error> for Failure {
    fn from(err: imgsrv_core::Error) -> Self {
        Self::run(err.chain())
    }
}

impl Cli {
    /// What the arguments and the environment say. Ends the process when they ask for help or the version.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        let asks = first_argument().is_some_and(|word| ["help", "--help", "-h"].contains(&word.as_str()));
        let command = if asks { Self::documented() } else { Self::clap() };
        let matches = command.try_get_matches().map_err(|err| match err.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => err.exit(),
            _ => Failure::Config(line(&err)),
        })?;
        if let Some((flag, _)) = NOT_YET.iter().find(|(flag, _)| matches.contains_id(flag)) {
            return Err(Failure::Config(format!("--{flag}: not supported by this version")));
        }
        Self::from_arg_matches(&matches).map_err(|err| Failure::Config(line(&err)))
    }

    /// The command of the arguments, where it is one for another server. Ends the process when they ask for help, or
    /// cannot be obeyed.
    #[cfg(feature = "client")]
    pub(crate) fn client_from_environment() -> Option<imgsrv_cli::Command> {
        first_argument().filter(|word| imgsrv_cli::Command::has_subcommand(word))?;
        let matches = without_empty_variables(Self::documented()).get_matches();
        imgsrv_cli::Command::from_arg_matches(&matches).ok()
    }

    /// The commands as they are told of: each with the flags that are of use to it.
    fn documented() -> Clap {
        let once = |command: Clap| command.mut_args(|arg| arg.global(false));
        let configured = |command: Clap| match command.get_name() {
            "openapi" | "completions" | "man" => command,
            _ => once(with_its_about(command, Config::augment_args)),
        };
        let server = once(Self::command()).mut_subcommands(configured);
        #[cfg(feature = "client")]
        let server = with_its_about(server, imgsrv_cli::Command::augment_subcommands);
        server
    }

    fn clap() -> Clap {
        let refused = NOT_YET.iter().map(|(flag, variable)| {
            let arg = Arg::new(*flag).long(*flag).env(*variable).hide(true).hide_env_values(true).global(true);
            arg.num_args(0..=1).default_missing_value("true")
        });
        without_empty_variables(Self::command().args(refused))
    }

    pub(crate) async fn run(self) -> Result<(), Failure> {
        let Self { command, config } = self;
        telemetry::start(config.log_format, &config.verbosity);
        match command.unwrap_or(Command::Serve) {
            Command::Serve => serve::serve(&config).await,
            Command::Worker => serve::work(&config).await,
            Command::Migrate => connect::migrate(&config).await,
            Command::Check { blob } => check(&config, blob).await,
            Command::Verify { digests } => verify::verify(&config, digests).await,
            Command::Sweep(args) => sweep::sweep(&config, &args).await,
            Command::Healthcheck => healthcheck::healthcheck(&config).await,
            Command::Openapi => print(&format!("{:#}", imgsrv_server::specification())),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::documented(), "imgsrv", &mut script);
                print(String::from_utf8_lossy(&script).trim_end())
            }
            Command::Man { folder } => write_manual(&folder),
            Command::BootstrapToken => {
                let engine = connect::engine_without_store(&config).await?;
                print_token(&auth::issue_bootstrap_token(&engine).await?)
            }
        }
    }
}

/// What is added to a command brings a description of its own.
fn with_its_about(command: Clap, add: impl FnOnce(Clap) -> Clap) -> Clap {
    let about = command.get_about().cloned().unwrap_or_default();
    add(command).about(about).long_about(None)
}

fn first_argument() -> Option<String> {
    std::env::args_os().nth(1).and_then(|word| word.into_string().ok())
}

/// An empty variable is how to leave one unset in a compose file.
fn without_empty_variables(command: Clap) -> Clap {
    let empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| if empty(&arg) { arg.env(None::<&str>) } else { arg });
    command.mut_subcommands(without_empty_variables)
}

fn write_manual(folder: &Path) -> Result<(), Failure> {
    let write = || std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::documented(), folder));
    write().map_err(|err| Failure::run(format!("{}: {err}", folder.display())))
}

/// To print a token is to hand it over: it is stored nowhere.
pub(crate) fn print_token(token: &auth::TokenText) -> Result<(), Failure> {
    print(&format!("imgsrv bootstrap token (one-time): {}", token.reveal())).map_err(|failure| match failure {
        Failure::Run(line) => Failure::Run(format!("{line}; `imgsrv bootstrap-token` prints another token")),
        failure @ Failure::Config(_) => failure,
    })
}

async fn check(config: &Config, blob: Option<Digest>) -> Result<(), Failure> {
    let Some(digest) = blob else {
        let engine = connect::engine(config, Schema::Require).await?;
        engine.check_database().await?;
        engine.check_store().await?;
        return print("ok");
    };
    let engine = connect::engine_without_store(config).await?;
    let objects = engine.blob_objects(&digest).await?;
    let lines = objects.iter().map(|object| format!("{} {} {}", object.key, object.offset, object.size));
    match lines.collect::<Vec<_>>() {
        // An empty blob has no object.
        lines if lines.is_empty() => Ok(()),
        lines => print(&lines.join("\n")),
    }
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|err| Failure::run(format!("standard output: {err}")))
}

/// What clap has to say, in one line that names the flag and does not repeat its value: it may be a secret.
fn line(err: &clap::Error) -> String {
    let context = |kind| match err.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let flag = context(ContextKind::InvalidArg).and_then(|text| text.split([' ', '=', '[']).next()).unwrap_or_default();
    match (err.kind(), err.source(), err.get(ContextKind::ValidValue)) {
        (ErrorKind::ValueValidation, Some(reason), _) => format!("{flag}: {reason}"),
        (ErrorKind::InvalidValue, _, Some(ContextValue::Strings(words))) if !words.is_empty() => {
            format!("{flag}: must be one of {}", words.join(", "))
        }
        (ErrorKind::InvalidValue, ..) => format!("{flag}: needs a value"),
        (ErrorKind::UnknownArgument, ..) if flag.starts_with('-') => format!("{flag}: no such flag; see --help"),
        (ErrorKind::UnknownArgument, ..) => "an argument that belongs to no flag; see --help".to_owned(),
        (ErrorKind::InvalidSubcommand, ..) => "no such command; see --help".to_owned(),
        _ => {
            let text = err.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::clap().debug_assert();
    }

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::run("a\n  b\r\nc").to_string(), "error: a b c");
    }
}
