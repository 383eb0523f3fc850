//! An engine on one pair, what a behaviour needs to use it, and what must hold when the behaviour is done.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use imgsrv_core::model::{
    ArtifactId, BlobRef, BlobState, Digest, Event, ImageName, NewArtifact, NewAttachment, NewImage, NewUpload, Part,
    PartNumber, PartRef, PublishJob, Scope, Subject, Upload, UploadId, Variant, VersionName, VersionState,
};
use imgsrv_core::opendal::Operator;
use imgsrv_core::projection::SimpleStreams;
use imgsrv_core::publish::PublishStep;
use imgsrv_core::sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, Statement, TransactionTrait};
use imgsrv_core::testing::manual_clock;
use imgsrv_core::{Builder, Clock, Condition, Engine, Error, PartClaim, Result, Settings};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backend::{self, Held, Pair, Servers};
use crate::gate::Gate;
use crate::s3;

pub(crate) struct Fixture {
    pub engine: Engine,
    /// Another node on the same database and store.
    pub other: Engine,
    pub clock: Clock,
    pub store: Operator,
    /// What stands before the engines' deletes.
    pub gate: Gate,
    pub database: DatabaseConnection,
    reader: DatabaseConnection,
    pub pair: Pair,
    servers: Servers,
    _held: Held,
    folder: TempDir,
}

/// What is checked at once: bytes.
pub(crate) const BLOCK: usize = 64 << 10;

/// A part under the least size would be refused in the middle; this one is just large enough.
pub(crate) const PART: usize = imgsrv_core::PART_SIZE_MIN as usize;

impl Fixture {
    pub(crate) async fn new(pair: Pair, servers: &Servers) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [database, reader] = pair.database(servers, &folder).await;
        let (store, held) = pair.store(servers, &folder).await;
        let gate = Gate::new();
        let clock = manual_clock();
        let build = || builder(&database, &reader, &store, &gate, &clock).build();
        let (engine, other) = (build().await.expect("an engine"), build().await.expect("another engine"));
        let servers = servers.clone();
        Self { engine, other, clock, store, gate, database, reader, pair, servers, _held: held, folder }
    }

    /// A further node, with a publish step of its own.
    pub(crate) async fn node(&self, step: impl PublishStep) -> Engine {
        self.builder().publish_step(step).build().await.expect("a node")
    }

    /// What makes a further node.
    pub(crate) fn builder(&self) -> Builder {
        builder(&self.database, &self.reader, &self.store, &self.gate, &self.clock)
    }

    /// A further node as another process would be, with connections of its own; made on the runtime that polls it.
    pub(crate) async fn process(&self) -> impl Future<Output = Engine> + Send + 'static {
        let urls = self.pair.urls(&self.servers, &self.folder, &self.database).await;
        let (store, gate, clock) = (self.store.clone(), self.gate.clone(), self.clock.clone());
        async move {
            let [database, reader] = backend::open(&urls).await;
            builder(&database, &reader, &store, &gate, &clock).build().await.expect("a node")
        }
    }

    /// Waits until the database has done what it was told before, by those too who are gone.
    pub(crate) async fn settled(&self) {
        match self.pair {
            Pair::SqliteMemory => {}
            Pair::SqliteFs | Pair::SqliteGarage => drop(self.sql("begin immediate; rollback").await.expect("the lock")),
            Pair::PostgresFs | Pair::PostgresS3 | Pair::PostgresGarage => {
                let busy = "select count(*) from pg_stat_activity where datname = current_database() \
                            and pid <> pg_backend_pid() and backend_type = 'client backend' and state <> 'idle'";
                let wait = self.wait_until(async || self.count(busy).await == 0);
                timeout(Duration::from_secs(20), wait).await.expect("nobody is at it");
            }
        }
    }

    /// Nothing may be left over: no due job, no object without a row, no row without its object, no object unfinished.
    pub(crate) async fn finish(self) {
        self.nothing_left().await;
        // What was dropped is given up behind the back of whoever dropped it.
        let wait = self.wait_until(async || self.unfinished() == 0);
        timeout(Duration::from_secs(20), wait).await.expect("no object is left unfinished");
    }

    /// No due job is left, no object without a row, no row without its object.
    pub(crate) async fn nothing_left(&self) {
        let due = self.engine.run_until_idle().await.expect("jobs");
        assert_eq!(due.jobs, 0, "jobs were left behind");
        self.deleted().await;
        let objects = self.objects().await;
        let rows: BTreeSet<String> =
            self.texts("select key from part_attempts where state <> 'writing'").await.into_iter().collect();
        let segments: BTreeSet<String> = self.texts("select key from blob_segments").await.into_iter().collect();
        let writing: BTreeSet<String> =
            self.texts("select key from part_attempts where state = 'writing'").await.into_iter().collect();
        assert_eq!(objects.difference(&rows).filter(|key| !writing.contains(*key)).collect::<Vec<_>>(), [""; 0]);
        assert_eq!(rows.difference(&objects).collect::<Vec<_>>(), [""; 0], "rows without objects");
        assert_eq!(segments.difference(&objects).collect::<Vec<_>>(), [""; 0], "segments without objects");
    }

    /// How many objects were begun and neither finished nor given up, where the store can tell.
    pub(crate) fn unfinished(&self) -> u64 {
        match self.pair {
            Pair::PostgresS3 => s3::unfinished(&self.folder.path().join("objects")),
            pair if pair.speaks_s3() => self.servers.unfinished(&self.store.info().name()),
            _ => 0,
        }
    }

    /// Lets every grace period pass and tidies up.
    pub(crate) async fn tidy(&self) {
        self.clock.advance(TimeDelta::hours(25));
        self.engine.sweep().await.expect("a sweep");
        self.engine.run_until_idle().await.expect("the daily listing");
    }

    /// Waits for what is deleted after an answer was given.
    pub(crate) async fn deleted(&self) {
        let now = self.clock.now().to_rfc3339_opts(SecondsFormat::AutoSi, false);
        let left = format!("select count(*) from part_attempts where deletable_at <= '{now}'");
        let wait = self.wait_until(async || self.count(&left).await == 0);
        timeout(Duration::from_secs(20), wait).await.expect("lost objects are deleted");
    }

    /// The keys of the store's objects.
    pub(crate) async fn objects(&self) -> BTreeSet<String> {
        let listed = self.store.list_with("blobs/").recursive(true).await.unwrap_or_default();
        listed.iter().map(|entry| entry.path().to_owned()).filter(|path| !path.ends_with('/')).collect()
    }

    /// Waits for something that another task does.
    pub(crate) async fn wait_until(&self, mut done: impl AsyncFnMut() -> bool) {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// One column of texts.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let statement = Statement::from_string(self.database.get_database_backend(), sql);
        let rows = self.database.query_all_raw(statement).await.expect(sql);
        rows.iter().map(|row| row.try_get_by_index(0).expect("a text")).collect()
    }

    /// One number.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let statement = Statement::from_string(self.database.get_database_backend(), sql);
        let row = self.database.query_one_raw(statement).await.expect(sql).expect("a row");
        row.try_get_by_index(0).expect("a number")
    }

    /// Begins a transaction as another program would.
    #[expect(clippy::disallowed_methods, reason = "no transaction of ours")]
    pub(crate) async fn transaction(&self) -> DatabaseTransaction {
        self.database.begin().await.expect("a transaction")
    }

    /// Runs a statement as another program would.
    pub(crate) async fn sql(&self, sql: &str) -> Result<u64, imgsrv_core::sea_orm::DbErr> {
        Ok(self.database.execute_unprepared(sql).await?.rows_affected())
    }

    /// Takes away what keeps published rows as they are, as a broken disk or a careless hand does.
    pub(crate) async fn unprotect(&self) {
        for table in ["versions", "artifacts", "attachments"] {
            if self.pair.is_postgres() {
                self.sql(&format!("alter table {table} disable trigger user")).await.expect("no triggers");
            } else {
                let names = format!("select name from sqlite_master where type = 'trigger' and tbl_name = '{table}'");
                for name in self.texts(&names).await {
                    self.sql(&format!("drop trigger {name}")).await.expect("a trigger less");
                }
            }
        }
    }

    /// A comparison of a column with an id, in the database's words.
    pub(crate) fn same(&self, column: &str, id: uuid::Uuid) -> String {
        if self.pair.is_postgres() { format!("{column} = '{id}'") } else { format!("{column} = x'{}'", id.simple()) }
    }

    pub(crate) async fn begin(&self, bytes: &[u8]) -> Upload {
        self.engine.begin_upload(promise(bytes)).await.expect("a session")
    }

    pub(crate) async fn part(&self, upload: UploadId, at: i64, bytes: &[u8]) -> Result<Part> {
        self.engine.put_part(upload, number(at), PartClaim::default(), body(bytes)).await
    }

    /// Begins a part whose body has stopped before its last byte.
    pub(crate) async fn begin_part(&self, id: UploadId, at: i64, bytes: &[u8]) -> PartInProgress {
        let (say, has_stalled) = oneshot::channel();
        let (go_on, told) = oneshot::channel::<()>();
        let (head, tail) = bytes.split_at(bytes.len() - 1);
        let tail = bytes::Bytes::copy_from_slice(tail);
        let rest = stream::once(async move {
            say.send(()).ok();
            told.await.ok();
            Ok(tail)
        });
        let (engine, body) = (self.engine.clone(), body(head).chain(rest));
        let part = tokio::spawn(async move { engine.put_part(id, number(at), PartClaim::default(), body).await });
        has_stalled.await.expect("the body is read");
        PartInProgress { part, go_on }
    }

    /// Uploads bytes in one part.
    pub(crate) async fn upload(&self, bytes: &[u8]) -> Digest {
        let upload = self.begin(bytes).await;
        if upload.state.word() == "created" {
            let part = self.part(upload.id, 1, bytes).await.expect("a part");
            let upload = self.engine.complete_upload(upload.id, vec![listed(&part)]).await.expect("complete");
            assert_eq!(upload.state.word(), "ready");
        }
        upload.expected_digest
    }

    pub(crate) async fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        read(&self.engine, digest, None).await
    }

    /// Uploads bytes that then lie in objects of these sizes, as parts too small to be sent would; their keys.
    pub(crate) async fn upload_in(&self, whole: &[u8], sizes: &[usize]) -> (Digest, Vec<String>) {
        assert_eq!(sizes.iter().sum::<usize>(), whole.len());
        let digest = self.upload(whole).await;
        let objects = self.engine.blob_objects(&digest).await.expect("objects");
        let [object] = objects.as_slice() else { panic!("one object is cut up, not {objects:?}") };
        self.sql(&format!("delete from blob_segments where digest = '{digest}'")).await.expect("no segments");
        let (mut keys, mut start) = (Vec::new(), 0);
        for (number, size) in (101..).zip(sizes) {
            let key = object.key.replace(".00001.", &format!(".{number:05}."));
            let object_bytes = &whole[start..start + size];
            self.store.write(&key, object_bytes.to_vec()).await.expect("an object");
            let checksums = self.checksums(object_bytes);
            let columns = "upload_id, attempt, state, deletable_at, created_at";
            let attempt = format!(
                "insert into part_attempts (key, number, checksums, {columns}) \
                 select '{key}', {number}, {checksums}, {columns} \
                 from part_attempts where key = '{}'",
                object.key
            );
            let segment = format!(
                "insert into blob_segments (digest, start, size, key) values ('{digest}', {start}, {size}, '{key}')"
            );
            assert_eq!(self.sql(&attempt).await.expect("an attempt"), 1);
            self.sql(&segment).await.expect("a segment");
            keys.push(key);
            start += size;
        }
        self.sql(&format!("delete from part_attempts where key = '{}'", object.key)).await.expect("an attempt less");
        self.store.delete(&object.key).await.expect("an object less");
        (digest, keys)
    }

    /// The checksums of an object, as SQL has them.
    fn checksums(&self, object: &[u8]) -> String {
        let ends = (1..=object.len().div_ceil(BLOCK)).map(|blocks| object.len().min(blocks * BLOCK));
        let crc = |end| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &object[..end]);
        let hex: String = ends.map(|end| format!("{:016x}", crc(end))).collect();
        if self.pair.is_postgres() { format!("'\\x{hex}'::bytea") } else { format!("x'{hex}'") }
    }

    /// A draft of a new image.
    pub(crate) async fn draft(&self) -> (ImageName, VersionName) {
        self.draft_as("debian", "1.0").await
    }

    pub(crate) async fn draft_as(&self, name: &str, number: &str) -> (ImageName, VersionName) {
        let (image, version) = (image(name), version(number));
        match self.engine.create_image(NewImage { name: image.clone(), display_name: None, description: None }).await {
            Ok(_) | Err(Error::AlreadyExists(_)) => {}
            Err(err) => panic!("{err}"),
        }
        self.engine.create_version(&image, &version).await.expect("a draft");
        (image, version)
    }

    /// Adds an artifact of these bytes, which are uploaded.
    pub(crate) async fn artifact(&self, draft: &(ImageName, VersionName), format: &str, bytes: &[u8]) -> ArtifactId {
        self.upload(bytes).await;
        self.engine.add_artifact(&draft.0, &draft.1, artifact(format, bytes)).await.expect("an artifact").id
    }

    /// Publishes a draft and runs the job.
    pub(crate) async fn publish(&self, draft: &(ImageName, VersionName)) -> PublishJob {
        let job = self.engine.publish_version(&draft.0, &draft.1).await.expect("a job");
        self.engine.run_until_idle().await.expect("jobs");
        self.engine.get_job(job.job.id).await.expect("the job")
    }

    /// A published version of one artifact.
    pub(crate) async fn published(&self, bytes: &[u8]) -> (ImageName, VersionName) {
        self.published_as("debian", "1.0", bytes).await
    }

    pub(crate) async fn published_as(&self, image: &str, version: &str, bytes: &[u8]) -> (ImageName, VersionName) {
        let draft = self.draft_as(image, version).await;
        self.artifact(&draft, "raw", bytes).await;
        let job = self.publish(&draft).await;
        assert_eq!(job.job.state().word(), "succeeded", "{:?}", job.job.last_error);
        self.engine.get_manifest(&draft.0, &draft.1, Scope::Published).await.expect("a manifest");
        draft
    }

    pub(crate) async fn version_state(&self, version: &(ImageName, VersionName)) -> VersionState {
        self.engine.get_manifest(&version.0, &version.1, Scope::All).await.expect("a manifest").version.state
    }

    pub(crate) async fn blob_state(&self, digest: &Digest) -> BlobState {
        self.engine.get_blob(digest, Scope::All).await.expect("a blob").state
    }

    /// What happened to something, oldest first: `<actor>: <what> [<from> → <to>]`.
    pub(crate) async fn events(&self, subject: Subject, id: impl Display) -> Vec<String> {
        let events = self.engine.events(subject, &id.to_string(), 100).await.expect("events");
        let told = |event: &Event| {
            let (from, to) = (event.from.as_deref().unwrap_or("-"), event.to.as_deref().unwrap_or("-"));
            let name = event.subject_name.iter().map(|name| format!(" {name}")).collect::<String>();
            format!("{}: {}{name} [{from} → {to}]", event.actor, event.what)
        };
        events.iter().rev().map(told).collect()
    }
}

/// A part whose last byte has not been sent.
pub(crate) struct PartInProgress {
    part: JoinHandle<Result<Part>>,
    go_on: oneshot::Sender<()>,
}

impl PartInProgress {
    /// Sends the last byte.
    pub(crate) async fn end(self) -> Result<Part> {
        self.go_on.send(()).ok();
        self.part.await.expect("no panic")
    }

    /// Never sends it, and waits for the answer.
    pub(crate) async fn refused(self) -> Result<Part> {
        let answer = self.part.await.expect("no panic");
        drop(self.go_on);
        answer
    }

    /// Goes away.
    pub(crate) async fn drop(self) {
        self.part.abort();
        self.part.await.expect_err("it was told to end");
    }
}

fn builder(
    database: &DatabaseConnection,
    reader: &DatabaseConnection,
    store: &Operator,
    gate: &Gate,
    clock: &Clock,
) -> Builder {
    Engine::builder(database.clone(), store.clone().layer(gate.clone()))
        .reader(reader.clone())
        .clock(clock.clone())
        .projection(SimpleStreams::default())
        .settings(Settings { min_free: 0, ..Settings::default() })
}

pub(crate) async fn read(engine: &Engine, digest: &Digest, range: Option<std::ops::Range<u64>>) -> Result<Vec<u8>> {
    let body = engine.read_blob(digest, range).await?.body;
    let read: Vec<u8> = body
        .map_ok(|bytes| bytes.to_vec())
        .try_concat()
        .await
        .map_err(|err| Error::internal("the body broke off", err))?;
    Ok(read)
}

/// Bytes that look like no others: `size` of them, different for each `seed`.
pub(crate) fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

pub(crate) fn promise(bytes: &[u8]) -> NewUpload {
    NewUpload {
        expected_digest: Digest::of(bytes),
        expected_size: bytes.len() as u64,
        media_type_hint: None,
        filename_hint: None,
    }
}

/// A request body in frames of 64 KiB.
pub(crate) fn body(bytes: &[u8]) -> impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
    let frames: Vec<_> = bytes.chunks(64 << 10).map(|frame| Ok(bytes::Bytes::copy_from_slice(frame))).collect();
    stream::iter(frames)
}

/// A request body that breaks off.
pub(crate) fn broken(bytes: &[u8]) -> impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
    body(bytes).chain(stream::iter([Err(std::io::ErrorKind::UnexpectedEof.into())]))
}

pub(crate) fn number(number: i64) -> PartNumber {
    PartNumber::try_from(number).expect("a part number")
}

pub(crate) fn listed(part: &Part) -> PartRef {
    PartRef { number: part.number, etag: part.etag.to_string(), size: part.size }
}

pub(crate) fn image(name: &str) -> ImageName {
    name.parse().expect("an image name")
}

pub(crate) fn version(name: &str) -> VersionName {
    name.parse().expect("a version")
}

pub(crate) fn blob_ref(bytes: &[u8]) -> BlobRef {
    BlobRef {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        media_type: "application/octet-stream".parse().expect("a media type"),
    }
}

pub(crate) fn artifact(format: &str, bytes: &[u8]) -> NewArtifact {
    NewArtifact {
        variant: Variant::default_variant(),
        operating_system: "linux".parse().expect("an operating system"),
        architecture: "amd64".parse().expect("an architecture"),
        format: format.parse().expect("a format"),
        blob: blob_ref(bytes),
        requirements: [].into(),
    }
}

pub(crate) fn attachment(name: &str, bytes: &[u8]) -> NewAttachment {
    NewAttachment { name: name.parse().expect("an attachment name"), blob: blob_ref(bytes) }
}

/// The condition that an error says does not hold.
pub(crate) fn condition<T: std::fmt::Debug>(result: Result<T>) -> Condition {
    match result {
        Err(Error::Precondition { condition, .. }) => condition,
        other => panic!("expected was a precondition that does not hold, not {other:?}"),
    }
}
