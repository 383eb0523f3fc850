//! Servers that live as long as the tests that use them.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// How often ports are tried that other processes may have taken meanwhile.
const TRIES: usize = 5;

/// The shell that keeps a server. It stops it when its standard input closes: when this value is dropped or this process
/// ends, in whatever way.
#[derive(Debug)]
pub(super) struct Keeper {
    shell: Child,
    answers: Option<BufReader<ChildStdout>>,
    /// What it said beside `ready`.
    pub(super) said: String,
}

impl Keeper {
    /// Runs a script that prints a line beginning with `ready` once its server answers. Says `AddrInUse` when a port was taken.
    pub(super) fn start(what: &str, script: &str, variables: &[(&str, &OsStr)]) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .envs(variables.iter().copied())
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // Ctrl-C is for the tests; the keeper cleans up after them
            .spawn()?;

        let mut line = String::new();
        let mut answers = shell.stdout.take().map(BufReader::new);
        if let Some(answers) = &mut answers {
            answers.read_line(&mut line)?;
        }
        if let Some(said) = line.strip_prefix("ready") {
            let said = said.trim().to_owned();
            return Ok(Self { shell, answers, said });
        }
        drop(shell.stdin.take());
        let mut said = String::new();
        if let Some(mut stderr) = shell.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        shell.wait()?;
        let taken = said.contains("Address already in use");
        let kind = if taken { io::ErrorKind::AddrInUse } else { io::ErrorKind::Other };
        Err(io::Error::new(kind, format!("{what} did not start:\n{said}")))
    }

    /// Tells a script that reads its standard input to do something, and waits until it says `done`.
    pub(super) fn tell(&mut self, what: &str) -> io::Result<()> {
        let mut answer = String::new();
        if let (Some(stdin), Some(answers)) = (&mut self.shell.stdin, &mut self.answers) {
            writeln!(stdin, "{what}")?;
            answers.read_line(&mut answer)?;
        }
        if answer.trim() == "done" { Ok(()) } else { Err(io::Error::other(format!("{what}: {}", answer.trim()))) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait(); // there is nobody to tell
    }
}

/// Starts something on ports that are free now, and on others when somebody was faster.
pub(super) fn on_free_ports<T, const N: usize>(mut start: impl FnMut([u16; N]) -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match start(free_ports()?) {
            Err(err) if err.kind() == io::ErrorKind::AddrInUse && tries < TRIES => tries += 1,
            started => return started,
        }
    }
}

fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    // Held until all are found, or one could be found twice.
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
