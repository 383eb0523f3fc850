//! Identifiers. All come from the [`Clock`](crate::Clock): version 7 UUIDs, which sort by time, except where knowing an
//! id is a capability.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            sea_orm::DeriveValueType, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }
    };
}

id!(
    /// An upload session. A version 4 UUID: whoever knows it may read the session's state without a token.
    UploadId
);
id!(
    /// An image.
    ImageId
);
id!(
    /// A version of an image.
    VersionId
);
id!(
    /// A plan of what to collect.
    SweepPlanId
);
id!(
    /// An artifact of a version.
    ArtifactId
);
id!(
    /// An attachment of an artifact.
    AttachmentId
);
id!(
    /// An alias; it keeps its id when it moves.
    AliasId
);
id!(
    /// A job.
    JobId
);
id!(
    /// A step of a publish job.
    StepId
);
id!(
    /// A row of the event table.
    EventId
);
id!(
    /// The token of one claim of a job; a holder whose token is no longer the job's has lost it.
    Lease
);
