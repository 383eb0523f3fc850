//! A Garage server for tests: the S3 protocol as a real store speaks it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, io};

use super::keeper::{Keeper, on_free_ports};

/// A private Garage node on free ports of the loopback interface.
///
/// It does not wait for the disk, and is gone with its folder when this value is dropped or its process ends, in
/// whatever way. Starting one takes a second and blocks; share it, and give each test its own
/// [bucket](Self::create_bucket).
#[derive(Debug)]
pub struct Garage {
    keeper: Keeper,
    program: PathBuf,
    port: u16,
}

impl Garage {
    /// The region that requests are signed for.
    pub const REGION: &str = "garage";
    /// The id of the one key; it may do everything with the buckets made here.
    pub const ACCESS_KEY_ID: &str = "GK0123456789abcdef01234567";
    /// The secret of that key.
    pub const SECRET_ACCESS_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Starts a new, empty node and waits until it answers.
    ///
    /// # Errors
    /// `NotFound` when Garage is not installed; what it said when it does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// The same, with these variables in its environment.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(environment: &[(&str, &str)]) -> io::Result<Self> {
        let program = installed()?;
        on_free_ports(|[port, rpc_port]| {
            let ports = [port, rpc_port].map(|port| port.to_string());
            let mut variables = vec![
                ("GARAGE", program.as_os_str()),
                ("PORT", ports[0].as_ref()),
                ("RPC_PORT", ports[1].as_ref()),
                ("GARAGE_DEFAULT_ACCESS_KEY", Self::ACCESS_KEY_ID.as_ref()),
                ("GARAGE_DEFAULT_SECRET_KEY", Self::SECRET_ACCESS_KEY.as_ref()),
            ];
            variables.extend(environment.iter().map(|(name, value)| (*name, OsStr::new(value))));
            let keeper = Keeper::start("Garage", include_str!("garage.sh"), &variables)?;
            Ok(Self { keeper, program: program.clone(), port })
        })
    }

    /// Ends the node as a power failure would; what it has stored stays. Stopping it again changes nothing. Blocks until
    /// it is down.
    ///
    /// # Errors
    /// When it is gone.
    pub fn stop(&mut self) -> io::Result<()> {
        self.keeper.tell("stop")
    }

    /// Starts a node that was [stopped](Self::stop), on the same ports with what it had stored, and waits until it
    /// answers.
    ///
    /// # Errors
    /// When it does not start, for example because another program took a port meanwhile.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.keeper.tell("start")
    }

    /// Where it speaks S3, as `host:port`: plain HTTP, buckets in the path.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes an empty bucket.
    ///
    /// # Errors
    /// What Garage said, for example that there is one of this name.
    pub fn create_bucket(&self, name: &str) -> io::Result<()> {
        self.run(&["bucket", "create", name])?;
        self.run(&["bucket", "allow", "--read", "--write", "--owner", name, "--key", Self::ACCESS_KEY_ID]).map(drop)
    }

    /// How many objects of a bucket were begun and neither finished nor given up. No listing shows them.
    ///
    /// # Errors
    /// What Garage said, for example that there is no such bucket.
    pub fn unfinished_uploads(&self, bucket: &str) -> io::Result<u64> {
        let said = self.run(&["bucket", "info", bucket])?;
        let Some(line) = said.lines().find(|line| line.starts_with("Unfinished uploads")) else { return Ok(0) };
        let number = line.split_whitespace().find_map(|word| word.parse().ok());
        number.ok_or_else(|| io::Error::other(format!("garage: {line}")))
    }

    fn run(&self, args: &[&str]) -> io::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["--config", &self.keeper.said]).args(args).stdin(Stdio::null());
        let output = command.output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(io::Error::other(format!("garage: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
    }
}

fn installed() -> io::Result<PathBuf> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut programs =
        env::split_paths(&path).chain(cargo.map(|cargo| cargo.join("bin"))).map(|dir| dir.join("garage"));
    programs.find(|program| program.is_file()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no Garage in PATH or ~/.cargo/bin: `.ci/install` installs it, as does \
             `cargo install garage --version 2.5.0 --locked`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_a_bucket() {
        let mut garage = Garage::start().unwrap();
        garage.create_bucket("one").unwrap();
        assert_eq!(garage.unfinished_uploads("one").unwrap(), 0);
        assert!(garage.unfinished_uploads("two").is_err());
        garage.stop().unwrap();
        assert!(garage.create_bucket("two").is_err());
        garage.start_again().unwrap();
        assert!(garage.create_bucket("one").is_err());
        let config = PathBuf::from(&garage.keeper.said);
        assert!(config.is_file());
        drop(garage);
        assert!(!config.exists());
    }
}
