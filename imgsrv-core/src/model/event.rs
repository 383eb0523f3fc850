//! Who did what, when.

use chrono::{DateTime, Utc};

use super::EventId;
use super::text::{text, words};

text!(
    /// Whoever causes a change: `principal:<id>` for clients of the server, `system:<what>` for the engine itself,
    /// or what an embedder likes.
    Actor, "actor", r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,255}$", "principal:018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11"
);

impl Actor {
    /// The engine acting by itself: expiry, workers.
    pub fn system() -> Self {
        "system:engine".parse().expect("a constant that follows the rule")
    }
}

words!(
    /// What kind of thing an event is about.
    Subject, "subject", {
        /// An upload session.
        Upload = "upload",
        /// A blob.
        Blob = "blob",
        /// An image.
        Image = "image",
        /// A version.
        Version = "version",
        /// An artifact.
        Artifact = "artifact",
        /// An attachment.
        Attachment = "attachment",
        /// An alias.
        Alias = "alias",
        /// A job.
        Job = "job",
        /// Somebody who can hold tokens.
        Principal = "principal",
        /// A token.
        Token = "token",
    }
);

/// One change, written in the transaction that made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id. Ids are not in the order of commits: never use one as a cursor.
    pub id: EventId,
    /// When the change was made.
    pub at: DateTime<Utc>,
    /// Who made it.
    pub actor: Actor,
    /// What kind of thing changed.
    pub subject: Subject,
    /// Which one.
    pub subject_id: String,
    /// What it was called then, where ids alone would tell nothing once it is deleted: `debian`, `debian/13.1` (a version,
    /// and what is in it), `debian/latest` (an alias).
    pub subject_name: Option<String>,
    /// What happened to it, a verb in the past: `created`, `published`, `moved`.
    pub what: String,
    /// The state or value before.
    pub from: Option<String>,
    /// The state or value after.
    pub to: Option<String>,
}
