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
use crate::report::{Event, Report};

const BUFFER: usize = 1 << 20;

/// A file, and what was in it.
#[derive(Clone, Debug)]
pub(crate) struct LocalFile {
    pub(crate) path: PathBuf,
    /// The last component of the path.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    state: State,
}

/// What changes when somebody writes.
type State = (u64, Option<SystemTime>);

impl LocalFile {
    /// Reads all of it.
    pub(crate) async fn hash(path: &Path, report: &Report) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let fail = |err| Failure::file(path, &err);
        check_is_file(path)?;
        let file = File::open(path).map_err(fail)?;
        let before = file.metadata().map_err(fail)?;
        let task = report.task("hashing", &name, before.len());
        let hashed = spawn_blocking(move || {
            let mut file = file;
            let digest = digest(hash_all(&mut file, Sha256::new(), |count| task.advance(count))?);
            io::Result::Ok((digest, file.metadata()?))
        });
        let (digest, after) = hashed.await.map_err(io::Error::other).flatten().map_err(fail)?;
        if state(&before) != state(&after) {
            return Err(Failure::other(format!("{}: changed while it was read", path.display())));
        }
        report.say(&Event::Hashed { file: &name, digest: &digest, size_bytes: before.len() });
        Ok(Self { path: path.to_owned(), name, size: before.len(), digest, state: state(&before) })
    }

    /// The size as the API has it.
    pub(crate) fn size_bytes(&self) -> i64 {
        // No file is larger on any system.
        i64::try_from(self.size).unwrap_or(i64::MAX)
    }

    /// Fails where it is not what was hashed any more, which the server would only find out when it has all of it.
    pub(crate) fn check_unchanged(&self) -> Result<(), Failure> {
        let now = std::fs::metadata(&self.path).map_err(|err| Failure::file(&self.path, &err))?;
        if state(&now) == self.state {
            return Ok(());
        }
        Err(Failure::other(format!("{}: changed since it was read", self.path.display())))
    }
}

/// Fails for what cannot be read as a file, without opening it: that may take for ever.
pub(crate) fn check_is_file(path: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|err| Failure::file(path, &err))?;
    if metadata.is_file() { Ok(()) } else { Err(Failure::usage(format!("{}: not a file", path.display()))) }
}

fn state(metadata: &Metadata) -> State {
    (metadata.len(), metadata.modified().ok())
}

/// Goes on with a hash, over the rest of what there is to read.
pub(crate) fn hash_all(bytes: &mut impl Read, mut hasher: Sha256, moved: impl Fn(u64)) -> io::Result<Sha256> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                moved(count as u64);
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

pub(crate) fn digest(hasher: Sha256) -> Digest {
    format!("sha256:{}", hex::encode(hasher.finalize())).parse().expect("the form of a digest")
}
