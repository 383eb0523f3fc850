//! A server for programs that know nothing of its API, and how they are run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use imgsrv_core::testing::{Garage, Postgres};
use serde_json::json;
use tempfile::TempDir;

use super::files::Image;
use crate::nodes::on_services;
use crate::server::{Api, Authority, Server, artifact, attachment, program};

/// One of each for all stories of this process, with which they end; each story has a database and a bucket.
static SERVICES: LazyLock<(Postgres, Garage)> =
    LazyLock::new(|| (Postgres::start().expect("PostgreSQL"), Garage::start().expect("Garage")));
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// What makes nodes on a new database and a new bucket.
pub(crate) fn on_new_services() -> impl Fn() -> Command + Send + 'static {
    let (postgres, garage) = &*SERVICES;
    let name = format!("site{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    postgres.create_database(&name).expect("a database");
    garage.create_bucket(&name).expect("a bucket");
    move || on_services(postgres, &name, garage, &name)
}

/// A server whose certificate is signed by an authority that the programs of a story trust.
pub(crate) struct Site {
    _server: Server,
    work: TempDir,
    authority: Authority,
    /// `https://127.0.0.1:…`
    pub(crate) url: String,
    pub(crate) writer: Api,
    pub(crate) reader: Api,
}

impl Site {
    pub(crate) async fn embedded() -> Self {
        Self::start(Command::new(program())).await
    }

    pub(crate) async fn services() -> Self {
        Self::start(on_new_services()()).await
    }

    async fn start(command: Command) -> Self {
        let (server, authority) = Server::spawn_tls(command);
        let (writer, reader) = (server.writer().await, server.anonymous());
        let (work, url) = (tempfile::tempdir().expect("a folder"), server.url.clone());
        Self { _server: server, work, authority, url, writer, reader }
    }

    /// The certificate of the authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.authority.ca_file()
    }

    /// Where its programs run and leave their files.
    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    /// A program with nothing of its user's, for which the machine trusts the authority and nobody else. Not each of
    /// them can be told by an option whom to trust (qemu-img cannot), so all find it where Debian keeps certificates.
    pub(crate) fn command(&self, line: &[&str]) -> Command {
        const TRUST: &str = "mount --bind \"$0\" /etc/ssl/certs/ca-certificates.crt && exec timeout 120 \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", TRUST]).arg(self.authority()).args(line);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.work());
        command.current_dir(self.work());
        command
    }

    /// Runs a program that succeeds; what it says.
    #[track_caller]
    pub(crate) fn run(&self, line: &[&str]) -> String {
        run(&mut self.command(line))
    }

    /// What a program has left.
    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.work().join(file)).unwrap_or_else(|err| panic!("{file}: {err}"))
    }

    /// Publishes a version of these.
    pub(crate) async fn release(&self, image: &str, version: &str, artifacts: &[&Image]) {
        let api = &self.writer;
        api.post("/v1/images", json!({ "name": image })).await;
        api.post(&format!("/v1/images/{image}/versions"), json!({ "version": version })).await.created();
        let path = format!("/v1/images/{image}/versions/{version}/artifacts");
        for made in artifacts {
            api.upload(&made.root).await;
            let what = json!({
                "format": made.format, "variant": made.variant, "architecture": std::env::consts::ARCH,
                "primary_media_type": "application/octet-stream",
            });
            let id = api.add(&path, artifact(&made.root, what)).await;
            if let Some(metadata) = &made.metadata {
                api.upload(metadata).await;
                let metadata = attachment("incus.tar.xz", "application/x-xz", metadata);
                api.add(&format!("{path}/{id}/attachments"), metadata).await;
            }
        }
        let job = api.publish(image, version).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }

    /// Makes an alias, or moves it.
    pub(crate) async fn point(&self, image: &str, alias: &str, version: &str) {
        let target = json!({ "version": version });
        self.writer.put(&format!("/v1/images/{image}/aliases/{alias}"), target).await.ok();
    }
}

/// Runs a command that succeeds; what it says on standard output.
#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}
