//! What of a version Incus can use, and under which product.
//!
//! Incus reads Simple Streams; the file types are those of its `shared/simplestreams` package.

mod listing;

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

pub use listing::{ImageListing, Listing, Product, Root, Superseded, products};

use super::{Architecture, ArtifactEntry, ArtifactId, Attachment, Digest, Format, Variant};

/// The attachment that holds an image's Incus metadata.
pub const METADATA: &str = "incus.tar.xz";

/// The publish step that computes fingerprints.
pub const STEP: &str = "incus_index";

/// The member of its output that holds them.
const COMBINED: &str = "combined_sha256";

/// The output of that step: `{"combined_sha256": {"<artifact id>": "sha256:…"}}`.
pub(crate) fn output(fingerprints: &BTreeMap<String, Digest>) -> Value {
    serde_json::json!({ COMBINED: fingerprints })
}

/// The fingerprints in that output.
pub(super) fn fingerprints(output: &Value) -> HashMap<ArtifactId, Digest> {
    let members = output.get(COMBINED).and_then(Value::as_object).into_iter().flatten();
    members
        .filter_map(|(id, digest)| {
            let id = id.parse::<uuid::Uuid>().ok()?;
            Some((id.into(), digest.as_str()?.parse().ok()?))
        })
        .collect()
}

/// What an artifact is to Incus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootKind {
    /// The disk of a virtual machine.
    Disk,
    /// The root file system of a container, squashfs.
    Squashfs,
    /// The root file system of a container, tar.
    Tar,
    /// Metadata and root file system in one.
    Combined,
}

impl RootKind {
    /// The kind that files of a format are.
    pub const fn of(format: Format) -> Option<Self> {
        match format {
            Format::Qcow2 => Some(Self::Disk),
            Format::Squashfs => Some(Self::Squashfs),
            Format::RootTarXz => Some(Self::Tar),
            Format::IncusCombinedTarGz => Some(Self::Combined),
            _ => None,
        }
    }

    /// The type of the file in Simple Streams.
    pub const fn file_type(self) -> &'static str {
        match self {
            Self::Disk => "disk-kvm.img",
            Self::Squashfs => "squashfs",
            Self::Tar => "root.tar.xz",
            Self::Combined => "incus_combined.tar.gz",
        }
    }

    /// Whether instances of it are virtual machines rather than containers.
    pub const fn is_machine(self) -> bool {
        matches!(self, Self::Disk)
    }
}

/// An artifact that Incus can use.
#[derive(Clone, Copy, Debug)]
pub struct Eligible<'a> {
    /// The artifact and what goes with it.
    pub entry: &'a ArtifactEntry,
    /// What it is to Incus.
    pub root: RootKind,
    /// Its metadata; a combined archive has its own inside.
    pub metadata: Option<&'a Attachment>,
}

impl<'a> Eligible<'a> {
    /// The artifact as Incus sees it.
    ///
    /// # Errors
    /// Why Incus cannot use it.
    pub fn from_entry(entry: &'a ArtifactEntry) -> Result<Self, &'static str> {
        let root = RootKind::of(entry.artifact.format).ok_or("Incus has no use for this format")?;
        let metadata = entry.attachments.iter().find(|attachment| attachment.name.as_ref() == METADATA);
        match (root, metadata) {
            (RootKind::Combined, _) => Ok(Self { entry, root, metadata: None }),
            (_, Some(_)) => Ok(Self { entry, root, metadata }),
            (_, None) => Err("there is no attachment incus.tar.xz"),
        }
    }

    fn metadata_digest(&self) -> Option<&'a Digest> {
        self.metadata.map(|metadata| &metadata.blob.digest)
    }
}

/// The name that Incus has for an architecture; one that it does not know stays as it is.
pub fn architecture(architecture: &Architecture) -> &str {
    match architecture.as_ref() {
        "x86_64" | "x86-64" => "amd64",
        "i686" | "i586" | "x86" => "i386",
        "aarch64" | "armv8" => "arm64",
        "armv7l" | "armv7" => "armhf",
        "armv6l" => "armel",
        "ppc64le" => "ppc64el",
        other => other,
    }
}

/// Artifacts of one version that would stand under one product key and cannot: two of one root kind, or with different
/// metadata. Each pair names the one that came first.
pub fn collisions(entries: &[ArtifactEntry]) -> Vec<(ArtifactId, ArtifactId)> {
    let mut products = BTreeMap::<(&Variant, &str), Vec<Eligible<'_>>>::new();
    let mut collisions = Vec::new();
    for eligible in entries.iter().filter_map(|entry| Eligible::from_entry(entry).ok()) {
        let artifact = &eligible.entry.artifact;
        let product = products.entry((&artifact.variant, architecture(&artifact.architecture))).or_default();
        let clash = product
            .iter()
            .find(|other| other.root == eligible.root || other.metadata_digest() != eligible.metadata_digest());
        if let Some(other) = clash {
            collisions.push((other.entry.artifact.id, artifact.id));
        }
        product.push(eligible);
    }
    collisions
}
