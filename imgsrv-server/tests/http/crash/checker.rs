//! Whoever checks what is left does not ask the engine: it reads the database and the store itself, and hashes for itself.
//! What it finds, it says in a line each; nothing is what it should find.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use imgsrv_core::opendal::{ErrorKind, Operator};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::deployment::Deployment;
use super::ledger::{Ledger, Seen, SessionTold, Shared};
use super::rows::{Rows, UploadRow};

/// How much later than it could a job is begun by a server that has nothing else to do.
const PUNCTUAL: TimeDelta = TimeDelta::seconds(5);

/// What is found wrong.
pub(super) type Findings = Vec<String>;

pub(super) struct Checker {
    rows: Rows,
    store: Operator,
    /// The sizes of all objects.
    objects: BTreeMap<String, u64>,
    /// Digests whose bytes were read, by what was found.
    hashed: HashMap<Vec<String>, String>,
}

impl Checker {
    /// Takes down what there is now.
    pub(super) async fn look(deployment: &Deployment) -> Self {
        let database = deployment.database().await;
        let rows = Rows::read(&database).await;
        database.close().await.expect("closed");
        let store = deployment.store();
        let listed = store.lister_with("").recursive(true).await.expect("a listing");
        let listed: Vec<_> = listed.try_collect().await.expect("a listing");
        let keys = listed.into_iter().map(|entry| entry.path().to_owned()).filter(|key| !key.ends_with('/'));
        let sizes = stream::iter(keys).map(|key| async {
            let size = store.stat(&key).await.expect("an object").content_length();
            (key, size)
        });
        let objects = sizes.buffer_unordered(16).collect().await;
        Self { rows, store, objects, hashed: HashMap::new() }
    }

    /// Everything that holds at any moment, even while no server runs. Bytes that `known` has the digests of were found
    /// right at an earlier look, and are not read again; those that are found right now are added.
    pub(super) async fn check(
        &mut self,
        ledger: &Shared,
        now: DateTime<Utc>,
        known: &mut BTreeSet<String>,
    ) -> Findings {
        let ready: BTreeSet<String> = ledger.lock().ready.keys().cloned().collect();
        let mut findings = self.check_blobs(ready, known).await;
        findings.extend(self.check_published(known).await);
        findings.extend(self.jobs());
        findings.extend(self.told(&ledger.lock(), now));
        let parts = self.parts_of_open_sessions(&ledger.lock());
        for (what, key, expected) in parts {
            let found = self.hash(vec![key]).await;
            if !expected.contains(&found) {
                findings.push(format!("{what}: its bytes hash to {found}"));
            }
        }
        findings
    }

    /// Every published version is whole, to its last byte.
    pub(super) async fn check_published(&mut self, known: &mut BTreeSet<String>) -> Findings {
        let mut findings = self.check_blobs(self.cited_by_published(), known).await;
        findings.extend(self.published());
        findings
    }

    async fn check_blobs(&mut self, digests: BTreeSet<String>, known: &mut BTreeSet<String>) -> Findings {
        let mut findings = Vec::new();
        for digest in digests {
            let (broken, segments) = self.blob(&digest);
            let is_whole = broken.is_empty();
            findings.extend(broken);
            if !is_whole || known.contains(&digest) {
                continue;
            }
            let found = self.hash(segments).await;
            if found == digest {
                known.insert(digest);
            } else {
                findings.push(format!("blob {digest}: its bytes hash to {found}"));
            }
        }
        findings
    }

    /// The digests that published versions cite.
    fn cited_by_published(&self) -> BTreeSet<String> {
        let artifacts = self.rows.artifacts.iter().filter(|artifact| self.is_published(artifact.version));
        let cited = artifacts.clone().map(|artifact| &artifact.digest);
        let artifacts: BTreeSet<Uuid> = artifacts.map(|artifact| artifact.id).collect();
        let attachments = self.rows.attachments.iter().filter(|attachment| artifacts.contains(&attachment.artifact));
        cited.chain(attachments.map(|attachment| &attachment.digest)).cloned().collect()
    }

    fn is_published(&self, version: Uuid) -> bool {
        self.rows.versions.get(&version).is_some_and(|version| version.state == "published")
    }

    /// What is wrong with a blob that must be whole, but for its bytes; and the objects that have these.
    fn blob(&self, digest: &str) -> (Findings, Vec<String>) {
        let Some(blob) = self.rows.blobs.get(digest) else {
            return (vec![format!("blob {digest}: has no row")], Vec::new());
        };
        let mut findings = Vec::new();
        if blob.state != "live" {
            findings.push(format!("blob {digest}: is {}", blob.state));
        }
        let segments = self.rows.segments.get(digest).map_or(&[][..], Vec::as_slice);
        let mut end = 0;
        for segment in segments {
            let key = &segment.key;
            if segment.start != end {
                findings.push(format!("blob {digest}: a segment of it begins at {}, not at {end}", segment.start));
            }
            end = segment.start + segment.size;
            match self.objects.get(key) {
                None => findings.push(format!("blob {digest}: its object {key} is gone")),
                Some(size) if i64::try_from(*size) != Ok(segment.size) => {
                    findings.push(format!("blob {digest}: its object {key} has {size} bytes, not {}", segment.size));
                }
                Some(_) => {}
            }
            match self.rows.attempts.get(key) {
                Some(attempt) if attempt.state == "stored" => {}
                Some(attempt) => findings.push(format!("blob {digest}: its object {key} is {}", attempt.state)),
                None => findings.push(format!("blob {digest}: its object {key} has no row")),
            }
        }
        if end != blob.size {
            findings.push(format!("blob {digest}: has {end} bytes in its segments, not {}", blob.size));
        }
        (findings, segments.iter().map(|segment| segment.key.clone()).collect())
    }

    /// The digest of some objects, one behind the other.
    async fn hash(&mut self, keys: Vec<String>) -> String {
        if let Some(found) = self.hashed.get(&keys) {
            return found.clone();
        }
        let mut hasher = Sha256::new();
        for key in &keys {
            match self.store.read(key).await {
                Ok(buffer) => hasher.update(buffer.to_bytes()),
                Err(err) if err.kind() == ErrorKind::NotFound => return format!("nothing, {key} is gone"),
                Err(err) => panic!("{key}: {err}"),
            }
        }
        let found = format!("sha256:{}", hex::encode(hasher.finalize()));
        self.hashed.insert(keys, found.clone());
        found
    }

    /// A published version has artifacts, all of the size that is said, and was published once.
    fn published(&self) -> Findings {
        let mut findings = Vec::new();
        for (id, version) in self.rows.versions.iter().filter(|(_, version)| version.state == "published") {
            let name = format!("version {}/{}", version.image, version.name);
            let artifacts: Vec<_> = self.rows.artifacts.iter().filter(|artifact| artifact.version == *id).collect();
            if artifacts.is_empty() {
                findings.push(format!("{name}: has no artifacts"));
            }
            let attached = self.rows.attachments.iter();
            let attached = attached.filter(|row| artifacts.iter().any(|artifact| artifact.id == row.artifact));
            let cited = artifacts.iter().map(|row| (&row.digest, row.size));
            for (digest, size) in cited.chain(attached.map(|row| (&row.digest, row.size))) {
                match self.rows.blobs.get(digest) {
                    Some(blob) if blob.size != size => {
                        findings.push(format!("{name}: says that {digest} has {size} bytes, not {}", blob.size));
                    }
                    _ => {}
                }
            }
            let id = id.to_string();
            let times = self.rows.published.get(&id).copied().unwrap_or_default();
            if times != 1 {
                findings.push(format!("{name}: was published {times} times, say the events"));
            }
            let jobs = self.rows.jobs.iter().filter(|job| job.kind == "publish" && job.subject == id);
            let done = jobs.filter(|job| job.outcome.as_deref() == Some("succeeded")).collect::<Vec<_>>();
            if done.len() != 1 {
                findings.push(format!("{name}: {} jobs have published it", done.len()));
            }
            for step in self.rows.steps.iter().filter(|step| done.iter().any(|job| job.id == step.job)) {
                if step.state != "succeeded" {
                    findings.push(format!("{name}: its step {} is {}", step.name, step.state));
                }
            }
        }
        findings
    }

    /// What was acknowledged holds, and nothing is there that was not asked for.
    fn told(&self, ledger: &Ledger, now: DateTime<Utc>) -> Findings {
        let mut findings = Vec::new();
        for (id, session) in &ledger.sessions {
            let Some(row) = self.upload(id) else {
                findings.push(format!("session {id}: has no row, but {session:?}"));
                continue;
            };
            if let Err(wrong) = session.check(&row.state, row.reason.as_deref(), ledger.kills, now) {
                findings.push(format!("session {id}: {wrong}"));
            }
            let content = session.content;
            if (&row.digest, usize::try_from(row.size)) != (&session.digest, Ok(content.size)) {
                findings.push(format!("session {id}: expects {} with {} bytes, not {content:?}", row.digest, row.size));
            }
            if session.told == SessionTold::Ready && !self.rows.blobs.contains_key(&row.digest) {
                findings.push(format!("session {id}: was told ready, but blob {} has no row", row.digest));
            }
            if is_open(&row.state)
                && let Err(wrong) = session.check_parts(&self.stored_parts(id))
            {
                findings.push(format!("session {id}: {wrong}"));
            }
        }
        for ((image, version), known) in &ledger.versions {
            if let Err(wrong) = known.check(&self.seen(image, version)) {
                findings.push(format!("version {image}/{version}: {wrong}"));
            }
        }
        for ((image, alias), known) in &ledger.aliases {
            let row = self.rows.aliases.iter().find(|row| (&row.image, &row.name) == (image, alias));
            let target = row.and_then(|row| self.rows.versions.get(&row.version)).map(|version| version.name.as_str());
            if let Err(wrong) = known.check(target) {
                findings.push(format!("alias {image}/{alias}: {wrong}"));
            }
        }
        let published = self.rows.versions.values().filter(|version| version.state == "published");
        for version in published.filter(|row| !ledger.versions.contains_key(&(row.image.clone(), row.name.clone()))) {
            findings.push(format!("version {}/{}: nobody asked for it", version.image, version.name));
        }
        findings
    }

    fn upload(&self, id: &str) -> Option<&UploadRow> {
        self.rows.uploads.get(&Uuid::try_parse(id).expect("a UUID"))
    }

    fn stored_parts(&self, session: &str) -> BTreeMap<u32, (String, u64)> {
        let id = Uuid::try_parse(session).expect("a UUID");
        let parts = self.rows.parts.iter().filter(|part| part.upload == id);
        parts.map(|part| (part.number.unsigned_abs(), (part.etag.clone(), part.size.unsigned_abs()))).collect()
    }

    fn seen(&self, image: &str, version: &str) -> Seen {
        let row = self.rows.versions.iter().find(|(_, row)| (&*row.image, &*row.name) == (image, version));
        let Some((id, row)) = row else { return Seen::default() };
        let artifacts = self.rows.artifacts.iter().filter(|artifact| artifact.version == *id).map(|artifact| {
            let attached = self.rows.attachments.iter().filter(|row| row.artifact == artifact.id);
            (
                (artifact.format.clone(), artifact.digest.clone(), artifact.size.unsigned_abs()),
                attached.map(|row| (row.name.clone(), row.digest.clone(), row.size.unsigned_abs())).collect(),
            )
        });
        Seen { state: Some(row.state.clone()), artifacts: artifacts.collect() }
    }

    /// Each part of a session that is open: what it is called, its object, and the digests that this may have.
    fn parts_of_open_sessions(&self, ledger: &Ledger) -> Vec<(String, String, Vec<String>)> {
        let mut parts = Vec::new();
        for (id, session) in &ledger.sessions {
            let uuid = Uuid::try_parse(id).expect("a UUID");
            if !self.upload(id).is_some_and(|row| is_open(&row.state)) {
                continue;
            }
            for part in self.rows.parts.iter().filter(|part| part.upload == uuid) {
                let number = part.number.unsigned_abs();
                let contents = session.contents_of(number);
                let digests = contents.iter().map(|content| crate::server::digest(&content.part(number)));
                parts.push((format!("part {number} of session {id}"), part.key.clone(), digests.collect()));
            }
        }
        parts
    }

    /// Whatever is under way has a job that brings it to its end, and no job is about what is over.
    fn jobs(&self) -> Findings {
        let mut findings = Vec::new();
        let open = |kind: &str| -> BTreeSet<&str> {
            let jobs = self.rows.jobs.iter().filter(|job| job.kind == kind && job.outcome.is_none());
            jobs.map(|job| job.subject.as_str()).collect()
        };
        let (ingests, publishes) = (open("ingest"), open("publish"));
        for (id, upload) in &self.rows.uploads {
            let has_job = ingests.contains(id.to_string().as_str());
            if is_under_way(&upload.state) != has_job {
                findings.push(format!("session {id}: is {}, and has an open job: {has_job}", upload.state));
            }
        }
        // A version whose job has failed waits for somebody to try again or to give up.
        let failed =
            self.rows.jobs.iter().filter(|job| job.kind == "publish" && job.outcome.as_deref() == Some("failed"));
        let failed: BTreeSet<&str> = failed.map(|job| job.subject.as_str()).collect();
        for (id, version) in &self.rows.versions {
            let id = id.to_string();
            let has_job = publishes.contains(&*id);
            if (version.state == "publishing") != (has_job || failed.contains(&*id)) {
                let (image, name, state) = (&version.image, &version.name, &version.state);
                findings.push(format!("version {image}/{name}: is {state}, and has an open job: {has_job}"));
            }
        }
        findings
    }

    /// After a server had time: nothing waits that should have been done, and only what was left open is.
    pub(super) fn check_idle(&self, ledger: &Shared, now: DateTime<Utc>) -> Findings {
        let mut findings = Vec::new();
        for job in self.rows.jobs.iter().filter(|job| job.outcome.is_none()) {
            // The lease of a worker that was killed a moment ago runs out by itself.
            let is_held_for_long = job.lease.is_some() && job.available_at > now + PUNCTUAL;
            let is_overdue = job.available_at < now - PUNCTUAL;
            if is_held_for_long || is_overdue || job.kind == "ingest" || job.kind == "publish" {
                let (id, kind, subject, at, lease) = (job.id, &job.kind, &job.subject, job.available_at, job.lease);
                findings.push(format!("job {id}: {kind} of {subject} hangs, due at {at}, leased as {lease:?}"));
            }
        }
        for (id, upload) in self.rows.uploads.iter().filter(|(_, upload)| is_under_way(&upload.state)) {
            findings.push(format!("session {id}: hangs, it is {}", upload.state));
        }
        for version in self.rows.versions.values().filter(|version| version.state == "publishing") {
            findings.push(format!("version {}/{}: hangs, it is publishing", version.image, version.name));
        }
        let ledger = ledger.lock();
        for (id, session) in ledger.sessions.iter().filter(|(_, session)| session.settled) {
            if let Some(row) = self.upload(id).filter(|row| is_open(&row.state)) {
                findings.push(format!("session {id}: was over, {session:?}, and is open until {}", row.expires_at));
            }
        }
        findings
    }

    /// When time has passed and the sweeps are through: each object has its row, each row its object, and each is needed,
    /// or was a moment ago by somebody who may still be reading it.
    pub(super) fn check_swept(&self, now: DateTime<Utc>) -> Findings {
        let mut findings = Vec::new();
        let segments: BTreeSet<&String> = self.rows.segments.values().flatten().map(|segment| &segment.key).collect();
        for key in self.objects.keys().filter(|key| *key != "imgsrv-store" && !self.rows.attempts.contains_key(*key)) {
            findings.push(format!("object {key}: has no row"));
        }
        for (key, attempt) in &self.rows.attempts {
            let (state, upload) = (&attempt.state, attempt.upload);
            if !self.objects.contains_key(key) {
                findings.push(format!("object {key}: is gone, its row is {state}"));
            }
            if state == "writing" {
                let session = self.rows.uploads.get(&upload).map(|upload| upload.state.as_str());
                findings.push(format!("object {key}: is being written, its session is {session:?}"));
            }
            if !segments.contains(key) && attempt.deletable_at.is_none_or(|at| at <= now) {
                findings.push(format!("object {key}: is {state}, and no blob needs it"));
            }
        }
        for (id, upload) in self.rows.uploads.iter().filter(|(_, upload)| is_open(&upload.state)) {
            findings.push(format!("session {id}: is {}, past its time", upload.state));
        }
        findings
    }

    pub(super) fn published_versions(&self) -> usize {
        self.rows.versions.values().filter(|version| version.state == "published").count()
    }

    pub(super) fn objects(&self) -> usize {
        self.objects.len()
    }
}

fn is_open(state: &str) -> bool {
    ["created", "uploading"].contains(&state)
}

fn is_under_way(state: &str) -> bool {
    ["completed", "ingesting"].contains(&state)
}
