//! A PostgreSQL server for tests, made from the programs installed on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use super::keeper::{Keeper, on_free_ports};

/// A private PostgreSQL server on a free port of the loopback interface.
///
/// It trusts every connection, does not wait for the disk, and is gone with its folder when this value is dropped or
/// its process ends, in whatever way. Starting one takes a second or two and blocks; share it, and give each test its
/// own [database](Self::create_database).
#[derive(Debug)]
pub struct Postgres {
    keeper: Keeper,
    programs: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts a new, empty server and waits until it takes connections.
    ///
    /// # Errors
    /// `NotFound` when PostgreSQL is not installed; what the server said when it does not start.
    pub fn start() -> io::Result<Self> {
        let programs = installed()?;
        on_free_ports(|[port]| Self::start_on(&programs, port))
    }

    fn start_on(programs: &Path, port: u16) -> io::Result<Self> {
        let text = port.to_string();
        let variables = [("BIN", programs.as_os_str()), ("PORT", text.as_ref())];
        let keeper = Keeper::start("PostgreSQL", include_str!("postgres.sh"), &variables)?;
        Ok(Self { keeper, programs: programs.to_owned(), port })
    }

    /// Stops the server as an administrator would: it cuts every connection. What it has stored stays. Stopping it
    /// again changes nothing. Blocks until it is down.
    ///
    /// # Errors
    /// When it is gone.
    pub fn stop(&mut self) -> io::Result<()> {
        self.keeper.tell("stop")
    }

    /// Starts a server that was [stopped](Self::stop), on the same port with what it had stored, and waits until it
    /// takes connections.
    ///
    /// # Errors
    /// When it does not start, for example because another program took the port meanwhile.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.keeper.tell("start")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a database of this server is, as `postgres://…`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://imgsrv@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// What the server said, for example that there is one of this name.
    pub fn create_database(&self, name: &str) -> io::Result<()> {
        self.client("createdb", &["--", name]).map(drop)
    }

    /// Runs SQL over a connection of its own and returns the rows, one a line, columns parted by `|`.
    ///
    /// # Errors
    /// What the server said.
    pub fn psql(&self, database: &str, sql: &str) -> io::Result<String> {
        self.client("psql", &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql])
    }

    /// What the server has logged since it was first started, for example the plans that `auto_explain` writes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> io::Result<String> {
        let log = fs::read(Path::new(&self.keeper.said).join("log"))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    fn client(&self, program: &str, args: &[&str]) -> io::Result<String> {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name); // the developer's own server is not meant
            }
        }
        let port = self.port.to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", "imgsrv"]).args(args).stdin(Stdio::null());
        let output = command.output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
        }
    }
}

/// The folder of the server's programs: the one that `PATH` leads to, else the newest of those that Debian keeps out
/// of it.
fn installed() -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).filter_map(|folder| {
        let server = folder.join("postgres").canonicalize().ok()?; // where its links lead, its clients are too
        server.parent().map(Path::to_owned)
    });
    let debian = Path::new("/usr/lib/postgresql");
    let mut versions: Vec<u32> = fs::read_dir(debian)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    in_path
        .chain(versions.iter().map(|version| debian.join(version.to_string()).join("bin")))
        .find(|folder| ["initdb", "postgres", "createdb", "psql"].iter().all(|program| folder.join(program).is_file()))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no PostgreSQL server in PATH or /usr/lib/postgresql; Debian's package is `postgresql`",
            )
        })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn two_servers_live_side_by_side_and_go_away() {
        let ports = std::thread::scope(|scope| {
            [1, 2]
                .map(|n| {
                    scope.spawn(move || {
                        let server = Postgres::start().unwrap();
                        server.create_database("one").unwrap();
                        assert_eq!(server.psql("one", &format!("select {n}")).unwrap(), n.to_string());
                        assert!(server.create_database("one").is_err());
                        server.port()
                    })
                })
                .map(|thread| thread.join().unwrap())
        });
        assert_ne!(ports[0], ports[1]);
        for port in ports {
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        }
    }

    #[test]
    fn a_server_that_was_stopped_comes_back_with_what_it_had() {
        let mut server = Postgres::start().unwrap();
        server.create_database("one").unwrap();
        server.psql("one", "create table kept (n integer)").unwrap();
        server.psql("one", "do $$ begin raise log 'as it was before'; end $$").unwrap();
        server.stop().unwrap();
        server.psql("one", "select 1").unwrap_err();
        server.stop().unwrap();
        server.start_again().unwrap();
        assert_eq!(server.psql("one", "select count(*) from kept").unwrap(), "0");
        assert!(server.log().unwrap().contains("as it was before"));
    }

    #[test]
    fn a_port_in_use_is_told_apart() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let err = Postgres::start_on(&installed().unwrap(), taken.local_addr().unwrap().port()).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::AddrInUse, "{err}");
    }
}
