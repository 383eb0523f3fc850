//! The names that people see of the files of a version.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::{Artifact, ArtifactEntry, Attachment, BlobRef, ImageName, Variant};

/// Where a server offers the files of versions: `d/{image}/{version}/{file}`.
pub const DIRECTORIES: &str = "d";

/// A file of a version: an artifact, or what goes with it.
#[derive(Clone, Debug)]
pub struct NamedFile<'a> {
    /// `{image}-{version}-{os}-{architecture}[-{variant}].{format}`; of an attachment, `{artifact's file}.{name}`.
    pub name: String,
    /// The artifact.
    pub artifact: &'a Artifact,
    /// The attachment, where the file is one.
    pub attachment: Option<&'a Attachment>,
}

impl<'a> NamedFile<'a> {
    /// Its bytes.
    pub fn blob(&self) -> &'a BlobRef {
        self.attachment.map_or(&self.artifact.blob, |attachment| &attachment.blob)
    }

    /// When it was added.
    pub fn created_at(&self) -> DateTime<Utc> {
        self.attachment.map_or(self.artifact.created_at, |attachment| attachment.created_at)
    }
}

/// The files of a version: the artifacts in the order in which they were added, each before what is attached to it.
///
/// `reference` stands where the version does, so that a directory of an alias can show the same files under names that do
/// not change. A name that is taken gets `-` and the first eight characters of the artifact's id before the format;
/// where those are the same, for they are a time, the whole id.
pub fn named_files<'a>(image: &ImageName, reference: &str, artifacts: &'a [ArtifactEntry]) -> Vec<NamedFile<'a>> {
    let mut taken = HashSet::new();
    // All artifacts have their names before the first attachment is given one.
    let own: Vec<String> = artifacts
        .iter()
        .map(|ArtifactEntry { artifact, .. }| {
            free(&mut taken, &stem(image, reference, artifact), artifact.format.word(), artifact)
        })
        .collect();
    let mut files = Vec::new();
    for (ArtifactEntry { artifact, attachments }, own) in artifacts.iter().zip(own) {
        let attached = attachments.iter().map(|attachment| NamedFile {
            name: free(&mut taken, &own, attachment.name.as_ref(), artifact),
            artifact,
            attachment: Some(attachment),
        });
        let attached: Vec<_> = attached.collect();
        files.push(NamedFile { name: own, artifact, attachment: None });
        files.extend(attached);
    }
    files
}

/// What a file of an artifact is called where no other one has the name.
pub fn file_name(image: &ImageName, reference: &str, artifact: &Artifact) -> String {
    format!("{}.{}", stem(image, reference, artifact), artifact.format)
}

fn stem(image: &ImageName, reference: &str, artifact: &Artifact) -> String {
    let Artifact { variant, operating_system, architecture, .. } = artifact;
    if *variant == Variant::default_variant() {
        format!("{image}-{reference}-{operating_system}-{architecture}")
    } else {
        format!("{image}-{reference}-{operating_system}-{architecture}-{variant}")
    }
}

/// The first name that is free; the last one, with the whole id, always is.
fn free(taken: &mut HashSet<String>, stem: &str, extension: &str, artifact: &Artifact) -> String {
    let id = artifact.id.to_string();
    let mut names = [String::new(), format!("-{}", &id[..8]), format!("-{id}")]
        .map(|id| format!("{stem}{id}.{extension}"))
        .into_iter();
    names.find(|name| taken.insert(name.clone())).unwrap_or_default()
}
