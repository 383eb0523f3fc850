//! An object on its way into the store.

use std::time::Duration;

use bytes::Bytes;
use opendal::{Buffer, ErrorKind};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Store, close_apart, store_error};
use crate::faults::Faults;
use crate::{Error, Result};

/// What a store may take to say whether it has an object that it did not say it had. One that is away takes longer.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// After how many bytes the disk is given what it has not got yet, so that the end of a large object does not have to wait
/// for all of it.
const SYNC_EARLY: u64 = 32 << 20;

/// An object that is being written. What is dropped before it is finished is given up.
///
/// opendal loses a writer when a call of it is dropped that it would repeat, and with the writer the only way to take
/// back what it has sent. So each call runs to its end in a task of its own, whoever still waits for it.
pub(crate) struct ObjectWriter<'a> {
    store: &'a Store,
    key: String,
    size: u64,
    synced: u64,
    inner: Option<Unfinished>,
    /// A write for which nobody waited to its end.
    left: Option<JoinHandle<(Unfinished, Result<()>)>>,
}

impl<'a> ObjectWriter<'a> {
    pub(super) fn new(store: &'a Store, writer: opendal::Writer, key: &str) -> Self {
        let inner = Unfinished { writer: Some(writer), key: key.to_owned(), faults: store.faults.clone() };
        Self { store, key: key.to_owned(), size: 0, synced: 0, inner: Some(inner), left: None }
    }

    /// Writes what follows.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        let mut inner = self.settled().await?;
        let writing = tokio::spawn(async move {
            let written = inner.write(Buffer::from(bytes)).await;
            (inner, written)
        });
        let ended = self.left.insert(writing).await;
        self.left = None;
        let (inner, written) = ended.map_err(panicked)?;
        self.inner = Some(inner);
        self.sync_early();
        written
    }

    fn sync_early(&mut self) {
        let Some(folders) = &self.store.folders else { return };
        if self.size - self.synced >= SYNC_EARLY && folders.sync_early(&self.key) {
            self.synced = self.size;
        }
    }

    /// Closes the object, confirms its size and makes it durable.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let mut inner = self.settled().await?;
        let in_doubt = if self.store.folders.is_some() {
            let _permit = self.store.closing.acquire().await.expect("the semaphore is never closed");
            // A file of which the disk has not said that it has it is none, whatever its size.
            let passing = self.store.faults.pass("store.close").await?;
            passing.done(close_apart(inner.finished()).await?.map_err(store_error)?)?;
            None
        } else {
            let closing = tokio::spawn(async move {
                match inner.close().await {
                    Ok(()) => {
                        inner.finished();
                        None
                    }
                    Err(err) => Some((inner, err)),
                }
            });
            closing.await.map_err(panicked)?
        };
        if let Some((inner, err)) = in_doubt {
            // The answer may have been lost, and not the object, which is there as a whole or not at all.
            if !matches!(timeout(LOOK_AGAIN, self.confirm_size()).await, Ok(Ok(()))) {
                inner.abort().await;
                return Err(err);
            }
            inner.finished();
        } else {
            self.confirm_size().await?;
        }
        match &self.store.folders {
            Some(folders) => {
                let passing = self.store.faults.pass("store.sync").await?;
                passing.done(folders.sync_above(&self.key).await?)
            }
            None => Ok(()),
        }
    }

    async fn confirm_size(&self) -> Result<()> {
        match self.store.size(&self.key).await? {
            Some(size) if size == self.size => Ok(()),
            size => {
                let source = format!("{} bytes were written, the store has {size:?}", self.size).into();
                Err(Error::Unavailable { what: "store", source })
            }
        }
    }

    /// Gives the object up; what can be taken back is. The caller deletes the rest.
    pub(crate) async fn discard(mut self) {
        if let Ok(inner) = self.settled().await {
            inner.abort().await;
        }
    }

    async fn settled(&mut self) -> Result<Unfinished> {
        if let Some(left) = self.left.take() {
            return Ok(left.await.map_err(panicked)?.0);
        }
        self.inner.take().ok_or_else(|| Error::bug("an object is written to after a failure"))
    }
}

fn panicked(err: tokio::task::JoinError) -> Error {
    Error::internal("writing an object", err)
}

/// A writer of opendal's that takes back what it has sent, unless it has finished.
struct Unfinished {
    /// None at the end of its life.
    writer: Option<opendal::Writer>,
    key: String,
    faults: Faults,
}

impl Unfinished {
    fn get(&mut self) -> &mut opendal::Writer {
        self.writer.as_mut().expect("only what ends its life takes it")
    }

    async fn write(&mut self, bytes: Buffer) -> Result<()> {
        let passing = self.faults.pass("store.write").await?;
        self.get().write(bytes).await.map_err(store_error)?;
        passing.done(())
    }

    async fn close(&mut self) -> Result<()> {
        let passing = self.faults.pass("store.close").await?;
        self.get().close().await.map_err(store_error)?;
        passing.done(())
    }

    fn finished(mut self) -> opendal::Writer {
        self.writer.take().expect("only what ends its life takes it")
    }

    async fn abort(mut self) {
        if let Some(writer) = self.writer.take() {
            abort(writer, &self.key, &self.faults).await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Without a runtime the process is about to end.
        if let (Some(writer), Ok(runtime)) = (self.writer.take(), Handle::try_current()) {
            let (key, faults) = (std::mem::take(&mut self.key), self.faults.clone());
            runtime.spawn(async move { abort(writer, &key, &faults).await });
        }
    }
}

async fn abort(writer: opendal::Writer, key: &str, faults: &Faults) {
    if let Err(err) = take_back(writer, faults).await {
        tracing::warn!(error = err.chain(), key, "an unfinished object could not be taken back");
    }
}

async fn take_back(mut writer: opendal::Writer, faults: &Faults) -> Result<()> {
    let passing = faults.pass("store.abort").await?;
    match writer.abort().await {
        Err(err) if err.kind() != ErrorKind::Unsupported => Err(store_error(err)),
        _ => passing.done(()),
    }
}
