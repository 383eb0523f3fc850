//! The program as its users run it.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use imgsrv_core::sea_orm::{ConnectionTrait, Database};
use serde_json::Value;
use tempfile::TempDir;

use super::client::PATIENCE;
use super::{Api, Authority, digest};

/// A running server with a data folder of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    /// What it printed on standard output before it was ready.
    pub(crate) token: Option<String>,
    pub(crate) folder: Folder,
    /// What clients trust where TLS is spoken.
    ca: Option<PathBuf>,
    log: Arc<Mutex<String>>,
}

/// A data folder, which several runs of the program may use one after the other.
#[derive(Clone)]
pub(crate) struct Folder(Arc<TempDir>);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().expect("a folder")))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Where the objects of a blob of these bytes lie.
    pub(crate) fn objects_of(&self, bytes: &[u8]) -> PathBuf {
        let hex = digest(bytes).trim_start_matches("sha256:").to_owned();
        self.data().join("objects/blobs/sha256").join(&hex[..2]).join(hex)
    }

    /// Loses the objects of a blob, as a disk does.
    pub(crate) fn lose(&self, bytes: &[u8]) {
        std::fs::remove_dir_all(self.objects_of(bytes)).expect("objects");
    }

    /// Changes what the database says, as only time or bad luck can.
    pub(crate) async fn change(&self, sql: &str) {
        let file = self.data().join("imgsrv.db");
        let database = Database::connect(format!("sqlite://{}", file.display())).await.expect("the database");
        let changed = database.execute_unprepared(sql).await.expect(sql);
        assert!(changed.rows_affected() > 0, "{sql}");
        database.close().await.expect("closed");
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_in(Folder::new(), &[])
    }

    pub(crate) fn start_in(folder: Folder, arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.arg("--data-dir").arg(folder.data()).args(arguments);
        Self::spawn(command, folder)
    }

    /// A server that speaks TLS, and the authority that signs and renews its certificate.
    pub(crate) fn start_tls(arguments: &[&str]) -> (Self, Authority) {
        let mut command = Command::new(program());
        command.args(arguments);
        Self::spawn_tls(command)
    }

    /// The same of a command that ends in the program.
    pub(crate) fn spawn_tls(mut command: Command) -> (Self, Authority) {
        let folder = Folder::new();
        let authority = Authority::new(&folder);
        authority.renew();
        command.arg("--data-dir").arg(folder.data()).args(authority.flags());
        let mut server = Self::spawn(command, folder);
        server.url = format!("https://{}", server.address());
        server.ca = Some(authority.ca_file());
        (server, authority)
    }

    /// Runs a command that ends in the program, and waits until it listens.
    pub(crate) fn spawn(command: Command, folder: Folder) -> Self {
        Self::try_spawn(command, folder).unwrap_or_else(|ended| panic!("the server did not start: {ended}"))
    }

    /// The same, where the program may well end before it listens: then how it did, and its log.
    pub(crate) fn try_spawn(mut command: Command, folder: Folder) -> Result<Self, String> {
        to_listen(&mut command);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        let log: Arc<Mutex<String>> = Arc::default();
        let address = first_line(child.stderr.take().expect("standard error"), Arc::clone(&log), |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
        });
        let Some(address) = address else {
            child.kill().ok();
            let status = child.wait().expect("its end");
            return Err(format!("{status}: {}", log.lock().expect("no panic")));
        };
        // A token is printed before the program listens, so it is there now or never.
        let token = read_token(&mut child);
        Ok(Self { child, url: format!("http://{address}"), token, folder, ca: None, log })
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").expect("a URL").1
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would: nothing of it runs any more.
    pub(crate) fn kill(mut self) -> Folder {
        self.child.kill().expect("kill");
        self.child.wait().expect("its end");
        self.folder.clone()
    }

    /// How it ended, which it does by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }

    /// Ends it as a supervisor would, and checks that it takes that well.
    pub(crate) fn stop(self) -> Folder {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        self.wait_for_a_good_end()
    }

    pub(crate) fn wait_for_a_good_end(mut self) -> Folder {
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "a graceful stop ends with 0, not {status}");
        self.folder.clone()
    }

    /// A client with the token that manages the server.
    pub(crate) fn manager(&self) -> Api {
        self.client(self.token.clone())
    }

    /// A client that may write content.
    pub(crate) async fn writer(&self) -> Api {
        let token = self.manager().new_token("content-writer").await;
        self.client(Some(token))
    }

    pub(crate) fn anonymous(&self) -> Api {
        self.client(None)
    }

    pub(crate) fn client(&self, token: Option<String>) -> Api {
        Api::new(&self.url, token, self.ca.as_deref())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a command that ends in the program needs to serve a test.
pub(crate) fn to_listen(command: &mut Command) {
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    // A test machine may be nearly full; what the floor does has a test of its own.
    command.env("IMGSRV_MIN_FREE", "0");
}

pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_imgsrv").into()
}

/// The first line in which something is found; the rest is read as well, so that the program can go on writing.
fn first_line(
    from: impl Read + Send + 'static,
    log: Arc<Mutex<String>>,
    mut find: impl FnMut(&str) -> Option<String> + Send + 'static,
) -> Option<String> {
    let (found, wait) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if std::env::var_os("IMGSRV_TEST_LOG").is_some() {
                eprintln!("{line}");
            }
            *log.lock().expect("no panic") += &format!("{line}\n");
            if let Some(text) = find(&line) {
                found.send(text).ok();
            }
        }
    });
    wait.recv_timeout(PATIENCE).ok()
}

fn read_token(child: &mut Child) -> Option<String> {
    let mut out = child.stdout.take().expect("standard output");
    let flags = rustix::fs::fcntl_getfl(out.as_fd()).expect("flags");
    rustix::fs::fcntl_setfl(out.as_fd(), flags | rustix::fs::OFlags::NONBLOCK).expect("flags");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = out.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    if text.is_empty() {
        return None;
    }
    // The token is all that it says, in one line that programs read.
    let token = text.strip_prefix("imgsrv bootstrap token (one-time): ").and_then(|rest| rest.strip_suffix('\n'));
    let token = token.filter(|token| !token.contains(char::is_whitespace));
    Some(token.unwrap_or_else(|| panic!("unexpected on standard output: {text}")).to_owned())
}
