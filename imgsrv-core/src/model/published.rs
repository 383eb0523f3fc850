//! The catalogue that everybody may read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::incus::{self, Listing};
use super::{Alias, ArtifactEntry, ArtifactId, Digest, Image, ImageName, Version};

/// What the steps of a publish job found out, by step.
pub type Outputs = BTreeMap<String, Value>;

/// Everything that is published, as it was at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    /// How many changes the public had seen by then.
    pub generation: i64,
    /// The images with a published version, by name. One that did not change is the same allocation in the next
    /// generation, so that what was made of it can be kept.
    pub images: Vec<Arc<PublishedImage>>,
    listing: OnceLock<Listing>,
}

impl Catalog {
    /// The catalogue of these images, which are sorted by name.
    pub fn new(generation: i64, images: Vec<Arc<PublishedImage>>) -> Self {
        Self { generation, images, listing: OnceLock::new() }
    }

    /// One of its images.
    pub fn image(&self, name: &ImageName) -> Option<&Arc<PublishedImage>> {
        let at = self.images.binary_search_by(|image| image.image.name.cmp(name)).ok()?;
        self.images.get(at)
    }

    /// What of it Incus is told; worked out when first asked for.
    pub fn listing(&self) -> &Listing {
        self.listing.get_or_init(|| Listing::of(&self.images))
    }
}

/// An image with its published versions.
#[derive(Debug)]
pub struct PublishedImage {
    /// The image.
    pub image: Image,
    /// Its published versions, oldest first.
    pub versions: Vec<Arc<PublishedVersion>>,
    /// Its aliases, by name.
    pub aliases: Vec<Alias>,
}

impl PublishedImage {
    /// The aliases by which a version can be found, by name. One that is called like a published version means that
    /// version, and is not among them.
    pub fn aliases_of(&self, version: &Version) -> impl Iterator<Item = &Alias> {
        let shadowed = |alias: &&Alias| {
            self.versions.iter().any(|version| version.version.version.as_ref() == alias.alias.as_ref())
        };
        let id = version.id;
        self.aliases.iter().filter(move |alias| alias.version_id == id).filter(move |alias| !shadowed(alias))
    }
}

/// A published version with everything in it.
#[derive(Debug)]
pub struct PublishedVersion {
    /// The version.
    pub version: Version,
    /// Its artifacts in the order in which they were added.
    pub artifacts: Vec<ArtifactEntry>,
    /// What its publish job found out.
    pub outputs: Outputs,
    fingerprints: HashMap<ArtifactId, Digest>,
}

impl PublishedVersion {
    /// A version with what its publish job found out.
    pub fn new(version: Version, artifacts: Vec<ArtifactEntry>, outputs: Outputs) -> Self {
        let fingerprints = outputs.get(incus::STEP).map(incus::fingerprints).unwrap_or_default();
        Self { version, artifacts, outputs, fingerprints }
    }

    /// The digest by which Incus knows an artifact, where the step `incus_index` computed one.
    pub fn fingerprint(&self, artifact: ArtifactId) -> Option<&Digest> {
        self.fingerprints.get(&artifact)
    }
}
