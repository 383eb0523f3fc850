//! What of the catalogue Incus is told.
//!
//! Incus knows an image by the SHA-256 of its files, and two that are listed with one fingerprint break its `info` and
//! `copy`. So of artifacts with one fingerprint the newest published is listed, under the aliases of all: as far as each of
//! these still means what it meant.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Eligible, architecture};
use crate::model::{ArtifactId, Digest, ImageId, PublishedImage, PublishedVersion, Variant};

/// A product of Simple Streams: what one version offers for one architecture in one variant.
#[derive(Debug)]
pub struct Product<'a> {
    /// The image.
    pub image: &'a PublishedImage,
    /// The version.
    pub version: &'a PublishedVersion,
    /// The architecture, as Incus calls it.
    pub architecture: &'a str,
    /// The variant.
    pub variant: &'a Variant,
    /// The images that it consists of; never none.
    pub roots: Vec<Root<'a>>,
}

/// An image as Incus sees it: a root file, with its metadata.
#[derive(Debug)]
pub struct Root<'a> {
    /// The artifact and its metadata.
    pub eligible: Eligible<'a>,
    /// SHA-256 of the metadata and then the root file; of a combined archive, its own.
    pub fingerprint: &'a Digest,
}

impl Product<'_> {
    /// `image:version:architecture:variant`. Only a version can have a colon itself, so no two are the same.
    pub fn key(&self) -> String {
        let (image, version) = (&self.image.image.name, &self.version.version.version);
        format!("{image}:{version}:{}:{}", self.architecture, self.variant)
    }

    /// The names by which the version says that it can be found: `image/version`, then `image/alias` for each alias.
    /// Variants other than `default` have theirs behind.
    pub fn aliases(&self) -> Vec<String> {
        let image = &self.image.image.name;
        let version = &self.version.version;
        let variant =
            if *self.variant == Variant::default_variant() { String::new() } else { format!("/{}", self.variant) };
        let named = |reference: &str| format!("{image}/{reference}{variant}");
        let aliases = self.image.aliases_of(version).map(|alias| named(alias.alias.as_ref()));
        std::iter::once(named(version.version.as_ref())).chain(aliases).collect()
    }

    /// What Incus takes a name of this product for: the fingerprints of its machine and of its container. Of two
    /// containers it prefers squashfs.
    fn meaning(&self) -> [Option<&Digest>; 2] {
        [true, false].map(|is_machine| {
            let roots = self.roots.iter().filter(|root| root.eligible.root.is_machine() == is_machine);
            roots.min_by_key(|root| root.eligible.root).map(|root| root.fingerprint)
        })
    }
}

/// The products that a version would have if no other version had the same bytes.
pub fn products<'a>(image: &'a PublishedImage, version: &'a PublishedVersion) -> Vec<Product<'a>> {
    let mut products = BTreeMap::<(&str, &Variant), Vec<Root<'a>>>::new();
    for root in roots(version) {
        let artifact = &root.eligible.entry.artifact;
        products.entry((architecture(&artifact.architecture), &artifact.variant)).or_default().push(root);
    }
    let product = |((architecture, variant), roots)| Product { image, version, architecture, variant, roots };
    products.into_iter().map(product).collect()
}

fn roots(version: &PublishedVersion) -> impl Iterator<Item = Root<'_>> {
    version.artifacts.iter().filter_map(|entry| {
        let eligible = Eligible::from_entry(entry).ok()?;
        Some(Root { eligible, fingerprint: version.fingerprint(entry.artifact.id)? })
    })
}

/// Which artifacts are not listed though Incus could use them, and which are listed for others too.
#[derive(Debug, Default)]
pub struct Listing {
    images: HashMap<ImageId, ImageListing>,
    none: ImageListing,
}

/// The same of one image. Empty where all of its artifacts have bytes of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageListing {
    superseded: BTreeMap<ArtifactId, Superseded>,
    carried: BTreeMap<ArtifactId, BTreeSet<String>>,
}

/// What is listed in the stead of an artifact with the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// Its version, as `image/version`.
    pub by: String,
    /// Whether it is listed under the names of this one too.
    pub carried: bool,
}

impl ImageListing {
    /// What is listed in the stead of this artifact.
    pub fn superseded(&self, artifact: ArtifactId) -> Option<&Superseded> {
        self.superseded.get(&artifact)
    }

    /// The product with only what is listed of it; nothing where nothing is left of it.
    fn left<'a>(&self, mut product: Product<'a>) -> Option<Product<'a>> {
        product.roots.retain(|root| !self.superseded.contains_key(&root.eligible.entry.artifact.id));
        (!product.roots.is_empty()).then_some(product)
    }

    /// The same, and its aliases with those of the products that it is listed for.
    pub fn listed<'a>(&self, product: Product<'a>) -> Option<(Product<'a>, Vec<String>)> {
        let product = self.left(product)?;
        let mut aliases = product.aliases();
        let ids = product.roots.iter().map(|root| root.eligible.entry.artifact.id);
        let carried: BTreeSet<&String> = ids.filter_map(|id| self.carried.get(&id)).flatten().collect();
        let further: Vec<_> = carried.into_iter().filter(|name| !aliases.contains(name)).cloned().collect();
        aliases.extend(further);
        Some((product, aliases))
    }
}

/// Where an artifact stands in the catalogue.
#[derive(Clone, Copy)]
struct Place<'a> {
    image: &'a PublishedImage,
    version: &'a PublishedVersion,
    artifact: ArtifactId,
    /// How many artifacts of its version were added before it.
    at: usize,
}

impl<'a> Place<'a> {
    /// The greatest is listed.
    fn rank(&self) -> impl Ord + use<'a> {
        let version = &self.version.version;
        (version.published_at, version.id, Reverse(self.at))
    }

    fn product(&self) -> Option<Product<'a>> {
        let mut products = products(self.image, self.version).into_iter();
        products.find(|product| product.roots.iter().any(|root| root.eligible.entry.artifact.id == self.artifact))
    }
}

impl Listing {
    /// What is listed of these images.
    pub(crate) fn of(images: &[Arc<PublishedImage>]) -> Self {
        let mut listed = HashMap::<&Digest, Place<'_>>::new();
        let mut others = Vec::new();
        for image in images {
            for version in &image.versions {
                for (at, root) in roots(version).enumerate() {
                    let place = Place { image, version, artifact: root.eligible.entry.artifact.id, at };
                    let Some(other) = listed.get_mut(root.fingerprint) else {
                        listed.insert(root.fingerprint, place);
                        continue;
                    };
                    let loser = if place.rank() > other.rank() { std::mem::replace(other, place) } else { place };
                    others.push((root.fingerprint, loser));
                }
            }
        }
        let mut listing = Self::default();
        for (fingerprint, loser) in &others {
            let Some(winner) = listed.get(fingerprint) else { continue };
            let by = format!("{}/{}", winner.image.image.name, winner.version.version.version);
            let superseded = &mut listing.images.entry(loser.image.image.id).or_default().superseded;
            superseded.insert(loser.artifact, Superseded { by, carried: false });
        }
        for (fingerprint, loser) in &others {
            let Some(winner) = listed.get(fingerprint) else { continue };
            let aliases = listing.carried(loser, winner);
            let own = listing.images.entry(loser.image.image.id).or_default();
            if let Some(superseded) = own.superseded.get_mut(&loser.artifact) {
                superseded.carried = !aliases.is_empty();
            }
            let carried = &mut listing.images.entry(winner.image.image.id).or_default().carried;
            carried.entry(winner.artifact).or_default().extend(aliases);
        }
        listing
    }

    /// What is listed of one image.
    pub fn of_image(&self, image: ImageId) -> &ImageListing {
        self.images.get(&image).unwrap_or(&self.none)
    }

    /// The aliases that the winner's product is listed under for the loser: those of its product, where each of them
    /// means there what it meant, on the same architecture. A name that would mean other bytes is worse than none.
    fn carried(&self, loser: &Place<'_>, winner: &Place<'_>) -> Vec<String> {
        let (Some(from), Some(to)) = (loser.product(), winner.product()) else { return Vec::new() };
        let Some(to) = self.of_image(winner.image.image.id).left(to) else { return Vec::new() };
        let (aliases, same) = (from.aliases(), from.architecture == to.architecture && from.meaning() == to.meaning());
        // What is left of the loser's product keeps its names to itself.
        let is_gone = self.of_image(loser.image.image.id).left(from).is_none();
        if same && is_gone { aliases } else { Vec::new() }
    }
}
