//! What must be so: maps, and the rules of the design in a few lines each. No database, no store, no time but its own.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use imgsrv_core::PART_SIZE_MIN;
use imgsrv_core::model::{BlobState, JobState, SweepAction, UploadState, VersionState};

use super::operation::{CONTENTS, Harm, List, Operation, Pick, Piece, Place};

const TTL: TimeDelta = TimeDelta::hours(24);
const HOLD: TimeDelta = TimeDelta::seconds(60);
const RETENTION: TimeDelta = TimeDelta::days(7);
const NOTICE: TimeDelta = TimeDelta::hours(24);
const MEMORY: TimeDelta = TimeDelta::days(30);
const DAILY: TimeDelta = TimeDelta::hours(24);
const LEASE: TimeDelta = TimeDelta::seconds(30);
const CRASH_LOOP: i32 = 5;

/// What an engine says: in a few words, or the slug of its error.
pub(super) type Answer = Result<String, &'static str>;

type Done<T> = Result<T, &'static str>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub now: DateTime<Utc>,
    pub images: BTreeMap<&'static str, BTreeMap<&'static str, Version>>,
    /// Image and alias, and the version that it points at.
    pub aliases: BTreeMap<(&'static str, &'static str), &'static str>,
    /// By the move that began them.
    pub uploads: BTreeMap<usize, Upload>,
    pub blobs: BTreeMap<usize, Blob>,
    /// Those for publishing, and of the others those that are open; in the order in which they were made.
    pub jobs: Vec<Job>,
    /// By the move that made them.
    pub plans: BTreeMap<usize, Plan>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Version {
    pub state: VersionState,
    /// By format.
    pub artifacts: BTreeMap<&'static str, Artifact>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Artifact {
    pub content: usize,
    pub attachments: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Upload {
    pub content: usize,
    pub wrong_size: bool,
    pub state: UploadState,
    /// Of one that has not ended.
    pub parts: BTreeMap<u16, Part>,
    pub attempts: i32,
    pub expires_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub piece: Piece,
    pub attempt: i32,
    /// The attempt on which its hash builds.
    pub after: Option<i32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Blob {
    pub state: BlobState,
    pub last_used_at: DateTime<Utc>,
    pub condemned_at: Option<DateTime<Utc>>,
    /// What the test did to its first object.
    pub harm: Option<Harm>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Work {
    Ingest(usize),
    Publish(Place),
    Listing,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    pub work: Work,
    pub ended: Option<Ended>,
    pub available_at: DateTime<Utc>,
    /// Whether a worker holds it, or died with it.
    pub leased: bool,
    pub crashes: i32,
    /// Whether its first step is done.
    pub validated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ended {
    Succeeded,
    Failed,
    Abandoned,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub created_at: DateTime<Utc>,
    pub blobs: Vec<(usize, SweepAction)>,
}

impl Upload {
    pub(super) fn is_open(&self) -> bool {
        !self.state.is_terminal()
    }

    fn takes_parts(&self) -> bool {
        matches!(self.state, UploadState::Created | UploadState::Uploading)
    }

    fn expected_size(&self) -> usize {
        CONTENTS[self.content].1.len() + usize::from(self.wrong_size)
    }

    fn was_completed(&self) -> bool {
        matches!(self.state, UploadState::Completed | UploadState::Ingesting | UploadState::Ready)
    }

    fn end(&mut self, state: UploadState, now: DateTime<Utc>) {
        self.state = state;
        self.updated_at = now;
        self.parts.clear();
    }
}

impl Job {
    fn new(work: Work, available_at: DateTime<Utc>) -> Self {
        Self { work, ended: None, available_at, leased: false, crashes: 0, validated: false }
    }

    fn said(&self) -> String {
        let state = match self.ended {
            Some(Ended::Succeeded) => JobState::Succeeded,
            Some(Ended::Failed | Ended::Abandoned) => JobState::Failed,
            None if self.leased => JobState::Running,
            None => JobState::Queued,
        };
        state.word().to_owned()
    }
}

impl Blob {
    fn is_citable(&self) -> bool {
        BlobState::CITABLE.contains(&self.state)
    }

    fn set(&mut self, state: BlobState) {
        self.state = state;
        self.condemned_at = None;
    }
}

impl Version {
    fn cited(&self) -> BTreeSet<usize> {
        self.artifacts
            .values()
            .flat_map(|artifact| artifact.attachments.values().copied().chain([artifact.content]))
            .collect()
    }
}

fn checked(holds: bool, otherwise: &'static str) -> Done<()> {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl State {
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        let (images, aliases, uploads, blobs, plans) = Default::default();
        Self { now, images, aliases, uploads, blobs, jobs: vec![Job::new(Work::Listing, now + DAILY)], plans }
    }

    /// The operation on just the thing that is picked now.
    pub(super) fn aim(&self, mut operation: Operation) -> Operation {
        let newest = |keys: Vec<usize>, pick: Pick| match keys.len() {
            0 => usize::MAX,
            many => keys[many - 1 - pick % many],
        };
        match &mut operation {
            Operation::Put { upload, .. } | Operation::Complete { upload, .. } | Operation::Abort { upload } => {
                // Now and then one that has ended.
                let mut keys: Vec<_> = self.uploads.keys().copied().collect();
                if *upload < 5 && self.uploads.values().any(Upload::is_open) {
                    keys.retain(|key| self.uploads[key].is_open());
                }
                *upload = newest(keys, *upload);
            }
            _ => {}
        }
        match &mut operation {
            // What a client lists who knows what it has sent.
            Operation::Complete { upload, list, parts } => {
                let most = if *list == List::First { 1 } else { usize::MAX };
                let sent = self.uploads.get(upload).into_iter().flat_map(|upload| &upload.parts);
                *parts = sent.take(most).map(|(number, part)| (*number, part.piece)).collect();
            }
            Operation::CarryOut { plan } => *plan = newest(self.plans.keys().copied().collect(), *plan),
            Operation::Retry(place, job) | Operation::Abandon(place, job) => {
                let count = self.jobs.iter().filter(|job| job.work == Work::Publish(*place)).count();
                *job = newest((0..count).collect(), *job);
            }
            _ => {}
        }
        operation
    }

    /// What becomes of it when one node does this, and nobody else anything; what it says.
    pub(super) fn apply(&mut self, step: usize, operation: &Operation) -> Answer {
        let done = |()| "done".to_owned();
        match operation.clone() {
            Operation::Begin { content, wrong_size } => self.begin(step, content, wrong_size),
            Operation::Put { upload, number, cut, other, breaks } => {
                self.put(upload, number, cut, other, breaks).map(done)
            }
            Operation::Complete { upload, list, parts } => self.complete(upload, list, &parts),
            Operation::Abort { upload } => self.abort(upload),
            Operation::CreateImage(image) => {
                checked(!self.images.contains_key(image), "already-exists")?;
                self.images.insert(image, BTreeMap::new());
                Ok(done(()))
            }
            Operation::DeleteImage(image) => {
                checked(self.images.get(image).ok_or("not-found")?.is_empty(), "not-empty")?;
                self.images.remove(image);
                Ok(done(()))
            }
            Operation::CreateVersion((image, version)) => {
                let versions = self.images.get_mut(image).ok_or("not-found")?;
                checked(!versions.contains_key(version), "already-exists")?;
                versions.insert(version, Version { state: VersionState::Draft, artifacts: BTreeMap::new() });
                Ok(done(()))
            }
            Operation::DeleteDraft(place) => {
                let cited = self.draft(place)?.cited();
                self.images.get_mut(place.0).ok_or("not-found")?.remove(place.1);
                self.jobs.retain(|job| job.work != Work::Publish(place));
                self.let_go(cited);
                Ok(done(()))
            }
            Operation::AddArtifact(place, format, content) => {
                checked(!self.draft(place)?.artifacts.contains_key(format), "already-exists")?;
                self.cite(content);
                self.draft(place)?.artifacts.insert(format, Artifact { content, attachments: BTreeMap::new() });
                Ok(done(()))
            }
            Operation::RemoveArtifact(place, format) => {
                let artifact = self.draft(place)?.artifacts.remove(format).ok_or("not-found")?;
                self.let_go(artifact.attachments.into_values().chain([artifact.content]));
                Ok(done(()))
            }
            Operation::AddAttachment(place, format, name, content) => {
                let attachments = &self.draft(place)?.artifacts.get(format).ok_or("not-found")?.attachments;
                checked(!attachments.contains_key(name), "already-exists")?;
                self.cite(content);
                let artifact = self.draft(place)?.artifacts.get_mut(format).ok_or("not-found")?;
                artifact.attachments.insert(name, content);
                Ok(done(()))
            }
            Operation::RemoveAttachment(place, format, name) => {
                let artifact = self.draft(place)?.artifacts.get_mut(format).ok_or("not-found")?;
                let content = artifact.attachments.remove(name).ok_or("not-found")?;
                self.let_go([content]);
                Ok(done(()))
            }
            Operation::Publish(place) => self.publish(place),
            Operation::Retry(place, nth) => {
                let now = self.now;
                let job = self.publish_job(place, nth)?;
                checked(job.ended == Some(Ended::Failed), "wrong-state")?;
                let validated = job.validated;
                *job = Job { validated, ..Job::new(job.work, now) };
                Ok(job.said())
            }
            Operation::Abandon(place, nth) => {
                let job = self.publish_job(place, nth)?;
                checked(job.ended != Some(Ended::Succeeded), "wrong-state")?;
                if job.ended != Some(Ended::Abandoned) {
                    (job.ended, job.leased) = (Some(Ended::Abandoned), false);
                    self.version(place)?.state = VersionState::Draft;
                }
                Ok(JobState::Failed.word().to_owned())
            }
            Operation::PutAlias(alias, (image, version)) => {
                let published = self.version((image, version))?.state == VersionState::Published;
                checked(published, "wrong-state")?;
                self.aliases.insert((image, alias), version);
                Ok(done(()))
            }
            Operation::DeleteAlias(image, alias) => {
                self.aliases.remove(&(image, alias)).ok_or("not-found")?;
                Ok(done(()))
            }
            Operation::Plan => {
                let plan = self.plan();
                let said = format!("{:?}", plan.blobs);
                self.plans.insert(step, plan);
                Ok(said)
            }
            Operation::CarryOut { plan } => {
                let plan = self.plans.get(&plan).ok_or("not-found")?.clone();
                Ok(self.carry_out(&plan))
            }
            Operation::Sweep => Ok(self.sweep()),
            Operation::Run => {
                let mut ran = 0;
                while self.run_one() {
                    ran += 1;
                }
                Ok(format!("ran {ran}"))
            }
            Operation::Verify(content) => self.verify(content),
            Operation::Read(content) => self.read(content),
            Operation::Harm(content, harm) => {
                // What has no bytes has no object.
                if let Some(blob) = self.blobs.get_mut(&content).filter(|_| !CONTENTS[content].1.is_empty()) {
                    blob.harm = Some(harm).filter(|harm| *harm != Harm::Undone);
                }
                Ok(done(()))
            }
            Operation::Wait(time) => {
                self.now += time;
                Ok(done(()))
            }
        }
    }

    fn version(&mut self, (image, version): Place) -> Done<&mut Version> {
        self.images.get_mut(image).and_then(|versions| versions.get_mut(version)).ok_or("not-found")
    }

    fn draft(&mut self, place: Place) -> Done<&mut Version> {
        let version = self.version(place)?;
        if version.state == VersionState::Draft { Ok(version) } else { Err("wrong-state") }
    }

    fn publish_job(&mut self, place: Place, nth: usize) -> Done<&mut Job> {
        self.jobs.iter_mut().filter(|job| job.work == Work::Publish(place)).nth(nth).ok_or("not-found")
    }

    /// What the catalogue cites.
    pub(super) fn cited(&self) -> BTreeSet<usize> {
        self.images.values().flat_map(BTreeMap::values).flat_map(Version::cited).collect()
    }

    /// What published versions cite.
    pub(super) fn published(&self) -> BTreeSet<usize> {
        let versions = self.images.values().flat_map(BTreeMap::values);
        versions.filter(|version| version.state == VersionState::Published).flat_map(Version::cited).collect()
    }

    /// What somebody relies on: it is cited or awaited, and it is there.
    pub(super) fn owed(&self) -> BTreeSet<usize> {
        self.blobs.keys().copied().filter(|content| self.is_needed(*content)).collect()
    }

    fn is_needed(&self, content: usize) -> bool {
        self.cited().contains(&content)
            || self.uploads.values().any(|upload| upload.content == content && upload.is_open())
    }

    /// Whoever relies on a blob takes it back from whoever would collect it; whether it is there.
    fn cite(&mut self, content: usize) -> bool {
        let now = self.now;
        let Some(blob) = self.blobs.get_mut(&content).filter(|blob| blob.is_citable()) else { return false };
        blob.set(BlobState::Live);
        blob.last_used_at = now;
        true
    }

    fn let_go(&mut self, contents: impl IntoIterator<Item = usize>) {
        for content in contents {
            if let Some(blob) = self.blobs.get_mut(&content) {
                blob.last_used_at = self.now;
            }
        }
    }

    /// The store is asked for a blob's objects; whether they are there.
    fn look_at(&mut self, content: usize) -> bool {
        let Some(blob) = self.blobs.get_mut(&content) else { return false };
        let whole = blob.harm != Some(Harm::Lost);
        if !whole && blob.is_citable() {
            blob.set(BlobState::Damaged);
        }
        whole
    }

    fn begin(&mut self, step: usize, content: usize, wrong_size: bool) -> Answer {
        self.look_at(content);
        if wrong_size && self.blobs.get(&content).is_some_and(Blob::is_citable) {
            return Err("size-mismatch");
        }
        let state = if self.cite(content) { UploadState::Ready } else { UploadState::Created };
        let (now, parts) = (self.now, BTreeMap::new());
        let upload = Upload { content, wrong_size, state, parts, attempts: 0, expires_at: now + TTL, updated_at: now };
        self.uploads.insert(step, upload);
        Ok(state.word().to_owned())
    }

    fn put(&mut self, step: usize, number: u16, cut: super::operation::Cut, other: bool, breaks: bool) -> Done<()> {
        let now = self.now;
        let upload = self.uploads.get_mut(&step).ok_or("not-found")?;
        checked(upload.takes_parts(), "wrong-state")?;
        checked(upload.expires_at > now, "expired")?;
        upload.attempts += 1;
        upload.expires_at = upload.expires_at.max(now + HOLD);
        let piece = Piece { content: upload.content, cut, other };
        let others: usize = upload.parts.iter().filter(|part| *part.0 != number).map(|part| part.1.piece.size()).sum();
        let sent = if breaks { piece.size() / 2 } else { piece.size() };
        checked(others + sent <= upload.expected_size(), "size-mismatch")?;
        checked(!breaks, "invalid")?;
        let after = upload.parts.range(..number).next_back().map(|before| before.1.attempt);
        upload.parts.insert(number, Part { piece: piece.known(), attempt: upload.attempts, after });
        upload.state = UploadState::Uploading;
        upload.expires_at = upload.expires_at.max(now + TTL);
        upload.updated_at = now;
        Ok(())
    }

    fn complete(&mut self, step: usize, list: List, parts: &[(u16, Piece)]) -> Answer {
        let now = self.now;
        let upload = self.uploads.get_mut(&step).ok_or("not-found")?;
        if upload.was_completed() {
            return Ok(upload.state.word().to_owned());
        }
        let sizes: Vec<_> = parts.iter().map(|(_, piece)| piece.size()).collect();
        let (_, all_but_last) = sizes.split_last().ok_or("invalid")?;
        checked(all_but_last.iter().all(|size| *size as u64 >= PART_SIZE_MIN), "invalid")?;
        checked(upload.state == UploadState::Uploading, "wrong-state")?;
        checked(upload.expires_at > now, "expired")?;
        let is_stored =
            |(number, piece): &(u16, Piece)| upload.parts.get(number).is_some_and(|part| part.piece == *piece);
        checked(list != List::Stale && parts.iter().all(is_stored), "part-mismatch")?;
        checked(sizes.iter().sum::<usize>() == upload.expected_size(), "size-mismatch")?;
        upload.parts.retain(|number, _| parts.iter().any(|(listed, _)| listed == number));
        (upload.state, upload.updated_at) = (UploadState::Completed, now);
        let mut after = None;
        let is_known =
            upload.parts.values().all(|part| std::mem::replace(&mut after, Some(part.attempt)) == part.after);
        if is_known {
            self.conclude(step);
        } else {
            self.jobs.push(Job::new(Work::Ingest(step), now));
        }
        Ok(self.uploads[&step].state.word().to_owned())
    }

    /// The bytes of a completed upload are known.
    fn conclude(&mut self, step: usize) {
        let now = self.now;
        let upload = self.uploads.get_mut(&step).expect("a session is not forgotten before it ends");
        let content = upload.content;
        let bytes: Vec<_> = upload.parts.values().map(|part| part.piece.bytes()).collect();
        if bytes.concat() != CONTENTS[content].1 {
            return upload.end(UploadState::Failed, now);
        }
        upload.end(UploadState::Ready, now);
        if !self.cite(content) {
            // It is new, or takes the place of what was broken.
            let blob = Blob { state: BlobState::Live, last_used_at: now, condemned_at: None, harm: None };
            self.blobs.insert(content, blob);
        }
    }

    fn abort(&mut self, step: usize) -> Answer {
        let now = self.now;
        let upload = self.uploads.get_mut(&step).ok_or("not-found")?;
        if upload.state != UploadState::Aborted {
            checked(upload.takes_parts(), "wrong-state")?;
            upload.end(UploadState::Aborted, now);
        }
        Ok(UploadState::Aborted.word().to_owned())
    }

    fn publish(&mut self, place: Place) -> Answer {
        let version = self.version(place)?;
        if version.state != VersionState::Draft {
            let mut current =
                self.jobs.iter().filter(|job| job.work == Work::Publish(place) && job.ended != Some(Ended::Abandoned));
            return Ok(current.next().expect("whatever is frozen has a job").said());
        }
        let cited = version.cited();
        checked(!cited.is_empty(), "not-publishable")?;
        let all = cited.iter().all(|content| self.blobs.get(content).is_some_and(Blob::is_citable));
        checked(all, "not-publishable")?;
        for content in cited {
            self.cite(content);
        }
        self.version(place)?.state = VersionState::Publishing;
        let job = Job::new(Work::Publish(place), self.now);
        let said = job.said();
        self.jobs.push(job);
        Ok(said)
    }

    fn plan(&self) -> Plan {
        let due = |content: &usize| {
            [SweepAction::Condemn, SweepAction::Delete]
                .into_iter()
                .find(|action| self.is_due(*content, *action, self.now))
        };
        let blobs = self.blobs.keys().filter_map(|content| Some((*content, due(content)?))).collect();
        Plan { created_at: self.now, blobs }
    }

    /// Whether a plan that was made then may do this now.
    fn is_due(&self, content: usize, action: SweepAction, planned_at: DateTime<Utc>) -> bool {
        let Some(blob) = self.blobs.get(&content) else { return false };
        let past = match action {
            SweepAction::Condemn => blob.state == BlobState::Live && blob.last_used_at < planned_at - RETENTION,
            SweepAction::Delete => {
                blob.state == BlobState::Condemned && blob.condemned_at.is_some_and(|at| at < planned_at - NOTICE)
            }
        };
        past && !self.is_needed(content)
    }

    fn carry_out(&mut self, plan: &Plan) -> String {
        let (mut condemned, mut deleted, mut kept) = (0, 0, 0);
        for (content, action) in &plan.blobs {
            if !self.is_due(*content, *action, plan.created_at) {
                kept += 1;
            } else if *action == SweepAction::Delete {
                self.blobs.remove(content);
                deleted += 1;
            } else if let Some(blob) = self.blobs.get_mut(content) {
                (blob.state, blob.condemned_at) = (BlobState::Condemned, Some(self.now));
                condemned += 1;
            }
        }
        format!("condemned {condemned}, deleted {deleted}, kept {kept}")
    }

    fn sweep(&mut self) -> String {
        let (now, long_ago) = (self.now, self.now - MEMORY);
        let (mut expired, mut repaired) = (0, 0);
        for upload in self.uploads.values_mut().filter(|upload| upload.takes_parts() && upload.expires_at <= now) {
            upload.end(UploadState::Aborted, now);
            expired += 1;
        }
        for blob in self.blobs.values_mut() {
            if blob.state == BlobState::Damaged && blob.harm != Some(Harm::Lost) {
                blob.set(BlobState::Live);
                repaired += 1;
            }
        }
        self.uploads.retain(|_, upload| upload.is_open() || upload.updated_at >= long_ago);
        self.plans.retain(|_, plan| plan.created_at >= long_ago);
        format!("expired {expired}, repaired {repaired}")
    }

    /// A worker takes the job that has been due longest, if any is, and does it.
    fn run_one(&mut self) -> bool {
        let now = self.now;
        let due = self.jobs.iter().enumerate().filter(|(_, job)| job.ended.is_none() && job.available_at <= now);
        let Some((index, _)) = due.min_by_key(|(index, job)| (job.available_at, *index)) else { return false };
        let job = &mut self.jobs[index];
        job.crashes += i32::from(job.leased);
        (job.leased, job.available_at) = (true, now + LEASE);
        let (work, is_crash_loop) = (job.work, job.crashes >= CRASH_LOOP);
        match work {
            Work::Ingest(step) => {
                self.jobs.remove(index);
                if is_crash_loop {
                    self.uploads.get_mut(&step).expect("it is open").end(UploadState::Failed, now);
                } else {
                    self.conclude(step);
                }
            }
            Work::Publish(place) => {
                let succeeds = !is_crash_loop && self.validate(index, place) && self.finalize(place);
                let job = &mut self.jobs[index];
                (job.leased, job.ended) = (false, Some(if succeeds { Ended::Succeeded } else { Ended::Failed }));
            }
            Work::Listing => {
                self.jobs.remove(index);
                if is_crash_loop {
                    self.jobs.insert(index, Job::new(Work::Listing, now + DAILY));
                } else {
                    let plan = self.plan();
                    self.carry_out(&plan);
                    self.jobs.push(Job::new(Work::Listing, now + DAILY));
                }
            }
        }
        true
    }

    fn validate(&mut self, index: usize, place: Place) -> bool {
        if self.jobs[index].validated {
            return true;
        }
        for content in self.version(place).expect("it is frozen").cited() {
            if !self.look_at(content) {
                return false;
            }
            let blob = self.blobs.get_mut(&content).expect("it was looked at");
            if blob.state == BlobState::Damaged {
                blob.set(BlobState::Live);
            }
        }
        self.jobs[index].validated = true;
        true
    }

    fn finalize(&mut self, place: Place) -> bool {
        let cited = self.version(place).expect("it is frozen").cited();
        if !cited.iter().all(|content| self.blobs.get(content).is_some_and(Blob::is_citable)) {
            return false;
        }
        for content in cited {
            self.cite(content);
        }
        self.version(place).expect("it is frozen").state = VersionState::Published;
        true
    }

    fn verify(&mut self, content: usize) -> Answer {
        let blob = self.blobs.get_mut(&content).ok_or("not-found")?;
        let said = match blob.harm {
            Some(Harm::Lost) => {
                self.look_at(content);
                "missing"
            }
            Some(_) => {
                blob.set(BlobState::Quarantined);
                "different"
            }
            None => {
                if BlobState::BROKEN.contains(&blob.state) {
                    blob.set(BlobState::Live);
                }
                "whole"
            }
        };
        Ok(said.to_owned())
    }

    fn read(&mut self, content: usize) -> Answer {
        let blob = self.blobs.get_mut(&content).ok_or("not-found")?;
        checked(blob.is_citable(), "unavailable")?;
        match blob.harm {
            None => Ok("whole".to_owned()),
            Some(Harm::Lost) => {
                blob.set(BlobState::Damaged);
                Err("unavailable")
            }
            Some(_) => {
                blob.set(BlobState::Quarantined);
                Err("unavailable")
            }
        }
    }
}
