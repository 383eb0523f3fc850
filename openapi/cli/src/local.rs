//! A file here: its size and its digest.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use imgsrv_client::types::Digest;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::task::spawn_blocking;

use crate::failure::Failure;
use crate::report::{Event, Report, Task};

const BUFFER: usize = 1 << 20;

/// A file, and what was in it.
#[derive(Clone, Debug)]
pub(crate) struct LocalFile {
    pub(crate) path: PathBuf,
    /// The last component of the path.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

impl LocalFile {
    /// Reads all of it.
    pub(crate) async fn hash(path: &Path, report: &Report) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let fail = |err| Failure::file(path, &err);
        let file = File::open(path).map_err(fail)?;
        let before = file.metadata().map_err(fail)?;
        if !before.is_file() {
            return Err(Failure::usage(format!("{}: not a file", path.display())));
        }
        let task = report.task("hashing", &name, before.len());
        let hashed = spawn_blocking(move || {
            let mut file = file;
            let digest = digest(hash_all(&mut file, Sha256::new(), &task)?);
            io::Result::Ok((digest, file.metadata()?))
        });
        let (digest, after) = hashed.await.map_err(io::Error::other).flatten().map_err(fail)?;
        if state(&before) != state(&after) {
            return Err(Failure::other(format!("{}: changed while it was read", path.display())));
        }
        report.say(&Event::Hashed { file: &name, digest: &digest, size_bytes: before.len() });
        Ok(Self { path: path.to_owned(), name, size: before.len(), digest })
    }
}

/// What changes when somebody writes.
fn state(metadata: &Metadata) -> (u64, Option<SystemTime>) {
    (metadata.len(), metadata.modified().ok())
}

/// Goes on with a hash, over the rest of what there is to read.
pub(crate) fn hash_all(bytes: &mut impl Read, mut hasher: Sha256, task: &Task) -> io::Result<Sha256> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                task.advance(count as u64);
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

pub(crate) fn digest(hasher: Sha256) -> Digest {
    format!("sha256:{}", hex::encode(hasher.finalize())).parse().expect("the form of a digest")
}
