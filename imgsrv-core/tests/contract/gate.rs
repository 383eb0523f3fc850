//! A gate before the deletes of a store: shut, they wait; and some keys it never lets through. It can also lose what a
//! store says when an object is closed, let nobody through who wants to read, and hold up readers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use imgsrv_core::opendal::raw::oio::{self, Delete, Read, Write};
use imgsrv_core::opendal::raw::{
    Layer, OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite, RpCreateDir, RpPresign,
    RpRead, RpRename, RpStat, Service, ServiceInfo, Servicer,
};
use imgsrv_core::opendal::{Buffer, BytesRange, Capability, Error, ErrorKind, Metadata, OperationContext, Result};
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<State>);

#[derive(Debug)]
struct State {
    shut: watch::Sender<bool>,
    waiting: AtomicUsize,
    refused: Mutex<Option<String>>,
    loses_answers: AtomicBool,
    away: AtomicBool,
    turned_away: AtomicUsize,
    readers: watch::Sender<Readers>,
}

/// What becomes of those who read an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Readers {
    #[default]
    Pass,
    Wait,
    Fail,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let shut = watch::Sender::new(false);
        let (waiting, refused, loses_answers) = Default::default();
        let (away, turned_away, readers) = Default::default();
        Self(Arc::new(State { shut, waiting, refused, loses_answers, away, turned_away, readers }))
    }

    /// Lets deletes wait until the gate is opened.
    pub(crate) fn shut(&self) {
        self.0.shut.send_replace(true);
    }

    pub(crate) fn open(&self) {
        self.0.shut.send_replace(false);
    }

    /// How many deletes wait at the gate.
    pub(crate) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    /// Refuses to delete keys that contain this.
    pub(crate) fn refuse(&self, part: Option<&str>) {
        *self.0.refused.lock().expect("no panic") = part.map(str::to_owned);
    }

    /// Loses what the store says to the close of an object, which it does.
    pub(crate) fn lose_answers(&self, lose: bool) {
        self.0.loses_answers.store(lose, Ordering::SeqCst);
    }

    /// Answers no question about an object, and reads none: the store is away.
    pub(crate) fn be_away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn readers(&self, readers: Readers) {
        self.0.readers.send_replace(readers);
    }

    /// How many questions came while the store was away.
    pub(crate) fn turned_away(&self) -> usize {
        self.0.turned_away.load(Ordering::SeqCst)
    }

    fn ask(&self) -> Result<()> {
        if !self.0.away.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.0.turned_away.fetch_add(1, Ordering::SeqCst);
        Err(Error::new(ErrorKind::Unexpected, "the gate is closed").set_temporary())
    }

    async fn let_read(&self) -> Result<()> {
        let mut readers = self.0.readers.subscribe();
        match *readers.wait_for(|readers| *readers != Readers::Wait).await.expect("the gate stands") {
            Readers::Fail => Err(Error::new(ErrorKind::Unexpected, "the gate lets nobody read")),
            _ => Ok(()),
        }
    }

    async fn pass(&self, key: &str) -> Result<()> {
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        self.0.shut.subscribe().wait_for(|shut| !shut).await.expect("the gate stands");
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        match &*self.0.refused.lock().expect("no panic") {
            Some(part) if key.contains(part) => Err(Error::new(ErrorKind::PermissionDenied, "refused by the gate")),
            _ => Ok(()),
        }
    }
}

impl Layer for Gate {
    fn apply_service(&self, inner: Servicer) -> Servicer {
        Arc::new(Guarded { inner, gate: self.clone() })
    }
}

#[derive(Debug)]
struct Guarded {
    inner: Servicer,
    gate: Gate,
}

struct Deleter {
    inner: oio::Deleter,
    gate: Gate,
}

impl Delete for Deleter {
    async fn delete(&mut self, path: &str, args: OpDelete) -> Result<()> {
        self.gate.pass(path).await?;
        self.inner.delete(path, args).await
    }

    async fn close(&mut self) -> Result<()> {
        self.inner.close().await
    }
}

struct Reader {
    inner: oio::Reader,
    gate: Gate,
}

impl Read for Reader {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        self.gate.let_read().await?;
        self.inner.open(range).await
    }

    async fn read(&self, range: BytesRange) -> Result<(RpRead, Buffer)> {
        self.gate.let_read().await?;
        self.inner.read(range).await
    }
}

struct Writer {
    inner: oio::Writer,
    gate: Gate,
}

impl Write for Writer {
    async fn write(&mut self, bytes: Buffer) -> Result<()> {
        self.inner.write(bytes).await
    }

    async fn close(&mut self) -> Result<Metadata> {
        let closed = self.inner.close().await?;
        if self.gate.0.loses_answers.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unexpected, "lost by the gate").set_temporary());
        }
        Ok(closed)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// Everything but `delete`, `write`, `stat` and `read` is handed on.
impl Service for Guarded {
    type Reader = Reader;
    type Writer = Writer;
    type Lister = oio::Lister;
    type Deleter = Deleter;
    type Copier = oio::Copier;
    type Composer = oio::Composer;

    fn delete(&self, cx: &OperationContext) -> Result<Deleter> {
        Ok(Deleter { inner: self.inner.delete(cx)?, gate: self.gate.clone() })
    }

    fn info(&self) -> ServiceInfo {
        self.inner.info()
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    async fn create_dir(&self, cx: &OperationContext, path: &str, args: OpCreateDir) -> Result<RpCreateDir> {
        self.inner.create_dir(cx, path, args).await
    }

    async fn stat(&self, cx: &OperationContext, path: &str, args: OpStat) -> Result<RpStat> {
        self.gate.ask()?;
        self.inner.stat(cx, path, args).await
    }

    fn read(&self, cx: &OperationContext, path: &str, args: OpRead) -> Result<Reader> {
        self.gate.ask()?;
        Ok(Reader { inner: self.inner.read(cx, path, args)?, gate: self.gate.clone() })
    }

    fn write(&self, cx: &OperationContext, path: &str, args: OpWrite) -> Result<Writer> {
        Ok(Writer { inner: self.inner.write(cx, path, args)?, gate: self.gate.clone() })
    }

    fn list(&self, cx: &OperationContext, path: &str, args: OpList) -> Result<oio::Lister> {
        self.inner.list(cx, path, args)
    }

    fn copy(&self, cx: &OperationContext, from: &str, to: &str, args: OpCopy) -> Result<oio::Copier> {
        self.inner.copy(cx, from, to, args)
    }

    async fn rename(&self, cx: &OperationContext, from: &str, to: &str, args: OpRename) -> Result<RpRename> {
        self.inner.rename(cx, from, to, args).await
    }

    async fn presign(&self, cx: &OperationContext, path: &str, args: OpPresign) -> Result<RpPresign> {
        self.inner.presign(cx, path, args).await
    }
}
