//! What is published, in memory. It never changes, so what is remembered of it is never out of date.

use std::sync::Arc;

use crate::model::{ArtifactEntry, ArtifactId, Version};
use crate::remembered::Weigh;
use crate::{Error, Resource, Result};

/// What one artifact or attachment takes, about: bytes.
const ENTRY: u64 = 1 << 10;

/// A published version with everything in it, but for its image, which does change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub version: Version,
    pub artifacts: Vec<ArtifactEntry>,
}

impl Published {
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn entry(&self, id: ArtifactId) -> Result<&ArtifactEntry> {
        let mut entries = self.artifacts.iter();
        entries.find(|entry| entry.artifact.id == id).ok_or(Error::NotFound(Resource::Artifact(id)))
    }
}

impl Weigh for Arc<Published> {
    fn weight(&self) -> u64 {
        let entries = self.artifacts.iter().map(|entry| 1 + entry.attachments.len() as u64).sum::<u64>();
        (1 + entries) * ENTRY
    }
}
