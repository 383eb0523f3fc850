//! Simple Streams, the format in which Incus reads what a server offers.
//!
//! Members and their meanings are those that `shared/simplestreams` of Incus reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;

use super::{File, Projection};
use crate::BoxError;
use crate::model::incus::{Eligible, ImageListing, METADATA, Product, Root, RootKind, Superseded, products};
use crate::model::{
    ArtifactId, Catalog, DIRECTORIES, ImageId, Manifest, NamedFile, PublishedImage, VersionState, named_files,
};

/// Shows every image that Incus can use, as `streams/v1/index.json` and `streams/v1/images.json`.
///
/// The files that it names are below [`DIRECTORIES`].
#[derive(Debug, Default)]
pub struct SimpleStreams {
    /// What was made of each image, and of what.
    made: Mutex<HashMap<ImageId, Made>>,
}

#[derive(Debug)]
struct Made {
    image: Arc<PublishedImage>,
    listing: ImageListing,
    fragment: Fragment,
}

/// The products of one image.
#[derive(Clone, Debug)]
struct Fragment {
    keys: Arc<[String]>,
    /// The members of `products`, without the braces.
    json: Bytes,
}

#[derive(Serialize)]
struct ProductView<'a> {
    aliases: String,
    arch: &'a str,
    os: &'a str,
    release: &'a str,
    release_title: &'a str,
    variant: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    requirements: BTreeMap<&'a str, &'a str>,
    versions: BTreeMap<String, VersionView<'a>>,
}

#[derive(Serialize)]
struct VersionView<'a> {
    items: BTreeMap<&'static str, ItemView<'a>>,
}

#[derive(Serialize)]
struct ItemView<'a> {
    ftype: &'static str,
    path: String,
    size: u64,
    sha256: &'a str,
    #[serde(flatten)]
    combined: BTreeMap<&'static str, &'a str>,
}

impl Projection for SimpleStreams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn render(&self, catalog: &Catalog) -> Result<Vec<File>, BoxError> {
        let fragments: Vec<Fragment> = self.fragments(catalog)?;
        let mut keys: Vec<&str> =
            fragments.iter().flat_map(|fragment| fragment.keys.iter()).map(String::as_str).collect();
        keys.sort_unstable();
        Ok(vec![
            File { path: "v1/index.json", media_type: "application/json", body: vec![index(&keys)?.into()] },
            File { path: "v1/images.json", media_type: "application/json", body: images(&fragments) },
        ])
    }

    fn left_out(&self, catalog: &Catalog, manifest: &Manifest) -> BTreeMap<ArtifactId, String> {
        let listing = catalog.listing().of_image(manifest.image.id);
        let published = catalog
            .image(&manifest.image.name)
            .and_then(|image| image.versions.iter().find(|version| version.version.id == manifest.version.id));
        let own = format!("{}/{}", manifest.image.name, manifest.version.version);
        let superseded = |Superseded { by, carried }: &Superseded| match carried {
            _ if *by == own => "another artifact of this version has the same bytes".to_owned(),
            true => format!("{by} has the same bytes, was published later, and is listed under the aliases of both"),
            false => format!(
                "{by} has the same bytes and was published later; it is not listed under this version's aliases, of which \
                 one would then mean other bytes"
            ),
        };
        let reason = |artifact: ArtifactId| match published {
            _ if manifest.version.state != VersionState::Published => Some("the version is not published".to_owned()),
            Some(version) if version.fingerprint(artifact).is_some() => listing.superseded(artifact).map(superseded),
            _ => Some("its publish job did not compute its fingerprint".to_owned()),
        };
        let reasons = manifest.artifacts.iter().filter_map(|entry| {
            let id = entry.artifact.id;
            Eligible::from_entry(entry).map_or_else(|err| Some(err.to_owned()), |_| reason(id)).map(|text| (id, text))
        });
        reasons.collect()
    }
}

impl SimpleStreams {
    /// The products of each image, in the order of the catalogue. Those of images that did not change are kept.
    fn fragments(&self, catalog: &Catalog) -> Result<Vec<Fragment>, BoxError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *made);
        let mut fragments = Vec::with_capacity(catalog.images.len());
        for image in &catalog.images {
            let id = image.image.id;
            let listing = catalog.listing().of_image(id);
            let kept = before.remove(&id).filter(|made| Arc::ptr_eq(&made.image, image) && made.listing == *listing);
            let now = match kept {
                Some(kept) => kept,
                None => {
                    Made { image: Arc::clone(image), listing: listing.clone(), fragment: fragment(image, listing)? }
                }
            };
            fragments.push(now.fragment.clone());
            made.insert(id, now);
        }
        Ok(fragments)
    }
}

fn fragment(image: &PublishedImage, listing: &ImageListing) -> Result<Fragment, BoxError> {
    let (mut keys, mut json) = (Vec::new(), Vec::new());
    for version in &image.versions {
        let reference = version.version.version.as_ref();
        let files = named_files(&image.image.name, reference, &version.artifacts);
        for product in products(image, version) {
            let Some((product, aliases)) = listing.listed(product) else { continue };
            let key = product.key();
            if !json.is_empty() {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, &key)?;
            json.push(b':');
            serde_json::to_writer(&mut json, &view(&product, &aliases, &files))?;
            keys.push(key);
        }
    }
    Ok(Fragment { keys: keys.into(), json: json.into() })
}

fn view<'a>(product: &Product<'a>, aliases: &[String], files: &[NamedFile<'a>]) -> ProductView<'a> {
    let version = &product.version.version;
    let release = version.version.as_ref();
    let artifacts = || product.roots.iter().map(|root| &root.eligible.entry.artifact);
    let requirements = artifacts().flat_map(|artifact| &artifact.requirements);
    let mut items = BTreeMap::new();
    for Root { eligible: Eligible { entry, root, metadata }, fingerprint } in &product.roots {
        let of = |attachment| {
            files
                .iter()
                .find(|file| file.artifact.id == entry.artifact.id && file.attachment.map(|a| a.id) == attachment)
        };
        let item = |file: &NamedFile<'a>, ftype| ItemView {
            ftype,
            path: format!("{DIRECTORIES}/{}/{release}/{}", product.image.image.name, file.name),
            size: file.blob().size,
            sha256: file.blob().digest.hex(),
            combined: BTreeMap::new(),
        };
        if let Some(file) = of(None) {
            items.insert(root.file_type(), item(file, root.file_type()));
        }
        if let (Some(combined), Some(file)) = (combined(*root), of(metadata.map(|metadata| metadata.id))) {
            let metadata = items.entry(METADATA).or_insert_with(|| item(file, METADATA));
            metadata.combined.insert(combined, fingerprint.hex());
        }
    }
    let published = version.published_at.unwrap_or(version.updated_at);
    ProductView {
        aliases: aliases.join(","),
        arch: product.architecture,
        os: artifacts().next().map_or("", |artifact| artifact.operating_system.as_ref()),
        release,
        release_title: release,
        variant: product.variant.as_ref(),
        requirements: requirements.map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        // The first eight characters must be the date, or Incus skips the image and says nothing.
        versions: [(published.format("%Y%m%d_%H:%M").to_string(), VersionView { items })].into(),
    }
}

/// The member of a metadata file that holds its fingerprint together with a root file.
const fn combined(root: RootKind) -> Option<&'static str> {
    match root {
        RootKind::Disk => Some("combined_disk-kvm-img_sha256"),
        RootKind::Squashfs => Some("combined_squashfs_sha256"),
        RootKind::Tar => Some("combined_rootxz_sha256"),
        RootKind::Combined => None,
    }
}

fn index(keys: &[&str]) -> serde_json::Result<Vec<u8>> {
    let mut images = serde_json::json!({
        "datatype": "image-downloads",
        "format": "products:1.0",
        "path": "streams/v1/images.json",
    });
    if !keys.is_empty() {
        images["products"] = serde_json::to_value(keys)?;
    }
    serde_json::to_vec(&serde_json::json!({ "format": "index:1.0", "index": { "images": images } }))
}

fn images(fragments: &[Fragment]) -> Vec<Bytes> {
    let head = br#"{"content_id":"images","datatype":"image-downloads","format":"products:1.0","products":{"#;
    let mut body = vec![Bytes::from_static(head)];
    for fragment in fragments.iter().filter(|fragment| !fragment.json.is_empty()) {
        if body.len() > 1 {
            body.push(Bytes::from_static(b","));
        }
        body.push(fragment.json.clone());
    }
    body.push(Bytes::from_static(b"}}"));
    body
}
