//! The only code that does IO with opendal.
//!
//! Objects are written once, under a key that nobody else writes, and are then read or deleted: nothing is copied,
//! renamed, appended to or written conditionally, because stores differ in what they make of that.

mod folders;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use opendal::{Buffer, BufferStream, ErrorKind, Metadata, Operator, Reader};
use tokio::sync::{OnceCell, Semaphore, oneshot};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

pub(crate) use writer::ObjectWriter;

use self::folders::Folders;
use crate::faults::Faults;
use crate::model::{Digest, PartNumber, UploadId};
use crate::{Error, Result};

/// Every path of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// The bytes of one attempt at a part.
    Part { digest: &'a Digest, upload: UploadId, number: PartNumber, attempt: i32 },
    /// Written, read and deleted to see whether the store works.
    Probe(Uuid),
    /// Holds the name of the store, by which a database knows its own.
    Name,
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { digest, upload, number, attempt } => {
                let hex = digest.hex();
                write!(f, "{BLOBS}{}/{hex}/{upload}.{:05}.{attempt}", &hex[..2], number.get())
            }
            Self::Probe(id) => write!(f, "{PROBES}{id}"),
            Self::Name => f.write_str("imgsrv-store"),
        }
    }
}

const BLOBS: &str = "blobs/sha256/";

/// The prefix under which every probe lies.
pub(crate) const PROBES: &str = "probe/";

/// The prefixes under which every part lies.
pub(crate) fn part_prefixes() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|byte| format!("{BLOBS}{byte:02x}/"))
}

/// The upload that a part's key names; `None` for what is not one of our keys.
pub(crate) fn upload_of(key: &str) -> Option<UploadId> {
    let name = key.strip_prefix(BLOBS)?.rsplit('/').next()?;
    name.split('.').next()?.parse().ok().map(UploadId)
}

/// When a probe began, as its id tells; `None` for what is not one of our keys.
pub(crate) fn probe_time(key: &str) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = Uuid::try_parse(key.strip_prefix(PROBES)?).ok()?.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// How many objects are deleted at once.
const DELETES_AT_ONCE: usize = 16;

/// In which sizes a store is given what it writes: bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batches {
    pub least: usize,
    pub most: usize,
    /// How many of them a transfer keeps behind the one that it writes: opendal has one until it has the next, and so
    /// many may not be hashed yet.
    pub kept: usize,
}

impl Batches {
    /// How many of them a transfer holds at once: one is received while the one before is written.
    pub(crate) fn alive(self) -> usize {
        2 + self.kept
    }

    /// How large a batch can be where so much is granted to a transfer, in whole pages of a file.
    pub(crate) fn of(self, granted: usize) -> usize {
        let size = granted / self.alive();
        (size - size % PAGE).max(self.least)
    }
}

const PAGE: usize = 4 << 10;

/// Four of them make 64 KiB, the unit of memory, and 3.75 MiB, of the 4 MiB that a transfer may have.
const LOCAL: Batches = Batches { least: 16 << 10, most: 960 << 10, kept: 2 };

/// A part of a multipart upload has at least 5 MiB (but the last). See
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const REMOTE: Batches = Batches { least: 5 << 20, most: 10 << 20, kept: 1 };

/// The store, with what imgsrv adds to it: durable folders, and a floor under the free space.
#[derive(Debug)]
pub(crate) struct Store {
    operator: Operator,
    folders: Option<Folders>,
    closing: Semaphore,
    faults: Faults,
}

/// An object that is read, in one piece or in many. A file is opened once for all of them.
pub(crate) struct Object {
    key: String,
    opened: OnceCell<Reader>,
}

impl Object {
    pub(crate) fn new(key: String) -> Self {
        Self { key, opened: OnceCell::new() }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

/// How many files are synced at once: enough for a journal to take several in one go.
const CLOSING: usize = 16;

impl Store {
    pub(crate) fn new(operator: Operator, faults: Faults) -> Self {
        let info = operator.info();
        let folders = (info.scheme() == "fs").then(|| Folders::new(PathBuf::from(info.root())));
        Self { operator, folders, closing: Semaphore::new(CLOSING), faults }
    }

    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::new(Operator::new(opendal::services::Memory::default()).expect("a store in memory"), Faults::default())
    }

    /// Whether the objects are behind a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.operator.info().scheme() == "s3"
    }

    pub(crate) fn batches(&self) -> Batches {
        if self.is_remote() { REMOTE } else { LOCAL }
    }

    /// Refuses when less than `min_free` bytes are left.
    pub(crate) async fn check_room(&self, min_free: u64) -> Result<()> {
        let Some(folders) = &self.folders else { return Ok(()) };
        let passing = self.faults.pass("store.room").await?;
        if folders.free().await? < min_free { Err(Error::StorageFull) } else { passing.done(()) }
    }

    /// Begins an object.
    pub(crate) async fn writer(&self, key: &str) -> Result<ObjectWriter<'_>> {
        let passing = self.faults.pass("store.open").await?;
        let inner = self.operator.writer(key).await.map_err(store_error)?;
        passing.done(ObjectWriter::new(self, inner, key))
    }

    /// The size of an object; `None` when there is none.
    pub(crate) async fn size(&self, key: &str) -> Result<Option<u64>> {
        let passing = self.faults.pass("store.size").await?;
        let size = match self.operator.stat(key).await {
            Ok(metadata) => Some(metadata.content_length()),
            Err(err) if err.kind() == ErrorKind::NotFound => None,
            Err(err) => return Err(store_error(err)),
        };
        passing.done(size)
    }

    /// The bytes of an object as they come, up to the end of the range or, where the object is missing or ends before
    /// that, to a `None`.
    pub(crate) fn read(&self, object: &Object, range: Range<u64>) -> impl Stream<Item = Result<Option<Buffer>>> {
        stream::try_unfold((range, None), async |(mut left, mut arriving)| {
            if left.is_empty() {
                return Ok(None);
            }
            let Some(buffer) = self.read_next(object, &left, &mut arriving).await? else {
                return Ok(Some((None, (0..0, None))));
            };
            left.start += buffer.len() as u64;
            // A store that knows no ranges sends all it has, and its bytes are not what they seem to be.
            let is_more = left.start > left.end
                || left.is_empty() && self.read_next(object, &left, &mut arriving).await?.is_some();
            if is_more {
                return Err(Error::Unavailable { what: "store", source: "more came than was asked for".into() });
            }
            Ok(Some((Some(buffer), (left, arriving))))
        })
    }

    async fn read_next(
        &self,
        object: &Object,
        left: &Range<u64>,
        arriving: &mut Option<BufferStream>,
    ) -> Result<Option<Buffer>> {
        let key = &object.key;
        let read = if let Some(arriving) = arriving {
            arriving.try_next().await
        } else {
            let passing = self.faults.pass("store.read").await?;
            let opened = object.opened.get_or_try_init(|| self.operator.reader(key));
            let first =
                async { arriving.insert(opened.await?.clone().into_stream(left.clone()).await?).try_next().await };
            passing.done(first.await)?
        };
        match read {
            Ok(arrived) => Ok(arrived),
            Err(err) if err.kind() == ErrorKind::NotFound || err.kind() == ErrorKind::RangeNotSatisfied => Ok(None),
            // Stores differ in what they say of a range behind the end: ask for the size before blaming the store.
            Err(err) => match self.size(key).await? {
                Some(size) if size >= left.end => Err(store_error(err)),
                _ => Ok(None),
            },
        }
    }

    /// What stands at this place of an object, if all of it is there.
    async fn read_all(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let object = Object::new(key.to_owned());
        let parts: Vec<_> = self.read(&object, range).boxed().try_collect().await?;
        let parts: Option<Vec<Buffer>> = parts.into_iter().collect();
        Ok(parts.map(|parts| parts.into_iter().flatten().collect::<Buffer>().to_bytes()))
    }

    /// Deletes an object; one that is not there counts as deleted.
    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        let passing = self.faults.pass("store.delete").await?;
        match self.operator.delete(key).await {
            // Two deleted it at once; opendal's fs looks before it deletes.
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            deleted => deleted.map_err(store_error)?,
        }
        passing.done(())
    }

    /// Deletes objects, several at once; the keys of those that are gone. What cannot be deleted now is logged.
    pub(crate) async fn delete_all(&self, keys: Vec<String>) -> Vec<String> {
        let deletes = stream::iter(keys).map(|key| async move {
            match self.delete(&key).await {
                Ok(()) => Some(key),
                Err(err) => {
                    tracing::warn!(error = err.chain(), key, "an object could not be deleted yet");
                    None
                }
            }
        });
        deletes.buffer_unordered(DELETES_AT_ONCE).filter_map(std::future::ready).collect().await
    }

    /// The keys of the objects under a prefix.
    pub(crate) async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<String>>> {
        let passing = self.faults.pass("store.list").await?;
        let lister = match self.operator.lister_with(prefix).recursive(true).await {
            Ok(lister) => passing.done(lister)?,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(stream::empty().boxed()),
            Err(err) => return Err(store_error(err)),
        };
        Ok(lister
            .map_err(store_error)
            .try_filter_map(|entry| async move { Ok((!entry.path().ends_with('/')).then(|| entry.path().to_owned())) })
            .boxed())
    }

    /// The name of the store, if it has one.
    pub(crate) async fn name(&self) -> Result<Option<Uuid>> {
        let text = self.read_all(&Key::Name.to_string(), 0..Hyphenated::LENGTH as u64).await?;
        Ok(text.and_then(|text| Uuid::try_parse_ascii(&text).ok()))
    }

    /// Names the store.
    pub(crate) async fn put_name(&self, name: Uuid) -> Result<()> {
        let mut writer = self.writer(&Key::Name.to_string()).await?;
        writer.write(Bytes::from(name.to_string())).await?;
        writer.finish().await
    }

    /// Whether there is any part.
    pub(crate) async fn has_parts(&self) -> Result<bool> {
        Ok(self.list(BLOBS).await?.try_next().await?.is_some())
    }

    /// Writes, reads, lists and deletes an object.
    pub(crate) async fn probe(&self, id: Uuid) -> Result<()> {
        let key = Key::Probe(id).to_string();
        let wrong = |what: &str| Error::Unavailable { what: "store", source: what.into() };
        let mut writer = self.writer(&key).await?;
        writer.write(Bytes::from_static(b"imgsrv")).await?;
        writer.finish().await?;
        let read = self.read_all(&key, 0..6).await?.ok_or_else(|| wrong("what was written is not there"))?;
        if read != b"imgsrv"[..] {
            return Err(wrong("what was written reads differently"));
        }
        let listed = self.list(PROBES).await?.try_any(|listed| std::future::ready(listed == key)).await?;
        if !listed {
            return Err(wrong("what was written is not listed"));
        }
        self.delete(&key).await
    }
}

/// opendal syncs a file where it is polled: for gigabytes that is no place for a thread of the runtime, nor for one of
/// its pool, which closing waits for.
async fn close_apart(mut writer: opendal::Writer) -> Result<Result<Metadata, opendal::Error>> {
    let runtime = tokio::runtime::Handle::current();
    let (done, closed) = oneshot::channel();
    std::thread::Builder::new()
        .name("imgsrv-close".to_owned())
        .spawn(move || done.send(runtime.block_on(writer.close())))
        .map_err(|err| Error::Unavailable { what: "store", source: err.into() })?;
    closed.await.map_err(|err| Error::internal("closing an object", err))
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use opendal::services::S3;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// A store on the network that answers every GET with these pieces, one after the other whatever was asked for, and
    /// says that its one object has `size` bytes.
    async fn answering(pieces: &'static str, size: usize) -> (Store, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let s3 = S3::default().endpoint(&format!("http://{}", listener.local_addr().unwrap()));
        let s3 = s3.bucket("bucket").region("anywhere").access_key_id("a").secret_access_key("b").disable_config_load();
        opendal::install_default();
        let serving = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let read = socket.read(&mut head).await.unwrap();
                let is_get = head[..read].starts_with(b"GET ");
                let sent = pieces.replace('|', "").len();
                let head = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", if is_get { sent } else { size });
                socket.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes()).await.unwrap();
                for piece in pieces.split('|').filter(|_| is_get) {
                    // Who has seen enough is gone.
                    socket.write_all(piece.as_bytes()).await.ok();
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        });
        (Store::new(Operator::new(s3).unwrap(), Faults::default()), AbortOnDropHandle::new(serving))
    }

    #[tokio::test]
    async fn what_was_not_asked_for_is_not_taken_for_what_was() {
        for (pieces, size, expected) in [
            ("01|23", 10, Some(Some("0123"))),
            ("01|2345", 10, None),
            ("01|23|45", 10, None),
            ("01", 10, None),
            ("01", 2, Some(None)),
        ] {
            let (store, _serving) = answering(pieces, size).await;
            match (store.read_all("object", 0..4).await, expected) {
                (Ok(read), Some(expected)) => assert_eq!(read.as_deref(), expected.map(str::as_bytes), "{pieces}"),
                (Err(Error::Unavailable { what: "store", .. }), None) => {}
                (read, _) => panic!("{pieces} of {size}: {read:?}"),
            }
        }
    }
}
