//! The engine: one cheap handle on everything.

use std::collections::HashSet;
use std::fmt::Display;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use imgsrv_migration::{Migrator, MigratorTrait};
use opendal::Operator;
use sea_orm::DatabaseConnection;
use tokio::sync::Notify;
use tracing::Instrument;
use uuid::Uuid;

use crate::checksums::Checksums;
use crate::circuit::Circuit;
use crate::db::{Db, Tx, parts};
use crate::faults::Faults;
use crate::hashing::HashPool;
use crate::heartbeat::Heartbeat;
use crate::memory::Memory;
use crate::model::{Actor, Blob, Digest, Event, Image, ImageName, Reference, Subject, Version, VersionName};
use crate::projection::{Projection, Projections};
use crate::publish::{self, PublishStep};
use crate::published::Published;
use crate::remembered::Remembered;
use crate::segments::Segments;
use crate::store::{Key, Store};
use crate::together::Together;
use crate::{Clock, Error, Result};

/// Stores, catalogues, publishes and reads images.
///
/// Clones are cheap and share everything but the [`Actor`] that their events name. Methods that change something run to
/// their end even if the caller stops waiting for them.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    actor: Actor,
}

struct Inner {
    db: Db,
    store: Arc<Store>,
    clock: Clock,
    settings: Settings,
    steps: Vec<Arc<dyn PublishStep>>,
    projections: Projections,
    memory: Memory,
    hashing: HashPool,
    work: Notify,
    circuit: Circuit,
    heartbeat: Heartbeat,
    /// Blobs that are being verified because a reader came upon wrong bytes.
    doubted: Mutex<HashSet<Digest>>,
    published: Remembered<(ImageName, VersionName), Arc<Published>>,
    /// An object is written once, so they are never out of date, unless they were wrong and are made anew: who finds bytes
    /// that differ from them asks the database again.
    checksums: Remembered<String, Checksums>,
    segments: Remembered<Digest, Segments>,
    images: Together<ImageName, Image>,
    references: Together<(ImageName, Reference), Option<Version>>,
    blobs: Together<Digest, Option<(Blob, Option<String>)>>,
    whole_blobs: Together<Digest, (Blob, Segments)>,
    /// What the store is called in the database; none where it was not looked at.
    store_name: Option<Uuid>,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an upload session lives after its last part.
    pub upload_ttl: TimeDelta,
    /// How long a blob is kept that nothing cites, after it was last used.
    pub blob_retention: TimeDelta,
    /// How many bytes a second this node reads again of what it has, to find what a disk has spoilt before a reader does;
    /// none unless it is set.
    pub scrub_rate: Option<NonZeroU64>,
    /// The memory that the bytes of all transfers together may take: bytes.
    pub transfer_memory: u64,
    /// Parts are refused while the file system of a `fs` store has less left: bytes. The database must still commit.
    pub min_free: u64,
    /// How long the database may take for one statement and the connection for it, before it counts as away; without a
    /// limit where it is a file. Over a network, more than the database itself allows a statement.
    pub statement_limit: Option<Duration>,
    /// How many jobs run at once on this node.
    pub workers: usize,
    /// How long a worker holds a job without a sign of life, which it gives three times in that span. After a crash
    /// another worker waits no longer than this.
    pub lease: TimeDelta,
    /// How often an idle node looks for work that another one queued.
    pub poll_interval: Duration,
    /// How long a job waits after its first failure; the wait doubles with each further one.
    pub retry_delay: TimeDelta,
    /// The longest wait between two tries of a job.
    pub retry_delay_max: TimeDelta,
    /// How long running jobs may go on when the node is told to stop; then they are given back.
    pub stop_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upload_ttl: TimeDelta::hours(24),
            blob_retention: TimeDelta::days(7),
            scrub_rate: None,
            transfer_memory: 256 << 20,
            min_free: 512 << 20,
            statement_limit: None,
            workers: 2,
            lease: TimeDelta::seconds(30),
            poll_interval: Duration::from_secs(1),
            retry_delay: TimeDelta::seconds(5),
            retry_delay_max: TimeDelta::minutes(1),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// Puts an engine together; [`Engine::builder`] begins.
#[must_use]
pub struct Builder {
    writer: DatabaseConnection,
    reader: Option<DatabaseConnection>,
    store: Operator,
    clock: Clock,
    settings: Settings,
    steps: Vec<Arc<dyn PublishStep>>,
    projections: Vec<Arc<dyn Projection>>,
    checks_store: bool,
    faults: Faults,
}

impl Builder {
    /// Reads through another handle than it writes through, which must see every commit at once: no replica.
    ///
    /// SQLite has one writer: give [`Engine::builder`] a handle with one connection, and this a handle with several
    /// that only read.
    pub fn reader(mut self, reader: DatabaseConnection) -> Self {
        self.reader = Some(reader);
        self
    }

    /// Settings other than the default ones.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// A clock other than the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Adds a step to every publish job, after `incus_index` and the steps added before.
    pub fn publish_step(mut self, step: impl PublishStep) -> Self {
        self.steps.push(Arc::new(step));
        self
    }

    /// Shows the published catalogue in a further format.
    pub fn projection(mut self, projection: impl Projection) -> Self {
        self.projections.push(Arc::new(projection));
        self
    }

    /// Does not touch the store before it is used. For tools that need the database only, and must work when the store
    /// does not.
    pub fn without_store_checks(mut self) -> Self {
        self.checks_store = false;
        self
    }

    /// Lets something go wrong, instead of what the environment says ([`FaultPlan::from_env`]).
    ///
    /// [`FaultPlan::from_env`]: crate::testing::FaultPlan::from_env
    #[cfg(feature = "testing")]
    pub fn faults(mut self, plan: crate::testing::FaultPlan) -> Self {
        self.faults = Faults::of(plan);
        self
    }

    /// Checks that everything is as the engine needs it, and hands it out.
    ///
    /// # Errors
    /// When the database does not answer or has not exactly the migrations of this version, when its clock is more than
    /// five seconds off, when the store cannot be written, read and listed or holds objects of another database, or when
    /// the names of steps or of projections clash.
    pub async fn build(self) -> Result<Engine> {
        let reader = self.reader.unwrap_or_else(|| self.writer.clone());
        let db = Db::new(self.writer, reader, self.settings.statement_limit, self.faults.clone());
        let store = Arc::new(Store::new(self.store, self.faults));
        let steps = publish::with_built_in(self.steps)?;
        let projections = Projections::new(self.projections)?;
        check_migrations(&db.migrations().await?)?;
        if self.clock.is_system() {
            check_clock(&db, &self.clock).await?;
        }
        let store_name = if self.checks_store {
            store.probe(self.clock.new_id()).await?;
            Some(check_pair(&db, &store, &self.clock).await?)
        } else {
            None
        };
        let batches = store.batches();
        let memory = Memory::new(self.settings.transfer_memory, batches.alive() * batches.least);
        let inner = Inner {
            db,
            store,
            clock: self.clock,
            settings: self.settings,
            steps,
            projections,
            memory,
            hashing: HashPool::new(),
            work: Notify::new(),
            circuit: Circuit::default(),
            heartbeat: Heartbeat::default(),
            doubted: Mutex::default(),
            published: Remembered::default(),
            checksums: Remembered::default(),
            segments: Remembered::default(),
            images: Together::default(),
            references: Together::default(),
            blobs: Together::default(),
            whole_blobs: Together::default(),
            store_name,
        };
        let engine = Engine { inner: Arc::new(inner), actor: Actor::system() };
        engine.schedule_listing().await?;
        Ok(engine)
    }
}

fn check_migrations(found: &[String]) -> Result<()> {
    let known: Vec<String> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    match (known.iter().find(|name| !found.contains(name)), found.iter().find(|name| !known.contains(name))) {
        (None, None) => Ok(()),
        (Some(missing), _) => {
            Err(Error::Invalid { what: "database", reason: format!("lacks migration {missing}: run the migrations") })
        }
        (_, Some(unknown)) => Err(Error::Invalid {
            what: "database",
            reason: format!("has migration {unknown}, which a newer version made: run that version"),
        }),
    }
}

async fn check_clock(db: &Db, clock: &Clock) -> Result<()> {
    let Some(theirs) = db.now().await? else { return Ok(()) };
    let off = clock.now() - theirs;
    if off.abs() <= TimeDelta::seconds(5) {
        return Ok(());
    }
    Err(Error::Invalid {
        what: "clock",
        reason: format!("is {} ms off the database's: leases need clocks that agree", off.num_milliseconds()),
    })
}

/// What no row knows is deleted one day, so a database must never meet the objects of another one.
async fn check_pair(db: &Db, store: &Store, clock: &Clock) -> Result<Uuid> {
    let (named, new) = (db.clone(), clock.new_secret_id());
    let name = detached(async move { named.tx("name_store", async |tx| Db::name_store(tx, new).await).await }).await?;
    for _ in 0..NAMING {
        match store.name().await? {
            Some(found) if found == name => return Ok(name),
            None if !store.has_parts().await? => {
                // Nodes that start at once may write it at once, and a file is empty before it is full.
                if let Err(err) = store.put_name(name).await {
                    tracing::debug!(error = err.chain(), "another node names the store as well");
                    tokio::time::sleep(NAMING_PAUSE).await;
                }
            }
            _ => {
                let reason = format!(
                    "belongs to another database: use the two that go together, or an empty store (if these do go \
                     together, as after a restore, write {name} into the object {})",
                    Key::Name
                );
                return Err(Error::Invalid { what: "store", reason });
            }
        }
    }
    Err(Error::Unavailable { what: "store", source: "it cannot be given its name".into() })
}

/// How often a start tries to name a new store, and what it waits when another node is at it.
const NAMING: usize = 50;
const NAMING_PAUSE: Duration = Duration::from_millis(20);

impl Engine {
    /// Begins an engine on a database, whose migrations must have run, and a store.
    pub fn builder(database: DatabaseConnection, store: Operator) -> Builder {
        Builder {
            writer: database,
            reader: None,
            store,
            clock: Clock::system(),
            settings: Settings::default(),
            steps: Vec::new(),
            projections: Vec::new(),
            checks_store: true,
            faults: Faults::from_env(),
        }
    }

    /// The same engine; every event that it causes names `actor`.
    #[must_use]
    pub fn acting_as(&self, actor: Actor) -> Self {
        Self { inner: Arc::clone(&self.inner), actor }
    }

    /// Who the events of this handle name.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The clock: the only source of time and ids, for embedders too.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The database, for tables of an embedder's own.
    pub fn db(&self) -> &Db {
        &self.inner.db
    }

    /// The settings that it was built with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Answers when the database does.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check_database(&self) -> Result<()> {
        self.db().ping().await
    }

    /// Answers when the database still has exactly the migrations of this version: somebody may have run others since
    /// the engine was built.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it has others; what the database says.
    pub async fn check_schema(&self) -> Result<()> {
        check_migrations(&self.db().applied_migrations(self.db().reader()).await?)
    }

    /// Answers when the loop of [`Engine::run`] goes round, however busy its workers are; and where nobody has begun it,
    /// or it was told to stop.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it has not looked for a job for a minute, or has ended by itself.
    pub fn check_worker(&self) -> Result<()> {
        self.heartbeat().check()
    }

    /// Answers when the store does, and is still the one that this database goes with. That it can be written is checked
    /// when the engine is built.
    ///
    /// # Errors
    /// When it does not, or is another one: a volume that is not mounted.
    pub async fn check_store(&self) -> Result<()> {
        match (self.store().name().await?, self.inner.store_name) {
            (Some(found), Some(name)) if found == name => Ok(()),
            _ => Err(Error::Unavailable {
                what: "store",
                source: "it is not the one that was checked at the start".into(),
            }),
        }
    }

    /// The newest events about one thing, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn events(&self, subject: Subject, subject_id: &str, limit: u64) -> Result<Vec<Event>> {
        crate::db::events::about(self.db().reader(), subject, subject_id, limit).await
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    pub(crate) fn hashing(&self) -> &HashPool {
        &self.inner.hashing
    }

    pub(crate) fn doubted(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.inner.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The checksums of an object; nothing when there is none.
    pub(crate) async fn checksums(&self, key: &str) -> Result<Option<Checksums>> {
        if let Some(known) = self.inner.checksums.get(key) {
            return Ok(Some(known));
        }
        let found = parts::checksums(self.db().reader(), key).await?.map(Checksums::saved);
        if let Some(checksums) = &found {
            self.inner.checksums.put(key.to_owned(), checksums.clone());
        }
        Ok(found)
    }

    /// The checksums of an object as the database has them now, whatever is remembered.
    pub(crate) async fn checksums_again(&self, key: &str) -> Result<Option<Checksums>> {
        self.inner.checksums.forget(key);
        self.checksums(key).await
    }

    pub(crate) fn published(&self) -> &Remembered<(ImageName, VersionName), Arc<Published>> {
        &self.inner.published
    }

    pub(crate) fn segments(&self) -> &Remembered<Digest, Segments> {
        &self.inner.segments
    }

    /// Reads of images by name, whoever may see them.
    pub(crate) fn images(&self) -> &Together<ImageName, Image> {
        &self.inner.images
    }

    /// Reads of what references mean.
    pub(crate) fn references(&self) -> &Together<(ImageName, Reference), Option<Version>> {
        &self.inner.references
    }

    /// Reads of blobs, each with the key of its first object.
    pub(crate) fn blobs(&self) -> &Together<Digest, Option<(Blob, Option<String>)>> {
        &self.inner.blobs
    }

    /// Reads of blobs, each with its segments.
    pub(crate) fn whole_blobs(&self) -> &Together<Digest, (Blob, Segments)> {
        &self.inner.whole_blobs
    }

    pub(crate) fn steps(&self) -> &[Arc<dyn PublishStep>] {
        &self.inner.steps
    }

    pub(crate) fn projections(&self) -> &Projections {
        &self.inner.projections
    }

    /// Wakes a worker, after the commit that queued a job.
    pub(crate) fn wake(&self) {
        self.inner.work.notify_one();
    }

    pub(crate) fn work(&self) -> &Notify {
        &self.inner.work
    }

    pub(crate) fn circuit(&self) -> &Circuit {
        &self.inner.circuit
    }

    pub(crate) fn heartbeat(&self) -> &Heartbeat {
        &self.inner.heartbeat
    }

    /// Records what this handle's actor did, in the transaction that did it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record(&self, tx: &Tx, change: Change) -> Result<()> {
        let event = Event {
            id: self.clock().new_id().into(),
            at: self.clock().now(),
            actor: self.actor.clone(),
            subject: change.subject,
            subject_id: change.id,
            subject_name: change.name,
            what: change.what.to_owned(),
            from: change.from,
            to: change.to,
        };
        crate::db::events::insert(tx, event).await
    }

    /// Runs `work` on a clone of this handle, to its end.
    pub(crate) async fn detached<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        detached(work(self.clone())).await
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("actor", &self.actor).finish_non_exhaustive()
    }
}

/// One change, for the event that tells of it.
#[derive(Clone, Debug)]
pub struct Change {
    subject: Subject,
    id: String,
    name: Option<String>,
    what: &'static str,
    from: Option<String>,
    to: Option<String>,
}

impl Change {
    /// `what` happened, a verb in the past.
    #[must_use]
    pub fn new(subject: Subject, id: impl Display, what: &'static str) -> Self {
        Self { subject, id: id.to_string(), name: None, what, from: None, to: None }
    }

    /// What the thing is called.
    #[must_use]
    pub fn named(self, name: impl Display) -> Self {
        Self { name: Some(name.to_string()), ..self }
    }

    /// What the thing is called in its image.
    #[must_use]
    pub fn named_in(self, image: &ImageName, name: impl Display) -> Self {
        Self { name: Some(format!("{image}/{name}")), ..self }
    }

    /// The state or value before.
    #[must_use]
    pub fn from(self, from: impl Display) -> Self {
        Self { from: Some(from.to_string()), ..self }
    }

    /// The state or value after.
    #[must_use]
    pub fn to(self, to: impl Display) -> Self {
        Self { to: Some(to.to_string()), ..self }
    }
}

/// Runs `work` to its end even if the caller is dropped at an `.await`, as a handler is when its client goes away.
///
/// Every transaction runs inside one: a connection that is dropped between `BEGIN` and its answer is not safe to reuse
/// (transact-rs/sqlx#4385), and what follows a commit must not be lost.
///
/// # Errors
/// What `work` answers; [`Error::Internal`] when it panics.
pub async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work.in_current_span()).await.map_err(|err| Error::internal("a detached task", err))?
}
