//! The plain model: values that parse once, states with pure transitions, and the things that they describe.
//!
//! Nothing here is async, queries or does IO. The one concession to the database is that values and states know how to
//! stand in a column, so that a corrupt row is an error that names its source rather than a wrong answer.

mod blob;
mod catalog;
mod digest;
mod directory;
mod event;
mod id;
pub mod incus;
mod job;
mod name;
mod nul;
mod page;
mod part;
mod published;
mod sweep;
mod text;
mod upload;

pub use blob::{Blob, BlobState};
pub use catalog::{
    Alias, Artifact, ArtifactEntry, Attachment, BlobRef, Image, Manifest, NewArtifact, NewAttachment, NewImage, Scope,
    Version, VersionEvent, VersionState,
};
pub use digest::{Digest, HashChain};
pub use directory::{DIRECTORIES, NamedFile, file_name, named_files};
pub use event::{Actor, Event, Subject};
pub use id::{
    AliasId, ArtifactId, AttachmentId, EventId, ImageId, JobId, Lease, StepId, SweepPlanId, UploadId, VersionId,
};
pub use job::{Job, JobKind, JobOutcome, JobState, PublishJob, Step, StepState};
pub use name::{
    AliasName, Architecture, AttachmentName, FileName, Format, ImageName, MediaType, NameInDirectory, OperatingSystem,
    Prose, Reference, Variant, VersionName,
};
pub use nul::has_nul;
pub(crate) use nul::without_nul;
pub use page::{Cursor, Page, Paged};
pub use part::{Etag, Part, PartNumber, PartRef};
pub use published::{Catalog, Outputs, PublishedImage, PublishedVersion};
pub use sweep::{PlannedBlob, SweepAction, SweepPlan};
pub(crate) use text::words;
pub use text::{InvalidText, Text};
pub use upload::{NewUpload, Upload, UploadEvent, UploadFilter, UploadState};

/// A state that did not allow what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {state}")]
pub struct InvalidTransition {
    /// What has the state: `upload`, `version`.
    pub what: &'static str,
    /// The state that it is in.
    pub state: &'static str,
}
