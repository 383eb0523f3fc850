//! What is published, in memory. It never changes, so what is remembered of it is never out of date.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::model::{ArtifactEntry, ArtifactId, ImageName, Version, VersionName};
use crate::{Error, Resource, Result};

/// How much is remembered: bytes, about.
const REMEMBERED: u64 = 16 << 20;

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

/// The published versions that were asked for last.
#[derive(Debug)]
pub(crate) struct Remembered(Cache<Names, Arc<Published>, Size>);

type Names = (ImageName, VersionName);

#[derive(Clone, Debug)]
struct Size;

impl Weighter<Names, Arc<Published>> for Size {
    fn weight(&self, _: &Names, published: &Arc<Published>) -> u64 {
        let entries = published.artifacts.iter().map(|entry| 1 + entry.attachments.len() as u64).sum::<u64>();
        (1 + entries) * ENTRY
    }
}

impl Default for Remembered {
    fn default() -> Self {
        let versions = usize::try_from(REMEMBERED / (3 * ENTRY)).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(versions, REMEMBERED, Size))
    }
}

impl Remembered {
    pub(crate) fn get(&self, image: &ImageName, version: &VersionName) -> Option<Arc<Published>> {
        self.0.get(&(image.clone(), version.clone()))
    }

    pub(crate) fn put(&self, image: &ImageName, published: Arc<Published>) {
        self.0.insert((image.clone(), published.version.version.clone()), published);
    }
}
