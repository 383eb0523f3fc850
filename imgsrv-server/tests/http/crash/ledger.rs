//! What the server has acknowledged, and what it was asked for and may have done. Whoever finds out what is there, be it
//! through the API or in the database, asks here whether that can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};

use super::content::Content;

/// A job that so many workers in a row did not come back from is given up, and rightly.
const CRASH_LOOP: u32 = 5;

/// What is wrong with something that was found.
pub(super) type Wrong = String;

#[derive(Default)]
pub(super) struct Ledger {
    /// How many servers were killed.
    pub(super) kills: u32,
    /// Sessions by id.
    pub(super) sessions: BTreeMap<String, Session>,
    /// Images by name: whether they were acknowledged.
    pub(super) images: BTreeMap<String, bool>,
    /// Versions by the names of image and version.
    pub(super) versions: BTreeMap<Name, Version>,
    /// Aliases by the names of image and alias.
    pub(super) aliases: BTreeMap<Name, Alias>,
    /// Contents of which it was told that they are there, by digest.
    pub(super) ready: BTreeMap<String, Content>,
}

impl Ledger {
    pub(super) fn summary(&self) -> String {
        let sessions = |told| self.sessions.values().filter(|session| session.told == told).count();
        let [open, ready, aborted] = [SessionTold::Open, SessionTold::Ready, SessionTold::Aborted].map(sessions);
        let versions = |told| self.versions.values().filter(|version| version.told == told).count();
        let [drafts, published, deleted] =
            [VersionTold::Draft, VersionTold::Published, VersionTold::Deleted].map(versions);
        format!(
            "{} sessions: {ready} ready, {aborted} aborted, {open} open; \
             {} versions: {published} published, {deleted} deleted, {drafts} drafts; {} aliases",
            self.sessions.len(),
            self.versions.len(),
            self.aliases.len()
        )
    }
}

/// A name in an image, and that image's.
pub(super) type Name = (String, String);

#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().expect("no panic")
    }
}

/// A session, and whether somebody still cares for it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) content: Content,
    pub(super) digest: String,
    /// Each part that was ever sent.
    pub(super) parts: BTreeMap<u32, Slot>,
    pub(super) told: SessionTold,
    pub(super) asked: Option<SessionAsked>,
    /// No earlier it expires.
    pub(super) expires_at: DateTime<Utc>,
    /// After which kill it was begun.
    pub(super) since: u32,
    pub(super) settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionTold {
    Open,
    Completed,
    Ready,
    Failed,
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionAsked {
    Complete,
    Abort,
}

/// A part as it was last acknowledged, and the contents that were sent for it since.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) told: Option<Stored>,
    pub(super) tried: Vec<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) content: Content,
}

impl Session {
    pub(super) fn new(content: Content, told: SessionTold, expires_at: DateTime<Utc>, since: u32) -> Self {
        let settled = told == SessionTold::Ready;
        let digest = content.digest();
        Self { content, digest, parts: BTreeMap::new(), told, asked: None, expires_at, since, settled }
    }

    /// Whether it can be in this state, for this reason.
    pub(super) fn check(&self, state: &str, reason: Option<&str>, kills: u32, now: DateTime<Utc>) -> Result<(), Wrong> {
        let crash_loop = reason.is_some_and(|reason| reason.starts_with("crash-loop"));
        let given_up = state == "failed" && crash_loop && kills >= self.since + CRASH_LOOP;
        let has_parts = self.parts.values().any(|slot| slot.told.is_some());
        let was_sent = self.parts.values().any(|slot| slot.told.is_some() || !slot.tried.is_empty());
        let can_be = match self.told {
            SessionTold::Ready => state == "ready",
            SessionTold::Aborted => state == "aborted",
            SessionTold::Failed => state == "failed",
            SessionTold::Completed => given_up || ["completed", "ingesting", "ready"].contains(&state),
            SessionTold::Open => match (state, self.asked) {
                ("created", _) => !has_parts,
                ("uploading", _) => was_sent,
                ("completed" | "ingesting" | "ready", Some(SessionAsked::Complete))
                | ("aborted", Some(SessionAsked::Abort)) => true,
                ("failed", Some(SessionAsked::Complete)) => given_up,
                ("aborted", _) => self.expires_at <= now,
                _ => false,
            },
        };
        if can_be { Ok(()) } else { Err(format!("is {state} ({reason:?}) at {now}, but {self:?}")) }
    }

    /// Whether this is what can be stored of the session's parts; the etag and the size of each.
    pub(super) fn check_parts(&self, stored: &BTreeMap<u32, (String, u64)>) -> Result<(), Wrong> {
        for (number, slot) in &self.parts {
            let found = stored.get(number);
            let can_be = match (&slot.told, found) {
                (Some(told), Some((etag, size))) => {
                    (etag, *size) == (&told.etag, told.size) || (!slot.tried.is_empty() && *size == told.size)
                }
                (Some(_), None) => false,
                (None, Some(_)) => !slot.tried.is_empty(),
                (None, None) => true,
            };
            if !can_be {
                return Err(format!("part {number} was acknowledged: {slot:?}, but there is {found:?}"));
            }
        }
        match stored.keys().find(|number| !self.parts.contains_key(number)) {
            Some(number) => Err(format!("part {number} was never sent")),
            None => Ok(()),
        }
    }

    /// The contents of which a stored part may be.
    pub(super) fn contents_of(&self, number: u32) -> Vec<Content> {
        let slot = self.parts.get(&number).cloned().unwrap_or_default();
        slot.told.map(|told| told.content).into_iter().chain(slot.tried).collect()
    }

    /// The last word on it was said.
    pub(super) fn end(&mut self, told: SessionTold) {
        (self.told, self.asked, self.settled) = (told, None, true);
    }
}

/// A version and what was put into it.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) told: VersionTold,
    pub(super) asked: Option<VersionAsked>,
    pub(super) artifacts: Vec<Artifact>,
    /// The job that publishes it.
    pub(super) job: Option<String>,
    pub(super) since: u32,
    pub(super) settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionTold {
    Nothing,
    Draft,
    Publishing,
    Published,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionAsked {
    Create,
    Publish,
    Delete,
}

/// Something that cites bytes, and its id once it was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Cited {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) id: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Artifact {
    /// Its name is its format.
    pub(super) own: Cited,
    pub(super) attachments: Vec<Cited>,
}

/// A version as it was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) state: Option<String>,
    /// Name, digest and size of each artifact, and of those attached to it.
    pub(super) artifacts: Vec<(SeenBytes, Vec<SeenBytes>)>,
}

pub(super) type SeenBytes = (String, String, u64);

impl Cited {
    fn is(&self, seen: &SeenBytes) -> bool {
        (&self.name, &self.digest, self.size) == (&seen.0, &seen.1, seen.2)
    }
}

impl Version {
    pub(super) fn new(since: u32) -> Self {
        let (told, asked) = (VersionTold::Nothing, Some(VersionAsked::Create));
        Self { told, asked, artifacts: Vec::new(), job: None, since, settled: false }
    }

    /// Whether this can be found.
    pub(super) fn check(&self, seen: &Seen) -> Result<(), Wrong> {
        let state = seen.state.as_deref();
        let can_be = match self.told {
            VersionTold::Nothing => matches!(state, None | Some("draft")),
            VersionTold::Draft => match self.asked {
                Some(VersionAsked::Publish) => matches!(state, Some("draft" | "publishing" | "published")),
                Some(VersionAsked::Delete) => matches!(state, None | Some("draft")),
                _ => state == Some("draft"),
            },
            VersionTold::Publishing => matches!(state, Some("publishing" | "published")),
            VersionTold::Published => state == Some("published"),
            VersionTold::Deleted => state.is_none(),
        };
        if !can_be {
            return Err(format!("is {state:?}, but {self:?}"));
        }
        if state.is_some() { self.check_artifacts(seen) } else { Ok(()) }
    }

    /// What was acknowledged is there, and nothing that was never asked for.
    fn check_artifacts(&self, seen: &Seen) -> Result<(), Wrong> {
        let wrong = || Err(format!("has {:?}, but {self:?}", seen.artifacts));
        let known = seen.artifacts.iter().all(|(own, _)| self.artifacts.iter().any(|artifact| artifact.own.is(own)));
        if !known {
            return wrong();
        }
        for artifact in &self.artifacts {
            let Some((_, attached)) = seen.artifacts.iter().find(|(own, _)| artifact.own.is(own)) else {
                if artifact.own.id.is_some() {
                    return wrong();
                }
                continue;
            };
            let known = attached.iter().all(|seen| artifact.attachments.iter().any(|cited| cited.is(seen)));
            let mut told = artifact.attachments.iter().filter(|cited| cited.id.is_some());
            if !known || !told.all(|cited| attached.iter().any(|seen| cited.is(seen))) {
                return wrong();
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self, told: VersionTold) {
        (self.told, self.asked, self.settled) = (told, None, true);
    }

    /// Whether its job may have ended in this way.
    pub(super) fn may_fail(&self, message: &str, kills: u32) -> bool {
        message.starts_with("crash-loop") && kills >= self.since + CRASH_LOOP
    }
}

/// Where an alias points; `None` where there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Alias {
    pub(super) told: Option<String>,
    /// Where it may have been moved since.
    pub(super) asked: Vec<Option<String>>,
}

impl Alias {
    pub(super) fn check(&self, found: Option<&str>) -> Result<(), Wrong> {
        let asked = self.asked.iter().any(|asked| found == asked.as_deref());
        if asked || found == self.told.as_deref() { Ok(()) } else { Err(format!("points at {found:?}, but {self:?}")) }
    }

    /// It is known to point there.
    pub(super) fn settle(&mut self, found: Option<String>) {
        *self = Self { told: found, asked: Vec::new() };
    }
}
