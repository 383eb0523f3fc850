//! Images, versions, artifacts, attachments and aliases.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::text::words;
use super::{
    AliasId, AliasName, Architecture, ArtifactId, AttachmentId, AttachmentName, Digest, Format, ImageId, ImageName,
    InvalidTransition, MediaType, OperatingSystem, Prose, Variant, VersionId, VersionName,
};

/// An image to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// Its name, unique on the server.
    pub name: ImageName,
    /// What people call it.
    pub display_name: Option<Prose>,
    /// What it is.
    pub description: Option<Prose>,
}

/// A namespace for versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its name, unique on the server.
    pub name: ImageName,
    /// What people call it.
    pub display_name: Option<Prose>,
    /// What it is.
    pub description: Option<Prose>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When a version was added to it or an alias of it last changed.
    pub updated_at: DateTime<Utc>,
}

words!(
    /// Where a version stands.
    VersionState, "version state", {
        /// Can be edited; only writers see it.
        Draft = "draft",
        /// Frozen while a publish job runs.
        Publishing = "publishing",
        /// Immutable for ever.
        Published = "published",
    }
);

/// What can happen to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionEvent {
    /// An artifact or attachment was added or removed.
    Edited,
    /// Somebody asked to publish it.
    PublishRequested,
    /// Its publish job succeeded.
    Published,
    /// Its publish job was abandoned.
    Abandoned,
}

impl VersionEvent {
    /// Every event.
    pub const ALL: &'static [Self] = &[Self::Edited, Self::PublishRequested, Self::Published, Self::Abandoned];

    /// The state in which it may happen.
    pub const fn source(self) -> VersionState {
        match self {
            Self::Edited | Self::PublishRequested => VersionState::Draft,
            Self::Published | Self::Abandoned => VersionState::Publishing,
        }
    }

    /// The state that it leads to.
    pub const fn target(self) -> VersionState {
        match self {
            Self::Edited | Self::Abandoned => VersionState::Draft,
            Self::PublishRequested => VersionState::Publishing,
            Self::Published => VersionState::Published,
        }
    }
}

impl VersionState {
    /// The state after `event`.
    ///
    /// # Errors
    /// When the event may not happen in this state.
    pub fn after(self, event: VersionEvent) -> Result<Self, InvalidTransition> {
        if event.source() == self {
            Ok(event.target())
        } else {
            Err(InvalidTransition { what: "version", state: self.word() })
        }
    }
}

/// Which versions a reader may know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Published ones only: what everybody may read.
    Published,
    /// All, drafts included: what those see who may write.
    All,
}

/// The unit of release of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// The image that it is a version of.
    pub image_id: ImageId,
    /// Its name, unique in the image.
    pub version: VersionName,
    /// Where it stands.
    pub state: VersionState,
    /// When it was published.
    pub published_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// Bytes that the catalogue cites: they need not exist before the version is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// Their SHA-256.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// What they are.
    pub media_type: MediaType,
}

/// An artifact to be added to a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewArtifact {
    /// Tells artifacts of one system and format apart.
    pub variant: Variant,
    /// `linux`, `freebsd`, …
    pub operating_system: OperatingSystem,
    /// `amd64`, `arm64`, …
    pub architecture: Architecture,
    /// What the file is.
    pub format: Format,
    /// Its bytes.
    pub blob: BlobRef,
    /// What a host must offer, handed to Incus as `requirements`.
    pub requirements: BTreeMap<String, String>,
}

/// One file of a version, unique by variant, operating system, architecture and format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its id.
    pub id: ArtifactId,
    /// The version that it belongs to.
    pub version_id: VersionId,
    /// Tells artifacts of one system and format apart.
    pub variant: Variant,
    /// `linux`, `freebsd`, …
    pub operating_system: OperatingSystem,
    /// `amd64`, `arm64`, …
    pub architecture: Architecture,
    /// What the file is.
    pub format: Format,
    /// Its bytes.
    pub blob: BlobRef,
    /// What a host must offer, handed to Incus as `requirements`.
    pub requirements: BTreeMap<String, String>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// An attachment to be added to an artifact of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttachment {
    /// Unique in the artifact.
    pub name: AttachmentName,
    /// Its bytes.
    pub blob: BlobRef,
}

/// A file that goes with an artifact: metadata, a signature, a list of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// The artifact that it goes with.
    pub artifact_id: ArtifactId,
    /// Unique in the artifact.
    pub name: AttachmentName,
    /// Its bytes.
    pub blob: BlobRef,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// An artifact with its attachments, ordered by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactEntry {
    /// The artifact.
    pub artifact: Artifact,
    /// What goes with it.
    pub attachments: Vec<Attachment>,
}

/// Everything that a version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The image.
    pub image: Image,
    /// The version.
    pub version: Version,
    /// Its artifacts in the order in which they were added.
    pub artifacts: Vec<ArtifactEntry>,
}

/// A movable name that points at one published version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Its id, which stays when it moves.
    pub id: AliasId,
    /// The image that it belongs to.
    pub image_id: ImageId,
    /// Its name, unique in the image.
    pub alias: AliasName,
    /// The version that it points at.
    pub version_id: VersionId,
    /// The name of that version.
    pub version: VersionName,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last moved.
    pub updated_at: DateTime<Utc>,
}
