#![expect(clippy::struct_field_names, reason = "the members have the names of the wire contract")]

use std::collections::BTreeMap;

use imgsrv_core::model::{
    self, AliasId, AliasName, Architecture, ArtifactId, AttachmentId, AttachmentName, BlobRef, Digest, Format, ImageId,
    ImageName, MediaType, OperatingSystem, Prose, Variant, VersionId, VersionName, VersionState,
};
use poem_openapi::Object;

use crate::number::Size;
use crate::optional::Optional;
use crate::problem::Problem;
use crate::text::{Id, Plain, Text, Timestamp};

/// An image to be made.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct CreateImage {
    /// Its name, unique on the server.
    name: Text<ImageName>,
    /// What people call it.
    display_name: Optional<Text<Prose>>,
    /// What it is.
    description: Optional<Text<Prose>>,
}

impl From<CreateImage> for model::NewImage {
    fn from(create: CreateImage) -> Self {
        Self {
            name: create.name.0,
            display_name: create.display_name.0.map(|text| text.0),
            description: create.description.0.map(|text| text.0),
        }
    }
}

/// A namespace for versions.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Image {
    /// Its id.
    id: Id<ImageId>,
    /// Its name, unique on the server.
    name: Text<ImageName>,
    /// What people call it.
    display_name: Option<Text<Prose>>,
    /// What it is.
    description: Option<Text<Prose>>,
    /// When it was made.
    created_at: Timestamp,
    /// When a version was added to it or an alias of it last changed.
    updated_at: Timestamp,
}

impl From<model::Image> for Image {
    fn from(image: model::Image) -> Self {
        Self {
            id: Id(image.id),
            name: Text(image.name),
            display_name: image.display_name.map(Text),
            description: image.description.map(Text),
            created_at: image.created_at.into(),
            updated_at: image.updated_at.into(),
        }
    }
}

/// A version to be made.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct CreateVersion {
    /// Its name, unique in the image.
    pub(crate) version: Text<VersionName>,
}

/// The unit of release of an image.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Version {
    /// Its id.
    id: Id<VersionId>,
    /// The image that it is a version of.
    image_id: Id<ImageId>,
    /// Its name, unique in the image.
    version: Text<VersionName>,
    /// Where it stands.
    state: Text<VersionState>,
    /// When it was published.
    published_at: Option<Timestamp>,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

impl From<model::Version> for Version {
    fn from(version: model::Version) -> Self {
        Self {
            id: Id(version.id),
            image_id: Id(version.image_id),
            version: Text(version.version),
            state: Text(version.state),
            published_at: version.published_at.map(Into::into),
            created_at: version.created_at.into(),
            updated_at: version.updated_at.into(),
        }
    }
}

/// An artifact to be added to a draft. Its blob need not exist before the version is published.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct AddArtifact {
    /// Tells artifacts of one system and format apart; absent or empty means `default`.
    variant: Optional<Plain>,
    /// `linux`, `freebsd`, …
    operating_system: Text<OperatingSystem>,
    /// `amd64`, `arm64`, …
    architecture: Text<Architecture>,
    /// What the file is.
    format: Text<Format>,
    /// The SHA-256 of its bytes.
    primary_blob_digest: Text<Digest>,
    /// How many bytes.
    primary_blob_size_bytes: Size,
    /// What they are.
    primary_media_type: Text<MediaType>,
    /// What a host must offer, handed to Incus as `requirements`.
    requirements: Optional<BTreeMap<String, Plain>>,
}

impl TryFrom<AddArtifact> for model::NewArtifact {
    type Error = Problem;

    fn try_from(add: AddArtifact) -> Result<Self, Problem> {
        let variant = match add.variant.0 {
            Some(Plain(text)) if !text.is_empty() => {
                Variant::try_from(text).map_err(|rule| Problem::invalid("variant", rule.to_string()))?
            }
            _ => Variant::default_variant(),
        };
        let requirements = add.requirements.0.unwrap_or_default();
        Ok(Self {
            variant,
            operating_system: add.operating_system.0,
            architecture: add.architecture.0,
            format: add.format.0,
            blob: BlobRef {
                digest: add.primary_blob_digest.0,
                size: add.primary_blob_size_bytes.0,
                media_type: add.primary_media_type.0,
            },
            requirements: requirements.into_iter().map(|(name, Plain(value))| (name, value)).collect(),
        })
    }
}

/// One file of a version, unique by variant, operating system, architecture and format.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Artifact {
    /// Its id.
    id: Id<ArtifactId>,
    /// The version that it belongs to.
    version_id: Id<VersionId>,
    /// Tells artifacts of one system and format apart.
    variant: Text<Variant>,
    /// `linux`, `freebsd`, …
    operating_system: Text<OperatingSystem>,
    /// `amd64`, `arm64`, …
    architecture: Text<Architecture>,
    /// What the file is.
    format: Text<Format>,
    /// The SHA-256 of its bytes.
    primary_blob_digest: Text<Digest>,
    /// How many bytes.
    primary_blob_size_bytes: Size,
    /// What they are.
    primary_media_type: Text<MediaType>,
    /// What a host must offer, handed to Incus as `requirements`.
    requirements: Option<BTreeMap<String, String>>,
    /// When it was added.
    created_at: Timestamp,
    /// The same: an artifact does not change.
    updated_at: Timestamp,
}

impl From<model::Artifact> for Artifact {
    fn from(artifact: model::Artifact) -> Self {
        Self {
            id: Id(artifact.id),
            version_id: Id(artifact.version_id),
            variant: Text(artifact.variant),
            operating_system: Text(artifact.operating_system),
            architecture: Text(artifact.architecture),
            format: Text(artifact.format),
            primary_blob_digest: Text(artifact.blob.digest),
            primary_blob_size_bytes: Size(artifact.blob.size),
            primary_media_type: Text(artifact.blob.media_type),
            requirements: (!artifact.requirements.is_empty()).then_some(artifact.requirements),
            created_at: artifact.created_at.into(),
            updated_at: artifact.created_at.into(),
        }
    }
}

/// An attachment to be added to an artifact of a draft.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct AddAttachment {
    /// Unique in the artifact.
    name: Text<AttachmentName>,
    /// What the bytes are.
    media_type: Text<MediaType>,
    /// Their SHA-256.
    blob_digest: Text<Digest>,
    /// How many.
    blob_size_bytes: Size,
}

impl From<AddAttachment> for model::NewAttachment {
    fn from(add: AddAttachment) -> Self {
        Self {
            name: add.name.0,
            blob: BlobRef { digest: add.blob_digest.0, size: add.blob_size_bytes.0, media_type: add.media_type.0 },
        }
    }
}

/// A file that goes with an artifact.
#[derive(Debug, Object)]
pub(crate) struct Attachment {
    /// Its id.
    id: Id<AttachmentId>,
    /// The artifact that it goes with.
    artifact_id: Id<ArtifactId>,
    /// Unique in the artifact.
    name: Text<AttachmentName>,
    /// What the bytes are.
    media_type: Text<MediaType>,
    /// Their SHA-256.
    blob_digest: Text<Digest>,
    /// How many.
    blob_size_bytes: Size,
    /// When it was added.
    created_at: Timestamp,
    /// The same: an attachment does not change.
    updated_at: Timestamp,
}

impl From<model::Attachment> for Attachment {
    fn from(attachment: model::Attachment) -> Self {
        Self {
            id: Id(attachment.id),
            artifact_id: Id(attachment.artifact_id),
            name: Text(attachment.name),
            media_type: Text(attachment.blob.media_type),
            blob_digest: Text(attachment.blob.digest),
            blob_size_bytes: Size(attachment.blob.size),
            created_at: attachment.created_at.into(),
            updated_at: attachment.created_at.into(),
        }
    }
}

/// An artifact with what goes with it.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct ManifestEntry {
    artifact: Artifact,
    attachments: Vec<Attachment>,
    /// Why Incus is not told of it; for writers only.
    not_listed_reason: Option<String>,
}

/// Everything that a version is.
#[derive(Debug, Object)]
pub(crate) struct Manifest {
    image: Image,
    version: Version,
    artifacts: Vec<ManifestEntry>,
}

impl Manifest {
    /// A manifest, with the reasons for which Incus is not told of artifacts.
    pub(crate) fn new(manifest: model::Manifest, mut not_listed: BTreeMap<ArtifactId, String>) -> Self {
        Self {
            image: manifest.image.into(),
            version: manifest.version.into(),
            artifacts: manifest
                .artifacts
                .into_iter()
                .map(|entry| ManifestEntry {
                    not_listed_reason: not_listed.remove(&entry.artifact.id),
                    artifact: entry.artifact.into(),
                    attachments: entry.attachments.into_iter().map(Into::into).collect(),
                })
                .collect(),
        }
    }
}

/// Where an alias is to point.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct PutAlias {
    /// A published version of the image.
    pub(crate) version: Text<VersionName>,
}

/// A movable name that points at one published version.
#[derive(Debug, Object)]
pub(crate) struct Alias {
    /// Its id, which stays when it moves.
    id: Id<AliasId>,
    /// The image that it belongs to.
    image_id: Id<ImageId>,
    /// Its name, unique in the image.
    alias: Text<AliasName>,
    /// The version that it points at.
    version_id: Id<VersionId>,
    /// The name of that version.
    version: Text<VersionName>,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last moved.
    updated_at: Timestamp,
}

impl From<model::Alias> for Alias {
    fn from(alias: model::Alias) -> Self {
        Self {
            id: Id(alias.id),
            image_id: Id(alias.image_id),
            alias: Text(alias.alias),
            version_id: Id(alias.version_id),
            version: Text(alias.version),
            created_at: alias.created_at.into(),
            updated_at: alias.updated_at.into(),
        }
    }
}

list!(
    /// Images, or a page of them.
    Images { images: Image }
);
list!(
    /// Versions, or a page of them.
    Versions { versions: Version }
);
list!(
    /// Artifacts, or a page of them.
    Artifacts { artifacts: Artifact }
);
list!(
    /// Aliases, or a page of them.
    Aliases { aliases: Alias }
);
