//! The only code that does IO with opendal.
//!
//! Objects are written once, under a key that nobody else writes, and are then read or deleted: nothing is copied,
//! renamed, appended to or written conditionally, because stores differ in what they make of that.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use opendal::{Buffer, ErrorKind, Operator};
use uuid::Uuid;

use crate::model::{Digest, PartNumber, UploadId};
use crate::{Error, Result};

/// Every path of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// The bytes of one attempt at a part.
    Part { digest: &'a Digest, upload: UploadId, number: PartNumber, attempt: i32 },
    /// Written, read and deleted to see whether the store works.
    Probe(Uuid),
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { digest, upload, number, attempt } => {
                let hex = digest.hex();
                write!(f, "{BLOBS}{}/{hex}/{upload}.{:05}.{attempt}", &hex[..2], number.get())
            }
            Self::Probe(id) => write!(f, "probe/{id}"),
        }
    }
}

const BLOBS: &str = "blobs/sha256/";

/// The prefixes under which every part lies.
pub(crate) fn part_prefixes() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|byte| format!("{BLOBS}{byte:02x}/"))
}

/// The upload that a part's key names; `None` for what is not one of our keys.
pub(crate) fn upload_of(key: &str) -> Option<UploadId> {
    let name = key.strip_prefix(BLOBS)?.rsplit('/').next()?;
    name.split('.').next()?.parse().ok().map(UploadId)
}

/// The most bytes that are handed to the store at once: with what is received meanwhile a transfer holds twice as much.
pub(crate) const BATCH_MAX: usize = 2 << 20;

/// The store, with what imgsrv adds to it: durable folders, and a floor under the free space.
#[derive(Debug)]
pub(crate) struct Store {
    operator: Operator,
    folders: Option<Folders>,
}

impl Store {
    pub(crate) fn new(operator: Operator) -> Self {
        let info = operator.info();
        let folders = (info.scheme() == "fs").then(|| Folders::new(PathBuf::from(info.root())));
        Self { operator, folders }
    }

    /// Refuses when less than `min_free` bytes are left.
    pub(crate) async fn check_room(&self, min_free: u64) -> Result<()> {
        let Some(folders) = &self.folders else { return Ok(()) };
        let root = folders.root.clone();
        let free = blocking(move || {
            let stat = rustix::fs::statvfs(&root)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        })
        .await?;
        if free < min_free { Err(Error::StorageFull) } else { Ok(()) }
    }

    /// Begins an object.
    pub(crate) async fn writer(&self, key: &str) -> Result<ObjectWriter<'_>> {
        let inner = self.operator.writer(key).await.map_err(store_error)?;
        Ok(ObjectWriter { store: self, inner, key: key.to_owned(), size: 0 })
    }

    /// The size of an object; `None` when there is none.
    pub(crate) async fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.operator.stat(key).await {
            Ok(metadata) => Ok(Some(metadata.content_length())),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(store_error(err)),
        }
    }

    /// The bytes of an object from `start` to `end`; `None` when the object is missing or ends before `end`.
    pub(crate) async fn read(&self, key: &str, start: u64, end: u64) -> Result<Option<Buffer>> {
        match self.operator.read_with(key).range(start..end).await {
            Ok(buffer) if buffer.len() as u64 == end - start => Ok(Some(buffer)),
            Ok(_) => Ok(None),
            Err(err) if err.kind() == ErrorKind::NotFound || err.kind() == ErrorKind::RangeNotSatisfied => Ok(None),
            // Stores differ in what they say of a range behind the end: ask for the size before blaming the store.
            Err(err) => match self.size(key).await? {
                Some(size) if size >= end => Err(store_error(err)),
                _ => Ok(None),
            },
        }
    }

    /// Deletes an object; one that is not there counts as deleted.
    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        match self.operator.delete(key).await {
            // Two deleted it at once; opendal's fs looks before it deletes.
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted.map_err(store_error),
        }
    }

    /// The keys of the objects under a prefix.
    pub(crate) async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<String>>> {
        let lister = match self.operator.lister_with(prefix).recursive(true).await {
            Ok(lister) => lister,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(futures_util::stream::empty().boxed()),
            Err(err) => return Err(store_error(err)),
        };
        Ok(lister
            .map_err(store_error)
            .try_filter_map(|entry| async move { Ok((!entry.path().ends_with('/')).then(|| entry.path().to_owned())) })
            .boxed())
    }

    /// Answers when the store does. Reads only, and of nothing that is there.
    pub(crate) async fn reach(&self) -> Result<()> {
        self.size("probe/none").await.map(drop)
    }

    /// Writes, reads, lists and deletes an object.
    pub(crate) async fn probe(&self, id: Uuid) -> Result<()> {
        let key = Key::Probe(id).to_string();
        let wrong = |what: &str| Error::Unavailable { what: "store", source: what.into() };
        let mut writer = self.writer(&key).await?;
        writer.write(vec![Bytes::from_static(b"imgsrv")]).await?;
        writer.finish().await?;
        let read = self.read(&key, 0, 6).await?.ok_or_else(|| wrong("what was written is not there"))?;
        if read.to_bytes() != b"imgsrv"[..] {
            return Err(wrong("what was written reads differently"));
        }
        let listed = self.list("probe/").await?.try_any(|listed| std::future::ready(listed == key)).await?;
        if !listed {
            return Err(wrong("what was written is not listed"));
        }
        self.delete(&key).await
    }
}

/// An object that is being written.
pub(crate) struct ObjectWriter<'a> {
    store: &'a Store,
    inner: opendal::Writer,
    key: String,
    size: u64,
}

impl ObjectWriter<'_> {
    /// Writes what follows; give it a MiB or more at a time.
    pub(crate) async fn write(&mut self, bytes: Vec<Bytes>) -> Result<()> {
        self.size += bytes.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        self.inner.write(Buffer::from(bytes)).await.map_err(store_error)
    }

    /// Closes the object, confirms its size and makes it durable.
    pub(crate) async fn finish(mut self) -> Result<()> {
        match &self.store.folders {
            // opendal syncs a file where it is polled: for gigabytes, that is no place for a thread of the runtime.
            Some(_) => {
                let runtime = tokio::runtime::Handle::current();
                let mut inner = self.inner;
                blocking(move || Ok(runtime.block_on(inner.close()))).await?.map_err(store_error)?;
            }
            None => {
                self.inner.close().await.map_err(store_error)?;
            }
        }
        match self.store.size(&self.key).await? {
            Some(size) if size == self.size => {}
            size => {
                let source = format!("{} bytes were written, the store has {size:?}", self.size).into();
                return Err(Error::Unavailable { what: "store", source });
            }
        }
        match &self.store.folders {
            Some(folders) => folders.sync_above(&self.key).await,
            None => Ok(()),
        }
    }

    /// Gives the object up; what can be taken back is. The caller deletes the rest.
    pub(crate) async fn discard(mut self) {
        if let Err(err) = self.inner.abort().await
            && err.kind() != ErrorKind::Unsupported
        {
            tracing::debug!(error = %err, key = self.key, "an unfinished object could not be taken back");
        }
    }
}

/// opendal syncs a file when it closes it, but not the folders that name it.
#[derive(Debug)]
struct Folders {
    root: PathBuf,
    /// Folders below the root whose names are durable.
    named: Mutex<HashSet<PathBuf>>,
}

impl Folders {
    fn new(root: PathBuf) -> Self {
        Self { root, named: Mutex::default() }
    }

    /// Makes the name of a new object durable, and the names of the folders above it that this process has not made
    /// durable yet: a name lies in the folder above, so that one is synced.
    async fn sync_above(&self, key: &str) -> Result<()> {
        let Some(folder) = Path::new(key).parent() else { return Ok(()) };
        let new: Vec<PathBuf> = {
            let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            let below_root = folder.ancestors().take_while(|above| !above.as_os_str().is_empty());
            below_root.filter(|above| !named.contains(*above)).map(Path::to_owned).collect()
        };
        let mut sync = vec![self.root.join(folder)];
        sync.extend(new.iter().filter_map(|folder| folder.parent()).map(|above| self.root.join(above)));
        blocking(move || sync.iter().try_for_each(|folder| std::fs::File::open(folder)?.sync_all())).await?;
        self.named.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(err)) if is_full(&err) => Err(Error::StorageFull),
        Ok(Err(err)) => Err(Error::Unavailable { what: "store", source: err.into() }),
        Err(err) => Err(Error::internal("a task of the store", err)),
    }
}

fn is_full(err: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(err), |err| err.source())
        .filter_map(|err| err.downcast_ref::<std::io::Error>())
        .any(|err| matches!(err.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
}

fn store_error(err: opendal::Error) -> Error {
    if is_full(&err) { Error::StorageFull } else { Error::Unavailable { what: "store", source: err.into() } }
}
