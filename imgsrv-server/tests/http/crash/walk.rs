//! What the clients of a server do until it is killed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};

use super::content::Content;
use super::ledger::{
    Artifact, Cited, Name, Session, SessionAsked, SessionTold, Slot, Stored, Version, VersionAsked, VersionTold,
};
use super::life::{Cut, Life, Went};
use crate::server::{artifact, attachment, id, with};

const ALIASES: [&str; 2] = ["latest", "stable"];
const FORMATS: [&str; 2] = ["qcow2", "raw"];
const METADATA: &str = "incus.tar.xz";

/// A client, who has images of its own and writes down what it is told.
pub(super) struct Walker {
    pub(super) life: Life,
    pub(super) random: fastrand::Rng,
    /// What the names of its images begin with.
    pub(super) name: &'static str,
    /// The image at hand.
    image: String,
}

impl Walker {
    pub(super) fn new(life: &Life, random: &mut fastrand::Rng, name: &'static str) -> Self {
        Self { life: life.clone(), random: random.fork(), name, image: String::new() }
    }

    /// One thing after the other, until the server is gone.
    pub(super) async fn walk(mut self) {
        let mut cut = self.take_image().await.err();
        while cut != Some(Cut::Killed) {
            cut = self.step().await.err();
        }
    }

    async fn step(&mut self) -> Went<()> {
        match self.random.u32(..100) {
            0..60 => self.release().await,
            60..68 => self.give_up().await,
            68..76 => self.leave_open().await,
            76..84 => self.draft_for_nothing().await,
            84..92 => self.move_alias_back().await,
            92..97 => self.delete_alias().await,
            _ => self.take_image().await,
        }
    }

    /// A transfer that is under way for most of a life.
    pub(super) async fn trickle(mut self) {
        loop {
            let seed = self.seed();
            let kinds = [Content::small, Content::of_two_parts, Content::of_one_large_part];
            let content = self.random.choice(kinds).expect("kinds")(seed);
            if self.upload(content, true).await == Err(Cut::Killed) {
                return;
            }
        }
    }

    /// Turns to one of its images, or to a new one, and looks at the aliases: nobody else moves them.
    pub(super) async fn take_image(&mut self) -> Went<()> {
        let known: Vec<(String, bool)> = {
            let ledger = self.life.ledger.lock();
            let own = ledger.images.iter().filter(|(image, _)| image.starts_with(self.name));
            own.map(|(image, told)| (image.clone(), *told)).collect()
        };
        let known = if self.random.u32(..10) > 0 { self.random.choice(known) } else { None };
        let is_new = known.is_none();
        let (image, told) = known.unwrap_or_else(|| (format!("{}{:08x}", self.name, self.random.u32(..)), false));
        if !told {
            self.life.ledger.lock().images.insert(image.clone(), false);
            // The answer to one that was made may have been lost.
            let expected: &[u16] = if is_new { &[201] } else { &[201, 409] };
            self.life.post("/v1/images", &json!({"name": image}), expected).await?;
            self.life.ledger.lock().images.insert(image.clone(), true);
        }
        self.image = image;
        for alias in ALIASES {
            let path = format!("/v1/images/{}/aliases/{alias}", self.image);
            let answer = self.life.call(Method::GET, &path, &[200, 404]).await?;
            let found =
                (answer.status == 200).then(|| answer.json()["version"].as_str().expect("a version").to_owned());
            self.life.alias(&(self.image.clone(), alias.to_owned()), |known| {
                known.check(found.as_deref()).unwrap_or_else(|wrong| panic!("{path} {wrong}"));
                known.settle(found);
            });
        }
        Ok(())
    }

    fn seed(&mut self) -> u64 {
        self.random.u64(..)
    }

    /// Bytes that nobody has sent yet, or that are known by now.
    fn content(&mut self) -> Content {
        if self.random.u32(..5) == 0 {
            let known: Vec<Content> = self.life.ledger.lock().ready.values().copied().collect();
            if let Some(content) = self.random.choice(known) {
                return content;
            }
        }
        let seed = self.seed();
        match self.random.u32(..100) {
            0..80 => Content::small(seed),
            80..95 => Content::of_two_parts(seed),
            _ => Content::of_one_large_part(seed),
        }
    }

    async fn release(&mut self) -> Went<()> {
        let contents: Vec<Content> = (0..self.random.usize(1..=2)).map(|_| self.content()).collect();
        let metadata = self.random.bool().then(|| Content::small(self.random.u64(..)));
        let name = self.release_of(&contents, metadata).await?;
        let alias = self.random.choice(ALIASES).expect("aliases");
        self.point(alias, &name.1).await
    }

    /// Publishes a version with an artifact of each of these, and perhaps metadata for the first.
    pub(super) async fn release_of(&mut self, contents: &[Content], metadata: Option<Content>) -> Went<Name> {
        for content in contents.iter().copied().chain(metadata) {
            let slowly = self.random.u32(..4) == 0;
            self.upload(content, slowly).await?;
        }
        let name = self.new_version().await?;
        for (content, format) in contents.iter().zip(FORMATS) {
            self.add_artifact(&name, format, *content).await?;
        }
        if let Some(metadata) = metadata {
            self.attach(&name, metadata).await?;
        }
        self.publish(&name).await?;
        Ok(name)
    }

    /// Delivers a content, with what may happen on the way.
    pub(super) async fn upload(&mut self, content: Content, slowly: bool) -> Went<()> {
        let Some(id) = self.begin(content).await? else { return Ok(()) };
        let mut numbers: Vec<u32> = content.numbers().collect();
        if self.random.u32(..4) > 0 {
            numbers.reverse(); // so that a worker has something to do
        }
        if self.random.u32(..8) == 0 {
            self.send_part(&id, numbers[0], content.other(), slowly).await?;
        }
        if numbers.len() > 1 && self.random.bool() {
            let all = numbers.iter().map(|number| self.send_part(&id, *number, content, slowly));
            futures_util::future::try_join_all(all).await?;
        } else {
            for number in &numbers {
                self.send_part(&id, *number, content, slowly).await?;
            }
        }
        if self.random.u32(..8) == 0 {
            self.send_part(&id, numbers[0], content, slowly).await?;
        }
        self.complete(&id).await
    }

    /// Begins a session; `None` where the bytes are there.
    pub(super) async fn begin(&self, content: Content) -> Went<Option<String>> {
        let digest = content.digest();
        let known = self.life.ledger.lock().ready.contains_key(&digest);
        let promise = json!({"expected_digest": digest, "expected_size_bytes": content.size});
        let expires_at = self.life.expiry();
        let expected: &[u16] = if known { &[200] } else { &[200, 201] };
        let answer = self.life.post("/v1/uploads", &promise, expected).await?;
        let (id, is_ready) = (id(&answer.json()), answer.status == 200);
        let told = if is_ready { SessionTold::Ready } else { SessionTold::Open };
        let mut ledger = self.life.ledger.lock();
        ledger.sessions.insert(id.clone(), Session::new(content, told, expires_at, self.life.since));
        if is_ready {
            ledger.ready.insert(digest, content);
            return Ok(None);
        }
        Ok(Some(id))
    }

    pub(super) async fn send_part(&self, id: &str, number: u32, content: Content, slowly: bool) -> Went<()> {
        let bytes = content.part(number);
        let size = bytes.len() as u64;
        self.life.session(id, |session| session.parts.entry(number).or_default().tried.push(content));
        let expires_at = self.life.expiry();
        let body = if slowly { trickle(bytes) } else { bytes.into() };
        let request = self.life.request(Method::PUT, &format!("/v1/uploads/{id}/parts/{number}")).body(body);
        let part = self.life.send_in_time(id, request).await?;
        assert_eq!(part["size_bytes"], size, "{part}");
        let stored = Stored { etag: part["etag"].as_str().expect("an etag").to_owned(), size, content };
        self.life.session(id, |session| {
            session.parts.insert(number, Slot { told: Some(stored), tried: Vec::new() });
            session.expires_at = session.expires_at.max(expires_at);
        });
        Ok(())
    }

    /// Completes a session whose parts are all there, and waits until its bytes are.
    pub(super) async fn complete(&self, id: &str) -> Went<()> {
        let listed: Vec<Value> = {
            let ledger = self.life.ledger.lock();
            let parts = ledger.sessions[id].parts.iter();
            let told = parts.filter_map(|(number, slot)| Some((number, slot.told.as_ref()?)));
            told.map(|(number, part)| json!({"number": number, "etag": part.etag, "size_bytes": part.size})).collect()
        };
        self.life.session(id, |session| session.asked = Some(SessionAsked::Complete));
        let path = format!("/v1/uploads/{id}");
        let request = self.life.request(Method::POST, &format!("{path}/complete")).json(&json!({ "parts": listed }));
        let answer = self.life.send_in_time(id, request).await?;
        let state = answer["state"].as_str().expect("a state");
        assert!(["completed", "ingesting", "ready"].contains(&state), "{answer}");
        self.life.session(id, |session| session.told = SessionTold::Completed);
        let shown = self.life.wait_for(&path, &["ready", "failed", "aborted"]).await?;
        assert!(self.life.judge_session(id, &shown));
        Ok(())
    }

    /// A session that its client gives up in the middle.
    async fn give_up(&mut self) -> Went<()> {
        let content = Content::of_two_parts(self.seed());
        let Some(id) = self.begin(content).await? else { return Ok(()) };
        let number = self.random.u32(1..=2);
        self.send_part(&id, number, content, true).await?;
        self.abort(&id).await
    }

    pub(super) async fn abort(&self, id: &str) -> Went<()> {
        self.life.session(id, |session| session.asked = Some(SessionAsked::Abort));
        let answer = self.life.call(Method::POST, &format!("/v1/uploads/{id}/abort"), &[200]).await?.json();
        assert_eq!(answer["state"], "aborted", "{answer}");
        self.life.session(id, |session| session.end(SessionTold::Aborted));
        Ok(())
    }

    /// A session that nobody comes back to in this life.
    async fn leave_open(&mut self) -> Went<()> {
        let content = Content::of_two_parts(self.seed());
        let Some(id) = self.begin(content).await? else { return Ok(()) };
        let number = self.random.u32(1..=2);
        let first = if self.random.bool() { content.other() } else { content };
        self.send_part(&id, number, first, false).await?;
        if self.random.bool() { self.send_part(&id, number, content, false).await } else { Ok(()) }
    }

    pub(super) async fn new_version(&mut self) -> Went<Name> {
        let name = (self.image.clone(), format!("v{:012x}", self.random.u64(..1 << 48)));
        self.life.ledger.lock().versions.insert(name.clone(), Version::new(self.life.since));
        let path = format!("/v1/images/{}/versions", name.0);
        self.life.post(&path, &json!({"version": name.1}), &[201]).await?;
        self.life.version(&name, |version| (version.told, version.asked) = (VersionTold::Draft, None));
        Ok(name)
    }

    pub(super) async fn add_artifact(&self, name: &Name, format: &str, content: Content) -> Went<()> {
        let size = content.size as u64;
        let own = Cited { name: format.to_owned(), digest: content.digest(), size, id: None };
        let new = json!({
            "format": format, "primary_blob_digest": own.digest, "primary_blob_size_bytes": size,
        });
        self.life.version(name, |version| version.artifacts.push(Artifact { own, attachments: Vec::new() }));
        let added = self.life.post(&format!("{}/artifacts", path(name)), &artifact(&[], new), &[201]).await?.json();
        self.life.version(name, |version| {
            version.artifacts.last_mut().expect("an artifact").own.id = Some(id(&added));
        });
        Ok(())
    }

    /// Attaches metadata to the first artifact.
    pub(super) async fn attach(&self, name: &Name, content: Content) -> Went<()> {
        let size = content.size as u64;
        let cited = Cited { name: METADATA.to_owned(), digest: content.digest(), size, id: None };
        let new = json!({"blob_digest": cited.digest, "blob_size_bytes": size});
        let artifact = self.life.version(name, |version| {
            version.artifacts[0].attachments.push(cited);
            version.artifacts[0].own.id.clone().expect("an acknowledged artifact")
        });
        let attachments = format!("{}/artifacts/{artifact}/attachments", path(name));
        let new = with(attachment(METADATA, "application/x-xz", &[]), new);
        let added = self.life.post(&attachments, &new, &[201]).await?.json();
        self.life.version(name, |version| {
            version.artifacts[0].attachments.last_mut().expect("an attachment").id = Some(id(&added));
        });
        Ok(())
    }

    pub(super) async fn publish(&self, name: &Name) -> Went<()> {
        self.life.version(name, |version| version.asked = Some(VersionAsked::Publish));
        let job = id(&self.life.call(Method::POST, &format!("{}/publish", path(name)), &[202]).await?.json());
        self.life.version(name, |version| {
            (version.told, version.asked, version.job) = (VersionTold::Publishing, None, Some(job.clone()));
        });
        let path = format!("/v1/publish-jobs/{job}");
        while !self.life.judge_job(name, &self.life.wait_for(&path, &["succeeded", "failed"]).await?).await? {}
        Ok(())
    }

    /// A draft with a little in it that is deleted.
    async fn draft_for_nothing(&mut self) -> Went<()> {
        let name = self.new_version().await?;
        let content = self.content();
        self.add_artifact(&name, FORMATS[0], content).await?;
        if self.random.bool() {
            self.attach(&name, content).await?;
        }
        self.delete_draft(&name).await
    }

    pub(super) async fn delete_draft(&self, name: &Name) -> Went<()> {
        self.life.version(name, |version| version.asked = Some(VersionAsked::Delete));
        self.life.call(Method::DELETE, &path(name), &[204]).await?;
        self.life.version(name, |version| version.end(VersionTold::Deleted));
        Ok(())
    }

    /// Points an alias at a version of this image that was published before.
    async fn move_alias_back(&mut self) -> Went<()> {
        let published: Vec<String> = {
            let ledger = self.life.ledger.lock();
            let own = ledger.versions.range((self.image.clone(), String::new())..);
            let own = own.take_while(|((image, _), _)| *image == self.image);
            own.filter(|(_, version)| version.told == VersionTold::Published).map(|(name, _)| name.1.clone()).collect()
        };
        let Some(version) = self.random.choice(published) else { return Ok(()) };
        let alias = self.random.choice(ALIASES).expect("aliases");
        self.point(alias, &version).await
    }

    pub(super) async fn point(&self, alias: &str, version: &str) -> Went<()> {
        let name = (self.image.clone(), alias.to_owned());
        self.life.alias(&name, |alias| alias.asked.push(Some(version.to_owned())));
        let path = format!("/v1/images/{}/aliases/{alias}", self.image);
        let request = self.life.request(Method::PUT, &path).json(&json!({ "version": version }));
        let shown = self.life.send(request, &[200]).await?.json();
        assert_eq!(shown["version"], version, "{shown}");
        self.life.alias(&name, |alias| alias.settle(Some(version.to_owned())));
        Ok(())
    }

    async fn delete_alias(&mut self) -> Went<()> {
        let alias = self.random.choice(ALIASES).expect("aliases");
        self.delete_alias_of(alias).await
    }

    pub(super) async fn delete_alias_of(&self, alias: &str) -> Went<()> {
        let name = (self.image.clone(), alias.to_owned());
        let is_there = self.life.alias(&name, |alias| {
            alias.asked.push(None);
            alias.told.is_some()
        });
        let expected = if is_there { 204 } else { 404 };
        self.life.call(Method::DELETE, &format!("/v1/images/{}/aliases/{alias}", self.image), &[expected]).await?;
        self.life.alias(&name, |alias| alias.settle(None));
        Ok(())
    }
}

pub(super) fn path((image, version): &Name) -> String {
    format!("/v1/images/{image}/versions/{version}")
}

/// A body that takes its time, most of it for its end, so that a kill finds it under way.
fn trickle(bytes: Bytes) -> Body {
    let size = bytes.len().div_ceil(16).max(16 << 10);
    let starts: Vec<usize> = (0..bytes.len()).step_by(size).collect();
    Body::wrap_stream(stream::iter(starts).then(move |start| {
        let (piece, is_last) = (bytes.slice(start..bytes.len().min(start + size)), start + size >= bytes.len());
        async move {
            tokio::time::sleep(Duration::from_millis(if is_last { 50 } else { 4 })).await;
            Ok::<_, std::io::Error>(piece)
        }
    }))
}
