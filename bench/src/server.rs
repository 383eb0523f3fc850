//! imgsrv as a program, on each of its deployments.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use imgsrv_core::testing::{Garage, Postgres};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::http::Connection;
use crate::scenario::Target;
use crate::watch::Watch;

/// A process that ends with this value, and with its folder.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// Starts a server and waits until it takes connections.
    pub(crate) fn start(command: &mut Command, address: SocketAddr) -> io::Result<Self> {
        let mut program = Self { child: command.stdin(Stdio::null()).spawn()?, address };
        let begun = Instant::now();
        while Connection::to(address).is_err() {
            if begun.elapsed() > Duration::from_secs(30) || program.child.try_wait()?.is_some() {
                return Err(io::Error::other(format!("{command:?} does not take connections")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(program)
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch::of(self.child.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Asked to, nginx ends its workers too.
        kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
        self.child.wait().ok();
    }
}

/// An address that is free now.
pub(crate) fn free() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Where imgsrv keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deployment {
    /// SQLite and a folder.
    Embedded,
    /// PostgreSQL and a folder, so that the database is what is measured.
    Postgres,
    /// SQLite and Garage, so that the store is what is measured.
    Garage,
    /// The same with a Garage that keeps the memory it has, as docs/deploy.md recommends.
    TunedGarage,
}

/// glibc does not give back what the next request will need.
const KEEPS_MEMORY: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "268435456"), ("MALLOC_MMAP_THRESHOLD_", "33554432")];

/// imgsrv, and what it needs.
#[derive(Debug)]
pub(crate) struct Imgsrv {
    pub(crate) program: Program,
    pub(crate) token: String,
    pub(crate) started_in: Duration,
    _postgres: Option<Postgres>,
    pub(crate) garage: Option<Garage>,
    _folder: Option<TempDir>,
}

impl Imgsrv {
    pub(crate) fn start(deployment: Deployment) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let started = Self::start_in(folder.path(), deployment)?;
        Ok(Self { _folder: Some(folder), ..started })
    }

    /// One that keeps what it has in a folder, and finds what another one left there.
    pub(crate) fn start_in(data: &Path, deployment: Deployment) -> io::Result<Self> {
        let postgres = (deployment == Deployment::Postgres).then(Postgres::start).transpose()?;
        let garage = match deployment {
            Deployment::Garage => Some(Garage::start()?),
            Deployment::TunedGarage => Some(Garage::start_with(&KEEPS_MEMORY)?),
            Deployment::Embedded | Deployment::Postgres => None,
        };
        let mut variables = Vec::new();
        if let Some(postgres) = &postgres {
            // The tests do without; whoever has an answer wants it to last.
            postgres.psql("postgres", "alter system set fsync = on")?;
            postgres.psql("postgres", "select pg_reload_conf()")?;
            postgres.create_database("imgsrv")?;
            variables.push(("IMGSRV_POSTGRES_URL", postgres.url("imgsrv")));
        }
        if let Some(garage) = &garage {
            garage.create_bucket("imgsrv")?;
            variables.extend([
                ("IMGSRV_S3_ENDPOINT", garage.endpoint()),
                ("IMGSRV_S3_BUCKET", "imgsrv".to_owned()),
                ("IMGSRV_S3_REGION", Garage::REGION.to_owned()),
                ("IMGSRV_S3_ACCESS_KEY_ID", Garage::ACCESS_KEY_ID.to_owned()),
                ("IMGSRV_S3_SECRET_ACCESS_KEY", Garage::SECRET_ACCESS_KEY.to_owned()),
                ("IMGSRV_S3_USE_TLS", "false".to_owned()),
                ("IMGSRV_S3_PATH_STYLE", "true".to_owned()),
                // More than the transfers that are measured can take: what one takes is not what others have left it.
                ("IMGSRV_TRANSFER_MEMORY", "1GiB".to_owned()),
            ]);
        }
        let (program, token, started_in) = run(data, &variables)?;
        Ok(Self { program, token, started_in, _postgres: postgres, garage, _folder: None })
    }

    pub(crate) fn api(&self, token: &str) -> io::Result<Api> {
        Api::new(self.program.address, token)
    }

    /// Whoever may publish, if this one is new.
    pub(crate) fn publisher(&self) -> io::Result<Api> {
        self.api(&self.token)?.publisher()
    }

    /// What is measured of it, if it is new.
    pub(crate) fn target(&self) -> io::Result<Target> {
        let token = self.publisher()?.token().to_owned();
        Ok(Target { address: self.program.address, token, watch: self.program.watch() })
    }
}

fn run(data: &Path, variables: &[(&str, String)]) -> io::Result<(Program, String, Duration)> {
    std::fs::create_dir_all(data)?;
    let (log, printed) = (data.join("log"), data.join("printed"));
    let begun = Instant::now();
    let mut command = Command::new(imgsrv()?);
    command
        .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--verbosity", "imgsrv::serve=info,warn"])
        .args(["--max-uploads", "2000", "--max-downloads", "2000", "--data-dir"])
        .arg(data)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(File::create(&printed)?)
        .stderr(File::create(&log)?);
    let mut child = command.spawn()?;
    let address = loop {
        let lines = std::fs::read_to_string(&log)?;
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(address) = lines.find_map(|line| line["address"].as_str()?.parse().ok()) {
            break address;
        }
        if child.try_wait()?.is_some() || begun.elapsed() > Duration::from_mins(1) {
            child.kill().ok();
            return Err(io::Error::other(format!("imgsrv does not start: {}", std::fs::read_to_string(&log)?)));
        }
        thread::sleep(Duration::from_millis(1));
    };
    let started_in = begun.elapsed();
    let token = std::fs::read_to_string(&printed)?.split_whitespace().last().unwrap_or_default().to_owned();
    Ok((Program { child, address }, token, started_in))
}

/// The program that was built beside this one.
fn imgsrv() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("imgsrv");
    if program.is_file() { Ok(program) } else { Err(io::Error::other("build imgsrv-server first")) }
}
