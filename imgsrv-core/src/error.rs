//! What can go wrong, told apart only where some caller acts differently.

use std::collections::BTreeSet;
use std::fmt;

use crate::model::{
    AliasName, ArtifactId, AttachmentId, AttachmentName, Digest, ImageName, InvalidText, JobId, Reference, SweepPlanId,
    UploadId, VersionName,
};

/// Any error, for a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the engine answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such thing, or the caller may not know of it.
    #[error("{0} not found")]
    NotFound(Resource),
    /// Its name is taken.
    #[error("{0} already exists")]
    AlreadyExists(Resource),
    /// A value that the caller can mend.
    #[error("{what}: {reason}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// The rule that it breaks.
        reason: String,
    },
    /// The state or the content of something does not allow it.
    #[error("{reason}")]
    Precondition {
        /// Which kind of precondition.
        condition: Condition,
        /// What is so, and what would have to be.
        reason: String,
        /// The members of the request that it is about.
        errors: Vec<FieldError>,
    },
    /// The store has no room. What was there before is untouched; try again when there is.
    #[error("the store is full")]
    StorageFull,
    /// The database or the store did not answer; try again later.
    #[error("{what} is unavailable")]
    Unavailable {
        /// `database`, `store`.
        what: &'static str,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A bug, or data that is corrupt.
    #[error("internal error: {what}")]
    Internal {
        /// Where: the operation, table or object kind.
        what: String,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
}

impl Error {
    /// The stable slug of the error; part of the API for ever.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not-found",
            Self::AlreadyExists(_) => "already-exists",
            Self::Invalid { .. } => "invalid",
            Self::Precondition { condition, .. } => condition.slug(),
            Self::StorageFull => "storage-full",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal { .. } => "internal",
        }
    }

    /// Whether the same call may succeed later, with nothing changed by the caller.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::StorageFull | Self::Unavailable { .. } | Self::Internal { .. })
    }

    /// A precondition that does not hold.
    pub fn precondition(condition: Condition, reason: impl Into<String>) -> Self {
        Self::Precondition { condition, reason: reason.into(), errors: Vec::new() }
    }

    /// Somebody else changed a thing between two looks at it; the same call decides it when it is made again.
    pub(crate) fn changed_meanwhile(what: &'static str) -> Self {
        Self::Unavailable { what, source: "it changed meanwhile".into() }
    }

    /// An internal error without a source: something that cannot be was found.
    pub fn bug(what: impl Into<String>) -> Self {
        Self::Internal { what: what.into(), source: None }
    }

    /// An internal error with its source.
    pub fn internal(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Internal { what: what.into(), source: Some(source.into()) }
    }

    /// The error with all its sources, for a log.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// Refuses names of which two are the same.
pub(crate) fn unique(what: &'static str, names: impl IntoIterator<Item = &'static str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(Error::Invalid { what, reason: format!("two have the name {twice}") }),
        None => Ok(()),
    }
}

/// Any error with all its sources.
pub(crate) fn chain(err: &(dyn std::error::Error + 'static)) -> String {
    let causes: Vec<String> = std::iter::successors(Some(err), |err| err.source()).map(ToString::to_string).collect();
    causes.join(": ")
}

impl From<InvalidText> for Error {
    fn from(invalid: InvalidText) -> Self {
        Self::Invalid { what: invalid.what, reason: invalid.rule() }
    }
}

/// Which precondition does not hold. Its slug is part of the API for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The thing is in another state.
    WrongState,
    /// The upload session is past its time.
    Expired,
    /// The bytes have another digest.
    DigestMismatch,
    /// The bytes are more or fewer.
    SizeMismatch,
    /// A listed part is not the stored one.
    PartMismatch,
    /// The version lacks something that a published one needs.
    NotPublishable,
    /// There is something in it.
    NotEmpty,
    /// Nobody could manage the server any more.
    LastManager,
}

impl Condition {
    /// Every condition.
    pub const ALL: &'static [Self] = &[
        Self::WrongState,
        Self::Expired,
        Self::DigestMismatch,
        Self::SizeMismatch,
        Self::PartMismatch,
        Self::NotPublishable,
        Self::NotEmpty,
        Self::LastManager,
    ];

    /// Its slug.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::WrongState => "wrong-state",
            Self::Expired => "expired",
            Self::DigestMismatch => "digest-mismatch",
            Self::SizeMismatch => "size-mismatch",
            Self::PartMismatch => "part-mismatch",
            Self::NotPublishable => "not-publishable",
            Self::NotEmpty => "not-empty",
            Self::LastManager => "last-manager",
        }
    }
}

/// A member of a request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where, as a path: `parts/3/etag`, `artifacts/<id>/primary_blob_digest`.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

/// Something that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants are the things")]
pub enum Resource {
    Image(ImageName),
    Version(ImageName, VersionName),
    Reference(ImageName, Reference),
    Alias(ImageName, AliasName),
    Artifact(ArtifactId),
    /// An artifact by what makes it unique, in words.
    ArtifactLike(String),
    Attachment(AttachmentId),
    AttachmentNamed(ArtifactId, AttachmentName),
    Upload(UploadId),
    Blob(Digest),
    Job(JobId),
    SweepPlan(SweepPlanId),
    /// A thing of an embedder: its kind and its id.
    Other(&'static str, String),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(name) => write!(f, "image {name}"),
            Self::Version(image, version) => write!(f, "version {version} of image {image}"),
            Self::Reference(image, reference) => write!(f, "version or alias {reference} of image {image}"),
            Self::Alias(image, alias) => write!(f, "alias {alias} of image {image}"),
            Self::Artifact(id) => write!(f, "artifact {id}"),
            Self::ArtifactLike(key) => write!(f, "an artifact with {key}"),
            Self::Attachment(id) => write!(f, "attachment {id}"),
            Self::AttachmentNamed(artifact, name) => write!(f, "attachment {name} of artifact {artifact}"),
            Self::Upload(id) => write!(f, "upload {id}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Job(id) => write!(f, "job {id}"),
            Self::SweepPlan(id) => write!(f, "plan {id}"),
            Self::Other(kind, id) => write!(f, "{kind} {id}"),
        }
    }
}
