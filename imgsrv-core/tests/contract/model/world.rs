//! Two nodes on one database, and the model beside them: what is done to both, and whether they agree.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use imgsrv_core::model::{
    ArtifactId, AttachmentId, BlobRef, Digest, JobId, NewArtifact, NewAttachment, NewImage, NewUpload, PartRef, Scope,
    SweepPlanId, UploadId,
};
use imgsrv_core::{Engine, Error, PartClaim, Verdict};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::observe;
use super::operation::{CONTENTS, Harm, List, Move, Operation, Piece, Place};
use super::state::{Answer, State};
use crate::fixture::{Fixture, artifact, attachment, body, broken, image, number, read, version};

/// After how many moves everything is compared.
const LOOK: usize = 10;

/// A node, on the trial's own runtime or on one that can be killed.
struct Node {
    engine: Engine,
    own: Option<Runtime>,
}

/// What a call came to: what was said, in full, and what it made.
struct Done {
    answer: Answer,
    detail: String,
    made: Option<Made>,
}

#[derive(Clone, Copy)]
enum Made {
    Upload(UploadId),
    Plan(SweepPlanId),
}

type Call = Pin<Box<dyn Future<Output = Done> + Send>>;

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub operations: usize,
    pub crashes: usize,
    /// Operations that a crash cut off.
    pub cut_off: usize,
    /// Moves of two operations that came out as if one had come after the other.
    pub in_order: usize,
    /// Those of several transactions, which met in between.
    pub mingled: usize,
}

pub(super) struct World<'a> {
    pub f: &'a Fixture,
    nodes: [Node; 2],
    state: State,
    /// The ids and contents of the sessions, by the move that began them.
    pub uploads: BTreeMap<usize, (UploadId, usize)>,
    pub plans: BTreeMap<usize, SweepPlanId>,
    /// What was done to which object.
    pub harmed: BTreeMap<String, Harm>,
    step: usize,
    pub told: Told,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(runtime) = node.own.take() {
                runtime.shutdown_background();
            }
        }
    }
}

/// A node as another process would be.
async fn start(f: &Fixture) -> Node {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.spawn(f.process().await).await.expect("no panic");
    Node { engine, own: Some(runtime) }
}

/// The digest and the size of a content, as clients declare them.
fn declared(content: usize) -> BlobRef {
    let (digest, bytes) = &CONTENTS[content];
    let media_type = "application/octet-stream".parse().expect("a media type");
    BlobRef { digest: digest.clone(), size: bytes.len() as u64, media_type }
}

fn said<T>(result: Result<T, Error>, words: impl FnOnce(T) -> String) -> Done {
    let detail = result.as_ref().err().map(Error::chain).unwrap_or_default();
    Done { answer: result.map(words).map_err(|err| err.code()), detail, made: None }
}

impl<'a> World<'a> {
    pub(super) async fn new(f: &'a Fixture, nodes_die: bool) -> Self {
        let nodes = if nodes_die {
            [start(f).await, start(f).await]
        } else {
            [f.engine.clone(), f.other.clone()].map(|engine| Node { engine, own: None })
        };
        let (uploads, plans, harmed) = Default::default();
        let state = State::new(f.clock.now());
        Self { f, nodes, state, uploads, plans, harmed, step: 0, told: Told::default() }
    }

    pub(super) async fn make(&mut self, a_move: &Move) {
        self.step += 2;
        match a_move {
            Move::One(node, operation) => self.one(*node, &self.state.aim(operation.clone())).await,
            Move::Two(one, other) => self.two(one, other, None).await,
            Move::Crash(one, other, after) => self.two(one, other, Some(Duration::from_micros(*after))).await,
        }
        if self.step % (2 * LOOK) == 0 {
            self.look().await;
        }
    }

    /// One operation, which must come to what the model says.
    async fn one(&mut self, node: usize, operation: &Operation) {
        let step = self.step;
        let call = self.call(self.nodes[node].engine.clone(), operation).await;
        let done = match &self.nodes[node].own {
            Some(runtime) => runtime.spawn(call).await.expect("no panic"),
            None => call.await,
        };
        self.told.operations += 1;
        self.note(step, operation, &done);
        let expected = self.state.apply(step, operation);
        assert_eq!(done.answer, expected, "{operation:?}, on the left as the engine has it ({})", done.detail);
        if matches!(operation, Operation::Read(_)) && done.answer.is_err() {
            // Wrong bytes are judged behind the reader's back.
            let wait = self.f.wait_until(async || observe::look(self).await.blobs == self.state.blobs);
            timeout(Duration::from_secs(20), wait).await.expect("wrong bytes are quarantined");
        }
    }

    /// Two operations at once; the node of the first may be killed meanwhile.
    async fn two(&mut self, one: &Operation, other: &Operation, killed_after: Option<Duration>) {
        let operations = [self.state.aim(one.clone()), self.state.aim(other.clone())];
        let mut running = Vec::new();
        for (node, operation) in operations.iter().enumerate() {
            let call = self.call(self.nodes[node].engine.clone(), operation).await;
            running.push((node, call));
        }
        let spawned = running.into_iter().map(|(node, call)| match &self.nodes[node].own {
            Some(runtime) => runtime.spawn(call),
            None => tokio::spawn(call),
        });
        let spawned: Vec<_> = spawned.collect();
        if let Some(after) = killed_after {
            tokio::time::sleep(after).await;
            self.kill().await;
        }
        let mut done: Vec<Option<Done>> = Vec::new();
        for handle in spawned {
            match handle.await {
                // Whoever is killed complains to nobody.
                Ok(Done { answer: Err("internal" | "unavailable"), .. })
                    if killed_after.is_some() && done.is_empty() =>
                {
                    self.told.cut_off += 1;
                    done.push(None);
                }
                Ok(ended) => done.push(Some(ended)),
                Err(err) => {
                    assert!(err.is_cancelled() && killed_after.is_some(), "{err}");
                    self.told.cut_off += 1;
                    done.push(None);
                }
            }
        }
        if killed_after.is_some() {
            self.f.settled().await;
            self.nodes[0] = start(self.f).await;
        }
        self.told.operations += 2;
        self.settle(&operations, &done).await;
    }

    /// Everything of a node stops at its next `.await`, as when its process is killed; what it said to the database and the
    /// store before may still be done.
    async fn kill(&mut self) {
        let runtime = self.nodes[0].own.take().expect("a node that can be killed");
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20)));
        ended.await.expect("no panic");
        self.told.crashes += 1;
    }

    /// What two operations came to must be what they come to one after the other. What was cut off has happened or not.
    async fn settle(&mut self, operations: &[Operation; 2], done: &[Option<Done>]) {
        for (index, (operation, done)) in operations.iter().zip(done).enumerate() {
            if let Some(done) = done {
                self.note(self.step + index, operation, done);
            }
        }
        for (index, operation) in operations.iter().enumerate() {
            if let (Operation::Begin { content, .. }, None) = (operation, &done[index]) {
                self.find_begun(self.step + index, *content).await;
            }
        }
        let seen = observe::look(self).await;
        let mut expected = Vec::new();
        for order in [&[0, 1][..], &[1, 0], &[0], &[1], &[]] {
            if (0..2).any(|index| done[index].is_some() && !order.contains(&index)) {
                continue;
            }
            let mut state = self.state.clone();
            let mut says = [None, None];
            for index in order {
                says[*index] = Some(state.apply(self.step + index, &operations[*index]));
            }
            let agrees = |index: usize| match (&done[index], &says[index]) {
                (Some(done), Some(says)) => done.answer == *says,
                _ => true,
            };
            // Nobody was told of a plan whose making was cut off.
            state.plans.retain(|step, _| self.plans.contains_key(step));
            if agrees(0) && agrees(1) && state == seen {
                self.told.in_order += 1;
                self.state = seen;
                return;
            }
            expected.push((order, says, state));
        }
        let answers =
            done.iter().map(|done| done.as_ref().map(|done| (&done.answer, &done.detail))).collect::<Vec<_>>();
        let explained = || {
            let mut text = format!("{operations:?} at once; the engines said {answers:?}");
            for (order, says, state) in &expected {
                text += &format!(
                    "\n in the order {order:?} the model says {says:?}\n{}",
                    observe::differences(state, &seen)
                );
            }
            text
        };
        assert!(operations.iter().any(is_several_steps), "no order explains {}", explained());
        self.check_promises(&seen, operations, done, &expected, &explained);
        self.told.mingled += 1;
        self.state = seen;
    }

    /// Holds, however the steps of two operations met.
    fn check_promises(
        &self,
        seen: &State,
        operations: &[Operation; 2],
        done: &[Option<Done>],
        expected: &[(&[usize], [Option<Answer>; 2], State)],
        explained: &dyn Fn() -> String,
    ) {
        for content in self.state.owed() {
            assert!(seen.blobs.contains_key(&content), "content {content} was needed and is gone: {}", explained());
        }
        for (operation, done) in operations.iter().zip(done) {
            let is_ready = done.as_ref().is_some_and(|done| done.answer.as_deref() == Ok("ready"));
            let content = match operation {
                Operation::Begin { content, .. } => *content,
                // One that was ready before tells of the past.
                Operation::Complete { upload, .. } if self.is_open(*upload) => self.uploads[upload].1,
                _ => continue,
            };
            assert!(!is_ready || seen.blobs.contains_key(&content), "{content} was ready and is gone: {}", explained());
        }
        let published = |state: &State| state.published();
        assert!(published(seen).is_superset(&published(&self.state)), "what was published is not: {}", explained());
        // Changes of the catalogue are one transaction each.
        let catalogue = |state: &State| {
            let mut images = state.images.clone();
            for version in images.values_mut().flat_map(BTreeMap::values_mut) {
                version.state = imgsrv_core::model::VersionState::Draft;
            }
            (images, state.aliases.clone())
        };
        let known = expected.iter().any(|(_, _, state)| catalogue(state) == catalogue(seen));
        assert!(known, "the catalogue is as no order makes it: {}", explained());
    }

    /// Compares everything with the model.
    pub(super) async fn look(&self) {
        let seen = observe::look(self).await;
        assert!(seen == self.state, "the model and the engine differ\n{}", observe::differences(&self.state, &seen));
    }

    fn note(&mut self, step: usize, operation: &Operation, done: &Done) {
        match (done.made, operation) {
            (Some(Made::Upload(id)), Operation::Begin { content, .. }) => {
                self.uploads.insert(step, (id, *content));
            }
            (Some(Made::Plan(id)), _) => {
                self.plans.insert(step, id);
            }
            _ => {}
        }
    }

    /// A session that was begun for somebody who was cut off, if it was.
    async fn find_begun(&mut self, step: usize, content: usize) {
        let known: Vec<_> = self.uploads.values().map(|upload| upload.0).collect();
        let all = self.f.engine.list_uploads(Default::default()).await.expect("sessions").items;
        if let Some(new) =
            all.iter().find(|upload| !known.contains(&upload.id) && upload.expected_digest == CONTENTS[content].0)
        {
            self.uploads.insert(step, (new.id, content));
        }
    }

    fn is_open(&self, upload: usize) -> bool {
        self.state.uploads.get(&upload).is_some_and(|upload| upload.is_open())
    }

    fn upload_id(&self, step: usize) -> UploadId {
        self.uploads.get(&step).map_or_else(|| self.f.clock.new_secret_id().into(), |upload| upload.0)
    }

    /// The artifact of a format, and its attachment of a name; ids that there are not, where there is none.
    async fn entry(&self, place: Place, format: &str, name: &str) -> (ArtifactId, AttachmentId) {
        let none = (self.f.clock.new_id().into(), self.f.clock.new_id().into());
        let manifest = self.f.engine.get_manifest(&image(place.0), &version(place.1), Scope::All).await;
        let entries = manifest.map(|manifest| manifest.artifacts).unwrap_or_default();
        let Some(entry) = entries.into_iter().find(|entry| entry.artifact.format.word() == format) else { return none };
        let attachment = entry.attachments.iter().find(|attachment| attachment.name.as_ref() == name);
        (entry.artifact.id, attachment.map_or(none.1, |attachment| attachment.id))
    }

    async fn publish_job(&self, place: Place, nth: usize) -> JobId {
        observe::publish_jobs(self.f, place).await.get(nth).copied().unwrap_or_else(|| self.f.clock.new_id().into())
    }

    /// The operation as a call of the engine. What it names is looked up now, so that it can meet another one.
    async fn call(&mut self, engine: Engine, operation: &Operation) -> Call {
        let done = |()| "done".to_owned();
        match operation.clone() {
            Operation::Begin { content, wrong_size } => {
                let BlobRef { digest, size, .. } = declared(content);
                let expected_size = size + u64::from(wrong_size);
                let new =
                    NewUpload { expected_digest: digest, expected_size, media_type_hint: None, filename_hint: None };
                async move {
                    let begun = engine.begin_upload(new).await;
                    let made = begun.as_ref().ok().map(|upload| Made::Upload(upload.id));
                    Done { made, ..said(begun, |upload| upload.state.word().to_owned()) }
                }
                .boxed()
            }
            Operation::Put { upload, number: at, cut, other, breaks } => {
                let (id, content) = (self.upload_id(upload), self.uploads.get(&upload).map_or(0, |upload| upload.1));
                let bytes = Piece { content, cut, other }.bytes();
                async move {
                    let put = if breaks {
                        engine
                            .put_part(id, number(at.into()), PartClaim::default(), broken(&bytes[..bytes.len() / 2]))
                            .await
                    } else {
                        engine.put_part(id, number(at.into()), PartClaim::default(), body(&bytes)).await
                    };
                    said(put.map(drop), done)
                }
                .boxed()
            }
            Operation::Complete { upload, list, parts } => {
                let id = self.upload_id(upload);
                let parts = refs(list, &parts);
                async move { said(engine.complete_upload(id, parts).await, |upload| upload.state.word().to_owned()) }
                    .boxed()
            }
            Operation::Abort { upload } => {
                let id = self.upload_id(upload);
                async move { said(engine.abort_upload(id).await, |upload| upload.state.word().to_owned()) }.boxed()
            }
            Operation::CreateImage(name) => {
                let new = NewImage { name: image(name), display_name: None, description: None };
                async move { said(engine.create_image(new).await.map(drop), done) }.boxed()
            }
            Operation::DeleteImage(name) => async move { said(engine.delete_image(&image(name)).await, done) }.boxed(),
            Operation::CreateVersion(place) => {
                async move { said(engine.create_version(&image(place.0), &version(place.1)).await.map(drop), done) }
                    .boxed()
            }
            Operation::DeleteDraft(place) => {
                async move { said(engine.delete_draft(&image(place.0), &version(place.1)).await, done) }.boxed()
            }
            Operation::AddArtifact(place, format, content) => {
                let new = NewArtifact { blob: declared(content), ..artifact(format, b"") };
                async move { said(engine.add_artifact(&image(place.0), &version(place.1), new).await.map(drop), done) }
                    .boxed()
            }
            Operation::RemoveArtifact(place, format) => {
                let (id, _) = self.entry(place, format, "").await;
                async move { said(engine.remove_artifact(&image(place.0), &version(place.1), id).await, done) }.boxed()
            }
            Operation::AddAttachment(place, format, name, content) => {
                let (id, _) = self.entry(place, format, "").await;
                let new = NewAttachment { blob: declared(content), ..attachment(name, b"") };
                async move {
                    said(engine.add_attachment(&image(place.0), &version(place.1), id, new).await.map(drop), done)
                }
                .boxed()
            }
            Operation::RemoveAttachment(place, format, name) => {
                let (id, attached) = self.entry(place, format, name).await;
                async move {
                    said(engine.remove_attachment(&image(place.0), &version(place.1), id, attached).await, done)
                }
                .boxed()
            }
            Operation::Publish(place) => async move {
                let job = engine.publish_version(&image(place.0), &version(place.1)).await;
                said(job, |job| job.job.state().word().to_owned())
            }
            .boxed(),
            Operation::Retry(place, nth) => {
                let id = self.publish_job(place, nth).await;
                async move { said(engine.retry_job(id).await, |job| job.job.state().word().to_owned()) }.boxed()
            }
            Operation::Abandon(place, nth) => {
                let id = self.publish_job(place, nth).await;
                async move { said(engine.abandon_job(id).await, |job| job.job.state().word().to_owned()) }.boxed()
            }
            Operation::PutAlias(alias, place) => async move {
                let alias = alias.parse().expect("an alias");
                said(engine.put_alias(&image(place.0), &alias, &version(place.1)).await.map(drop), done)
            }
            .boxed(),
            Operation::DeleteAlias(name, alias) => {
                async move { said(engine.delete_alias(&image(name), &alias.parse().expect("an alias")).await, done) }
                    .boxed()
            }
            Operation::Plan => async move {
                let plan = engine.plan_sweep().await;
                let made = plan.as_ref().ok().map(|plan| Made::Plan(plan.id));
                let of =
                    |digest: &Digest| CONTENTS.iter().position(|content| content.0 == *digest).expect("one of ours");
                let words = |plan: imgsrv_core::model::SweepPlan| {
                    let blobs: Vec<_> = plan.blobs.iter().map(|blob| (of(&blob.digest), blob.action)).collect();
                    format!("{blobs:?}")
                };
                Done { made, ..said(plan, words) }
            }
            .boxed(),
            Operation::CarryOut { plan } => {
                let id = self.plans.get(&plan).copied().unwrap_or_else(|| self.f.clock.new_id().into());
                async move {
                    let plan = match engine.get_sweep_plan(id).await {
                        Ok(plan) => plan,
                        Err(err) => return said(Err(err), done),
                    };
                    said(engine.carry_out(&plan).await, |collected| {
                        let imgsrv_core::Collected { condemned, deleted, kept } = collected;
                        format!("condemned {condemned}, deleted {deleted}, kept {kept}")
                    })
                }
                .boxed()
            }
            Operation::Sweep => async move {
                said(engine.sweep().await, |swept| {
                    format!("expired {}, repaired {}", swept.uploads_expired, swept.blobs_repaired)
                })
            }
            .boxed(),
            Operation::Run => {
                async move { said(engine.run_until_idle().await, |ran| format!("ran {}", ran.jobs)) }.boxed()
            }
            Operation::Verify(content) => async move {
                said(engine.verify_blob(&CONTENTS[content].0).await, |verdict| match verdict {
                    Verdict::Whole => "whole".to_owned(),
                    Verdict::Missing => "missing".to_owned(),
                    Verdict::Different { .. } => "different".to_owned(),
                })
            }
            .boxed(),
            Operation::Read(content) => async move {
                let (digest, whole) = &CONTENTS[content];
                let bytes = match read(&engine, digest, None).await {
                    // The answer had begun; to whom it is given it is as if it had not.
                    Err(Error::Internal { what, .. }) if what == "the body broke off" => {
                        Err(Error::Unavailable { what: "blob", source: what.into() })
                    }
                    read => read,
                };
                said(bytes, |bytes| if bytes == *whole { "whole".to_owned() } else { "other bytes".to_owned() })
            }
            .boxed(),
            Operation::Harm(content, harm) => {
                self.harm(content, harm).await;
                std::future::ready(said(Ok(()), done)).boxed()
            }
            Operation::Wait(time) => {
                self.f.clock.advance(time);
                std::future::ready(said(Ok(()), done)).boxed()
            }
        }
    }

    async fn harm(&mut self, content: usize, harm: Harm) {
        let (digest, whole) = &CONTENTS[content];
        let objects = self.f.engine.blob_objects(digest).await.unwrap_or_default();
        let Some(object) = objects.first() else { return };
        let mut bytes = whole[object.offset as usize..(object.offset + object.size) as usize].to_vec();
        match harm {
            Harm::Lost => self.f.store.delete(&object.key).await.expect("an object less"),
            Harm::Rotten => {
                bytes[0] ^= 1;
                self.f.store.write(&object.key, bytes).await.map(drop).expect("other bytes");
            }
            Harm::Undone => self.f.store.write(&object.key, bytes).await.map(drop).expect("the bytes as they were"),
        }
        self.harmed.insert(object.key.clone(), harm);
    }

    /// Mends what the test has broken, ends what is under way, and lets every time pass.
    pub(super) async fn end(&mut self) {
        self.look().await;
        let mut last = Vec::new();
        for content in 0..CONTENTS.len() {
            last.extend([Operation::Harm(content, Harm::Undone), Operation::Verify(content)]);
        }
        let open = self.state.uploads.iter().filter(|upload| upload.1.is_open());
        last.extend(open.map(|(step, _)| Operation::Abort { upload: *step }));
        let wait = |time| [Operation::Wait(time), Operation::Run];
        last.extend(wait(chrono::TimeDelta::minutes(1)));
        last.extend([Operation::Wait(chrono::TimeDelta::hours(25)), Operation::Sweep, Operation::Run]);
        for operation in last {
            self.step += 2;
            self.one(0, &operation).await;
        }
        self.look().await;
        for node in &mut self.nodes {
            if let Some(runtime) = node.own.take() {
                let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20)));
                ended.await.expect("no panic");
            }
        }
        self.f.settled().await;
    }
}

/// Whether other operations can come in between: it is more than one transaction.
fn is_several_steps(operation: &Operation) -> bool {
    use Operation::{Begin, CarryOut, Put, Run, Sweep, Verify};
    matches!(operation, Begin { .. } | CarryOut { .. } | Put { .. } | Run | Sweep | Verify(_))
}

/// The parts as a client lists them.
fn refs(list: List, parts: &[(u16, Piece)]) -> Vec<PartRef> {
    let listed = |(at, piece): &(u16, Piece)| {
        let etag = if list == List::Stale { "of what was replaced" } else { piece.etag() };
        PartRef { number: number((*at).into()), etag: etag.to_owned(), size: piece.size() as u64 }
    };
    parts.iter().map(listed).collect()
}
