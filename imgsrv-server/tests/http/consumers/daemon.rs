//! An Incus daemon with a client, both private.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use serde_json::Value;

use super::site::{Site, run};

/// A daemon with an empty storage pool and no network, and a client that talks to it; both trust the authority of one
/// site. It is gone with its folder and its containers when this value is dropped or its process ends, in whatever way.
pub(crate) struct Incus {
    keeper: Child,
    root: PathBuf,
    authority: PathBuf,
}

impl Incus {
    /// Starts it, and makes the site its remote `imgsrv`.
    pub(crate) fn start(site: &Site) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", include_str!("daemon.sh")]).env("INCUSD", installed());
        trust(&mut command, &site.authority());
        let mut keeper = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // Ctrl-C is for the tests; the keeper cleans up after them
            .spawn()
            .expect("sh");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("standard output")).read_line(&mut line).expect("a line");
        let Some(root) = line.strip_prefix("ready ") else {
            drop(keeper.stdin.take());
            let mut said = String::new();
            keeper.stderr.take().expect("standard error").read_to_string(&mut said).ok();
            panic!("Incus did not start: {said}");
        };
        let incus = Self { keeper, root: root.trim_end().into(), authority: site.authority() };
        incus.run(&["storage", "create", "default", "dir"]);
        incus.run(&["remote", "add", "imgsrv", &site.url, "--protocol=simplestreams"]);
        incus
    }

    /// A command of the client.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["120", "incus", "--quiet"]).args(arguments).stdin(Stdio::null()).current_dir(&self.root);
        command.env("INCUS_DIR", self.root.join("daemon")).env("INCUS_CONF", self.root.join("client"));
        command.env("HOME", &self.root).env_remove("XDG_CACHE_HOME");
        trust(&mut command, &self.authority);
        command
    }

    /// Runs a command that succeeds; what it says.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    /// The images of a remote, by fingerprint.
    #[track_caller]
    pub(crate) fn images(&self, remote: &str) -> Vec<Value> {
        let images = self.run(&["image", "list", remote, "--format", "json"]);
        let mut images: Vec<Value> = serde_json::from_str(&images).expect("JSON");
        images.sort_by_key(|image| image["fingerprint"].to_string());
        images
    }

    /// The fingerprint that an alias leads to.
    #[track_caller]
    pub(crate) fn fingerprint(&self, image: &str) -> String {
        let shown = self.run(&["image", "info", image]);
        let fingerprint = shown.lines().find_map(|line| line.strip_prefix("Fingerprint: "));
        fingerprint.unwrap_or_else(|| panic!("no fingerprint: {shown}")).to_owned()
    }

    /// Makes an empty folder and returns what a command leaves in it, by name.
    #[track_caller]
    pub(crate) fn files_of(&self, arguments: &[&str]) -> Vec<(String, Vec<u8>)> {
        let folder = tempfile::tempdir_in(&self.root).expect("a folder");
        run(self.command(arguments).current_dir(&folder));
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .expect("files")
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (name, std::fs::read(&path).expect("a file"))
            })
            .collect();
        files.sort();
        files
    }

    /// Time goes by: what the daemon knows of a remote for an hour, and the client for five minutes, gets that old.
    pub(crate) fn an_hour_later(&self) {
        let (daemon, client) = (self.root.join("daemon/cache"), self.root.join(".cache/incus"));
        for file in [daemon, client].iter().flat_map(|cache| below(cache)) {
            let file = std::fs::File::options().write(true).open(&file).expect("a cached file");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("an old file");
        }
    }

    /// What a container of it may be called.
    pub(crate) fn container(&self) -> String {
        self.root.file_name().expect("a name").to_string_lossy().replace('.', "-")
    }
}

impl Drop for Incus {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// Whom both programs trust. What they would ask others on the Internet, such as the daemon for the sizes of clouds'
/// machines when it starts, they ask nobody.
fn trust(command: &mut Command, authority: &Path) {
    command.env("SSL_CERT_FILE", authority).env("SSL_CERT_DIR", "/nonexistent");
    command.envs(["http_proxy", "https_proxy"].map(|name| (name, "http://127.0.0.1:9")));
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "no_proxy"].iter().for_each(|name| {
        command.env_remove(name);
    });
}

/// The files one folder further down.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
    };
    entries(folder).iter().flat_map(|folder| entries(folder)).collect()
}

/// Packages keep the daemon out of `PATH`.
fn installed() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("incusd"));
    let mut programs = in_path.chain(["/usr/libexec/incus/incusd", "/opt/incus/bin/incusd"].map(PathBuf::from));
    programs.find(|program| program.is_file()).expect("no Incus: `.ci/install` installs it")
}
