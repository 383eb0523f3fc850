//! `imgsrv pull`: from a published version to a file, which has its name only when it has all its bytes.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::TryStreamExt;
use imgsrv_client::types::{
    Architecture, Artifact, AttachmentName, Digest, DirectoryFile, Format, OperatingSystem, Variant,
};
use sha2::Digest as _;
use sha2::Sha256;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::timeout;

use crate::catalog::{kind, manifest, resolve};
use crate::failure::{Failure, Kind};
use crate::local::{self, LocalFile, hash_all};
use crate::push::formats;
use crate::remote::{Common, Failed, Patience, Remote, STALLED};
use crate::report::{Event, Report, Task};
use crate::table::print_line;
use crate::target::Target;

/// Download an artifact of a version, and check it. Run it again to go on with a download that was interrupted.
#[derive(Args, Clone, Debug)]
pub struct PullArgs {
    /// Image, and a version or alias of it
    #[arg(value_name = "IMAGE[:REF]")]
    target: Target,

    /// Operating system, where there are several
    #[arg(long, value_name = "NAME")]
    os: Option<OperatingSystem>,

    /// Architecture, where there are several
    #[arg(long, value_name = "NAME")]
    arch: Option<Architecture>,

    /// Variant, where there are several
    #[arg(long, value_name = "NAME")]
    variant: Option<Variant>,

    /// Format, where there are several
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    format: Option<Format>,

    /// Download what is attached to the artifact under this name instead
    #[arg(long, value_name = "NAME")]
    attachment: Option<AttachmentName>,

    /// File or folder to write to; - is standard output [default: the name that the server gives it]
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,

    /// Replace a file that has other bytes
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn pull(args: PullArgs, report: &Report) -> Result<(), Failure> {
    let remote = args.common.connect()?;
    let wanted = choose(&args, &remote, report).await?;
    let download = Download { remote: &remote, report, wanted: &wanted };
    if args.output.as_deref() == Some(Path::new("-")) {
        if report.is_json() {
            return Err(Failure::usage("--json: standard output is taken by the file"));
        }
        return download.to_standard_output().await;
    }
    let path = destination(args.output.as_deref(), &wanted)?;
    download.to_file(&path, args.force).await?;
    if !report.is_json() {
        print_line(&path.display().to_string())?;
    }
    Ok(())
}

/// Bytes that are to be had.
struct Wanted {
    name: String,
    digest: Digest,
    size: u64,
}

async fn choose(args: &PullArgs, remote: &Remote, report: &Report) -> Result<Wanted, Failure> {
    let image = &args.target.image;
    let version = resolve(remote, report, &args.target).await?.version;
    let manifest = manifest(remote, report, image, &version).await?;
    let fits: Vec<&Artifact> =
        manifest.artifacts.iter().map(|entry| &entry.artifact).filter(|artifact| args.fits(artifact)).collect();
    let artifact = match fits[..] {
        [artifact] => artifact,
        [] => return Err(Failure::new(Kind::NotFound, format!("{}: no artifact of it is such a one", args.target))),
        _ => {
            let all: Vec<_> = fits.iter().map(|artifact| format!("{}/{}", kind(artifact), artifact.format)).collect();
            let line = "several artifacts; choose one with --os, --arch, --variant and --format";
            return Err(Failure::usage(format!("{}: {line}: {}", args.target, all.join(", "))));
        }
    };
    // The directory of the version, not of the alias: a file whose name does not move should not change.
    let directory = remote
        .ask(report, async |client| client.list_files().image(image.as_str()).reference(version.as_str()).send().await)
        .await?;
    let attachment = manifest.artifacts.iter().flat_map(|entry| &entry.attachments);
    let attachment = args.attachment.as_ref().map(|name| {
        let mut found =
            attachment.filter(|attachment| attachment.artifact_id == artifact.id && attachment.name == *name);
        found
            .next()
            .map(|found| found.id)
            .ok_or_else(|| Failure::new(Kind::NotFound, format!("{}: no attachment {}", args.target, **name)))
    });
    let attachment = attachment.transpose()?;
    let mut files = directory.files.into_iter();
    let file = files.find(|file| file.artifact_id == artifact.id && file.attachment_id == attachment);
    file.ok_or_else(|| Failure::other("the server does not list the file")).and_then(Wanted::new)
}

impl PullArgs {
    fn fits(&self, artifact: &Artifact) -> bool {
        self.os.as_ref().is_none_or(|os| *os == artifact.operating_system)
            && self.arch.as_ref().is_none_or(|arch| *arch == artifact.architecture)
            && self.variant.as_ref().is_none_or(|variant| *variant == artifact.variant)
            && self.format.is_none_or(|format| format == artifact.format)
    }
}

impl Wanted {
    fn new(file: DirectoryFile) -> Result<Self, Failure> {
        // It becomes a name here.
        if file.name.contains(['/', '\\', '\0']) || file.name.starts_with('.') {
            return Err(Failure::other(format!("the server calls the file {}", file.name)));
        }
        let size = u64::try_from(file.size_bytes).map_err(|_| Failure::other("the server gives it a negative size"))?;
        Ok(Self { name: file.name, digest: file.digest, size })
    }
}

fn destination(output: Option<&Path>, wanted: &Wanted) -> Result<PathBuf, Failure> {
    let Some(output) = output else { return Ok(PathBuf::from(&wanted.name)) };
    if output.is_dir() {
        return Ok(output.join(&wanted.name));
    }
    // What ends in a slash is to be a folder, and is none.
    match output.file_name().filter(|_| !output.as_os_str().as_bytes().ends_with(b"/")) {
        Some(_) => Ok(output.to_owned()),
        None => Err(Failure::usage(format!("{}: no such folder", output.display()))),
    }
}

struct Download<'a> {
    remote: &'a Remote,
    report: &'a Report,
    wanted: &'a Wanted,
}

impl Download<'_> {
    async fn to_file(&self, path: &Path, force: bool) -> Result<(), Failure> {
        let Wanted { digest, size, name } = self.wanted;
        match fs::metadata(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            found => {
                let found = found.map_err(|err| Failure::file(path, &err))?;
                if !found.is_file() {
                    return Err(Failure::usage(format!("{}: is there and is not a file", path.display())));
                }
                if found.len() == *size && LocalFile::hash(path, self.report).await?.digest == *digest {
                    self.report.say(&Event::Present { file: name, digest });
                    return Ok(());
                }
                if !force {
                    return Err(is_there(path));
                }
            }
        }
        let mut partial = Partial::open(path, digest)?;
        let (mut hasher, have) = partial.hash(*size, self.report).await?;
        self.fill(&mut partial, &mut hasher, have).await?;
        if have > 0 && local::digest(hasher.clone()) != *digest {
            // What an earlier run left may have been damaged since; what comes now may not.
            partial.empty()?;
            hasher = Sha256::new();
            self.fill(&mut partial, &mut hasher, 0).await?;
        }
        if local::digest(hasher) != *digest {
            fs::remove_file(&partial.path).map_err(|err| Failure::file(&partial.path, &err))?;
            return Err(self.damaged());
        }
        partial.keep_as(path, force)?;
        self.report.say(&Event::Downloaded { file: name, digest, size_bytes: *size });
        Ok(())
    }

    /// Downloads what is missing.
    async fn fill(&self, partial: &mut Partial, hasher: &mut Sha256, have: u64) -> Result<(), Failure> {
        let task = self.report.task("downloading", &self.wanted.name, self.wanted.size);
        task.begin_at(have);
        if have > 0 && have < self.wanted.size {
            self.report.say(&Event::Resuming { file: &self.wanted.name, upload_id: None, stored_bytes: have });
        }
        self.stream(&mut partial.file, &partial.path, hasher, have, &task).await
    }

    async fn to_standard_output(&self) -> Result<(), Failure> {
        let task = self.report.task("downloading", &self.wanted.name, self.wanted.size);
        let mut hasher = Sha256::new();
        self.stream(&mut io::stdout(), Path::new("standard output"), &mut hasher, 0, &task).await?;
        io::stdout().flush().map_err(|err| Failure::file(Path::new("standard output"), &err))?;
        if local::digest(hasher) == self.wanted.digest { Ok(()) } else { Err(self.damaged()) }
    }

    fn damaged(&self) -> Failure {
        let Wanted { name, digest, .. } = self.wanted;
        Failure::new(Kind::Damaged, format!("{name}: what came does not have the digest {}", **digest))
    }

    /// Writes the bytes from `have` on, and asks for the rest as often as the connection breaks.
    async fn stream(
        &self,
        out: &mut impl Write,
        path: &Path,
        hasher: &mut Sha256,
        mut have: u64,
        task: &Task,
    ) -> Result<(), Failure> {
        let mut patience = self.remote.patience();
        while have < self.wanted.size {
            if let Err(stop) = self.attempt(out, path, hasher, &mut have, task, &mut patience).await {
                match stop {
                    Stop::Here(failure) => return Err(failure),
                    Stop::There(failed) => patience.pause(self.report, failed).await?,
                }
            }
        }
        Ok(())
    }

    async fn attempt(
        &self,
        out: &mut impl Write,
        path: &Path,
        hasher: &mut Sha256,
        have: &mut u64,
        task: &Task,
        patience: &mut Patience,
    ) -> Result<(), Stop> {
        let Wanted { digest, size, .. } = self.wanted;
        let unavailable = |line| Stop::There(Failed::new(Failure::new(Kind::Unavailable, line)));
        let mut ask = self.remote.client.read_blob().digest(digest.as_str());
        if *have > 0 {
            ask = ask.range(format!("bytes={have}-")).if_range(format!("\"{}\"", **digest));
        }
        let answer = timeout(STALLED, ask.send()).await.map_err(|_| unavailable("no answer for two minutes"))?;
        let answer = answer.map_err(|err| Stop::There(err.into()))?;
        // The digest names the bytes, so a whole answer is the same bytes from the start.
        let mut ahead = if answer.status() == 206 { 0 } else { *have };
        let mut bytes = answer.into_inner();
        loop {
            let chunk =
                timeout(STALLED, bytes.try_next()).await.map_err(|_| unavailable("nothing came for two minutes"))?;
            let chunk = chunk.map_err(|err| Stop::There(Failed::new(err.into())))?;
            let Some(chunk) = chunk else { break };
            let known = usize::try_from(ahead).unwrap_or(usize::MAX).min(chunk.len());
            ahead -= known as u64;
            let chunk = &chunk[known..];
            if chunk.len() as u64 > size - *have {
                return Err(Stop::Here(self.damaged()));
            }
            block_in_place(|| {
                hasher.update(chunk);
                out.write_all(chunk)
            })
            .map_err(|err| Stop::Here(Failure::file(path, &err)))?;
            *have += chunk.len() as u64;
            task.advance(chunk.len() as u64);
            if !chunk.is_empty() {
                patience.moved();
            }
        }
        if have == size { Ok(()) } else { Err(unavailable("the answer ended too early")) }
    }
}

/// Whose fault it is that it does not go on.
enum Stop {
    /// Of this machine: to ask again is of no use.
    Here(Failure),
    /// Of the server, or of the way there.
    There(Failed),
}

/// A file on its way, under a name that says of what it is a part.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn open(path: &Path, digest: &Digest) -> Result<Self, Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", &digest["sha256:".len()..][..16]));
        let path = path.with_file_name(name);
        let fail = |err| Failure::file(&path, &err);
        loop {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
            match file.try_lock() {
                // Another one may have given it its name, or removed it, between opening and locking.
                Ok(()) if is_at(&file, &path) => return Ok(Self { path, file }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let line = format!("{}: another download is writing it", path.display());
                    return Err(Failure::new(Kind::Conflict, line));
                }
                Err(TryLockError::Error(err)) => return Err(fail(err)),
            }
        }
    }

    fn empty(&mut self) -> Result<(), Failure> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|err| Failure::file(&self.path, &err))
    }

    /// Hashes what is there, and leaves the file where the rest has to go.
    async fn hash(&mut self, size: u64, report: &Report) -> Result<(Sha256, u64), Failure> {
        let path = self.path.clone();
        let fail = |err| Failure::file(&path, &err);
        let have = self.file.metadata().map_err(fail)?.len();
        if have > size {
            self.empty()?;
            return Ok((Sha256::new(), 0));
        }
        if have == 0 {
            return Ok((Sha256::new(), 0));
        }
        let file = self.file.try_clone().map_err(fail)?;
        let task = report.task("hashing", &self.path.file_name().unwrap_or_default().to_string_lossy(), have);
        let reading = spawn_blocking(move || {
            (&file).seek(SeekFrom::Start(0))?;
            hash_all(&mut (&file).take(have), Sha256::new(), |count| task.advance(count))
        });
        let hasher = reading.await.map_err(io::Error::other).flatten().map_err(fail)?;
        self.file.seek(SeekFrom::Start(have)).map_err(fail)?;
        Ok((hasher, have))
    }

    /// Gives it its name, when all of it is on the disk. Unless it may, it takes no other file's.
    fn keep_as(self, path: &Path, force: bool) -> Result<(), Failure> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = || {
            self.file.sync_all()?;
            if force {
                fs::rename(&self.path, path)?;
            } else {
                match fs::hard_link(&self.path, path) {
                    Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Err(err),
                    // Not every file system knows of links.
                    Err(_) => fs::rename(&self.path, path)?,
                    Ok(()) => fs::remove_file(&self.path)?,
                }
            }
            File::open(folder)?.sync_all()
        };
        block_in_place(named).map_err(|err| match err.kind() {
            io::ErrorKind::AlreadyExists => is_there(path),
            _ => Failure::file(path, &err),
        })
    }
}

/// Whether this is the file that is called so now.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |held: Metadata, found: Metadata| (held.dev(), held.ino()) == (found.dev(), found.ino());
    file.metadata().and_then(|held| Ok(same(held, fs::metadata(path)?))).unwrap_or(false)
}

fn is_there(path: &Path) -> Failure {
    Failure::new(Kind::Conflict, format!("{}: is there with other bytes; --force replaces it", path.display()))
}
