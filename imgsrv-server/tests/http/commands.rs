//! The commands of the program that talk to a server. Each story is told on the embedded default and on PostgreSQL with
//! Garage.

mod download;
mod publish;
mod refusals;
mod relay;
mod resume;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::consumers::site::on_new_services;
use crate::server::{Api, Folder, Server, bytes, program};
use relay::Relay;

/// A server behind a relay, and a machine with a folder where the commands run.
pub(crate) struct Place {
    node: Box<dyn Fn() -> Command + Send>,
    server: Option<Server>,
    relay: Relay,
    token: String,
    work: TempDir,
}

impl Place {
    pub(crate) async fn embedded() -> Self {
        Self::start(Box::new(|| Command::new(program()))).await
    }

    pub(crate) async fn services() -> Self {
        Self::start(Box::new(on_new_services())).await
    }

    async fn start(node: Box<dyn Fn() -> Command + Send>) -> Self {
        let server = start(&*node, Folder::new());
        let token = server.writer().await.token.expect("a token");
        let relay = Relay::before(server.address()).await;
        Self { node, server: Some(server), relay, token, work: tempfile::tempdir().expect("a folder") }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a server")
    }

    /// Kills the server, and starts another one with what it left.
    fn crash(&mut self) {
        let folder = self.server.take().expect("a server").kill();
        let server = start(&*self.node, folder);
        self.relay.lead_to(server.address());
        self.server = Some(server);
    }

    /// Past the relay.
    fn writer(&self) -> Api {
        self.server().client(Some(self.token.clone()))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.work.path().join(file)
    }

    /// A qcow2, as far as its first bytes go.
    fn disk(&self, file: &str, seed: u64, size: usize) -> Vec<u8> {
        let mut disk = bytes(seed, size);
        disk[..4].copy_from_slice(b"QFI\xfb");
        fs::write(self.path(file), &disk).expect("written");
        disk
    }

    /// The program on a machine that knows nothing but what it is told.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(program());
        command.args(line.split_whitespace()).current_dir(self.work.path());
        command.env_clear().env("HOME", self.work.path());
        command.env("IMGSRV_SERVER", &self.relay.url).env("IMGSRV_TOKEN", &self.token);
        command
    }

    /// Runs a command that succeeds; what it prints.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        succeeded(&output(&mut self.command(line)))
    }

    /// The events of a command that succeeds.
    #[track_caller]
    fn events(&self, line: &str) -> Vec<Value> {
        events(&self.run(&format!("{line} --json")))
    }

    /// Runs a command that ends with this code; what it says, and says once.
    #[track_caller]
    fn refused(&self, code: i32, line: &str) -> String {
        let output = output(&mut self.command(line));
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{line}: {err}");
        let errors = err.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{line}: {err}");
        err
    }
}

fn start(node: &dyn Fn() -> Command, folder: Folder) -> Server {
    let mut command = node();
    command.arg("--data-dir").arg(folder.data()).args(["--job-lease", "2s"]);
    Server::spawn(command, folder)
}

/// Runs it beside the test, which has a server to look after. It ends with the test, whatever becomes of that.
fn spawn(mut command: Command) -> std::process::Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).spawn().expect("the program")
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program")
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[track_caller]
fn events(out: &str) -> Vec<Value> {
    let page = include_str!("../../../docs/commands.md");
    let read = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
        for member in event.as_object().expect("an object").keys().filter(|member| *member != "event") {
            assert!(page.contains(&format!("`{member}`")), "{member} is documented: {line}");
        }
        assert!(page.contains(&format!("`{}`", event["event"].as_str().expect("a name"))), "it is documented: {line}");
        event
    };
    out.lines().map(read).collect()
}

/// The only event of this name.
#[track_caller]
fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    let found: Vec<_> = events.iter().filter(|event| event["event"] == name).collect();
    assert_eq!(found.len(), 1, "{name}: {events:?}");
    found[0]
}

fn names(events: &[Value]) -> Vec<&str> {
    let told = |name: &&str| !["progress", "retrying"].contains(name);
    events.iter().map(|event| event["event"].as_str().expect("a name")).filter(told).collect()
}

/// Compares files that may not fit into memory.
#[track_caller]
fn same(one: &Path, other: &Path) {
    let cmp = Command::new("cmp").args([one, other]).output().expect("cmp");
    assert!(cmp.status.success(), "{}", String::from_utf8_lossy(&cmp.stdout));
}
