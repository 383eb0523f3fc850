use imgsrv_core::model::{
    self, AliasName, ArtifactId, AttachmentId, Digest, ImageName, MediaType, NamedFile, Reference, VersionName,
};
use poem_openapi::Object;
use poem_openapi::types::ToJSON;

use crate::number::Size;
use crate::text::{Id, Text};

/// The files of a version.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Directory {
    /// The image.
    image: Text<ImageName>,
    /// The version.
    version: Text<VersionName>,
    /// The alias by which it was asked for.
    alias: Option<Text<AliasName>>,
    /// Its files: each artifact before what is attached to it. `SHA256SUMS` lists the same.
    files: Vec<DirectoryFile>,
}

/// A file of a version.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct DirectoryFile {
    /// Its name; `./` and the name is its URL, relative to the directory's.
    name: String,
    /// How many bytes.
    size_bytes: Size,
    /// Their SHA-256.
    digest: Text<Digest>,
    /// What they are.
    media_type: Text<MediaType>,
    /// The artifact that it is or goes with.
    artifact_id: Id<ArtifactId>,
    /// The attachment that it is.
    attachment_id: Option<Id<AttachmentId>>,
}

impl Directory {
    /// The files under the names that they have where the version is asked for as `reference`.
    pub(crate) fn new(manifest: &model::Manifest, reference: &Reference, files: &[NamedFile<'_>]) -> Self {
        let (image, version) = (manifest.image.name.clone(), manifest.version.version.clone());
        let alias = Some(reference).filter(|reference| reference.as_ref() != version.as_ref());
        Self {
            image: Text(image),
            version: Text(version),
            alias: alias.and_then(|alias| AliasName::try_from(alias.as_ref()).ok()).map(Text),
            files: files.iter().map(DirectoryFile::from).collect(),
        }
    }

    pub(crate) fn json(&self) -> String {
        self.to_json_string()
    }
}

impl From<&NamedFile<'_>> for DirectoryFile {
    fn from(file: &NamedFile<'_>) -> Self {
        let blob = file.blob();
        Self {
            name: file.name.clone(),
            size_bytes: Size(blob.size),
            digest: Text(blob.digest.clone()),
            media_type: Text(blob.media_type.clone()),
            artifact_id: Id(file.artifact.id),
            attachment_id: file.attachment.map(|attachment| Id(attachment.id)),
        }
    }
}
