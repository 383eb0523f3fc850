//! What a user would pick instead, from Debian's packages, and a loop that does nothing but what has to be done.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use imgsrv_core::testing::Garage;
use opendal::Operator;
use opendal::services::S3;
use tempfile::TempDir;

use crate::http::{Body, Connection};
use crate::server::{Program, free};

/// nginx over a folder, with its defaults but for what is said here.
pub(crate) struct Nginx {
    pub(crate) program: Program,
    folder: TempDir,
}

impl Nginx {
    pub(crate) fn start(sendfile: bool) -> io::Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free()?);
        let root = folder.path().display();
        let sendfile = if sendfile { "on" } else { "off" };
        let configuration = format!(
            "daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes auto;\n\
             events {{}}\n\
             http {{\n\
               access_log off; sendfile {sendfile}; tcp_nopush on; keepalive_requests 1000000;\n\
               client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n\
               uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
               server {{ listen {address}; root {root}/www; }}\n\
             }}\n"
        );
        fs::create_dir(folder.path().join("www"))?;
        // Its workers belong to nobody.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody)?;
        fs::write(folder.path().join("nginx.conf"), configuration)?;
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(folder.path().join("nginx.conf")).stderr(Stdio::null());
        Ok(Self { program: Program::start(&mut command, address)?, folder })
    }

    /// The folder that it serves.
    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("www")
    }
}

/// docker-registry over a folder.
pub(crate) struct Registry {
    pub(crate) program: Program,
    _folder: TempDir,
}

impl Registry {
    pub(crate) fn start() -> io::Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free()?);
        let root = folder.path().display();
        let configuration = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: \"{address}\"}}\n"
        );
        fs::write(folder.path().join("config.yml"), configuration)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(folder.path().join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { program: Program::start(&mut command, address)?, _folder: folder })
    }

    /// Uploads a blob in one piece; its path.
    pub(crate) fn put(&self, digest: &str, body: &Body<'_>) -> io::Result<String> {
        let mut connection = Connection::to(self.program.address)?;
        let (begun, _) = connection.ask("POST", "/v2/bench/blobs/uploads/", "", &Body::NONE)?;
        let location = begun.location.unwrap_or_default();
        let path = location.strip_prefix(&format!("http://{}", self.program.address)).unwrap_or(&location);
        let octets = "content-type: application/octet-stream\r\n";
        connection.ask("PUT", &format!("{path}&digest={digest}"), octets, body)?;
        Ok(format!("/v2/bench/blobs/{digest}"))
    }
}

/// Paths of objects in Garage that need no more rights than they bring.
pub(crate) struct Presigned {
    operator: Operator,
    runtime: tokio::runtime::Runtime,
}

impl Presigned {
    pub(crate) fn of(garage: &Garage, bucket: &str) -> io::Result<Self> {
        let service = S3::default()
            .endpoint(&format!("http://{}", garage.endpoint()))
            .bucket(bucket)
            .region(Garage::REGION)
            .access_key_id(Garage::ACCESS_KEY_ID)
            .secret_access_key(Garage::SECRET_ACCESS_KEY)
            .disable_config_load();
        opendal::install_default(); // the HTTP client, which only opendal's own default features would bring along
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { operator: Operator::new(service).map_err(io::Error::other)?, runtime })
    }

    /// The key of the one large object in the bucket.
    pub(crate) fn only_object(&self) -> io::Result<String> {
        let listed = self.runtime.block_on(async { self.operator.list_with("blobs/").recursive(true).await });
        let mut files = listed.map_err(io::Error::other)?.into_iter().filter(|entry| !entry.path().ends_with('/'));
        files.next().map(|entry| entry.path().to_owned()).ok_or_else(|| io::Error::other("there is no object"))
    }

    pub(crate) fn get(&self, key: &str) -> io::Result<String> {
        let signed = self.runtime.block_on(self.operator.presign_read(key, std::time::Duration::from_hours(1)));
        path_of(&signed.map_err(io::Error::other)?)
    }

    pub(crate) fn put(&self, key: &str) -> io::Result<String> {
        let signed = self.runtime.block_on(self.operator.presign_write(key, std::time::Duration::from_hours(1)));
        path_of(&signed.map_err(io::Error::other)?)
    }
}

fn path_of(signed: &opendal::raw::PresignedRequest) -> io::Result<String> {
    let path = signed.uri().path_and_query().map(ToString::to_string);
    path.ok_or_else(|| io::Error::other("a presigned request has no path"))
}

/// This program as [`crate::bare`].
pub(crate) fn bare(folder: &Path) -> io::Result<Program> {
    let address = free()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").arg(address.to_string()).arg(folder);
    Program::start(&mut command, address)
}
