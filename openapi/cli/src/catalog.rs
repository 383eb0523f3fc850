//! `imgsrv images`, `versions` and `show`: what there is.

use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use clap::Args;
use imgsrv_client::Client;
use imgsrv_client::types::{Alias, Artifact, Cursor, Image, ImageName, Manifest, ManifestEntry, Version, VersionState};
use indicatif::HumanBytes;
use serde_json::json;

use crate::failure::{Failure, Kind};
use crate::remote::{Common, Remote};
use crate::report::Report;
use crate::table::{self, print_json, print_line};
use crate::target::Target;

/// A question for the page at the cursor.
macro_rules! paged {
    ($ask:expr, $cursor:expr) => {{
        let ask = $ask.limit(NonZeroU64::MIN.saturating_add(999));
        match &$cursor {
            Some(cursor) => ask.cursor(cursor.as_str()),
            None => ask,
        }
    }};
}

/// List the images.
#[derive(Args, Clone, Debug)]
pub struct ImagesArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// List the versions of an image, the newest first.
#[derive(Args, Clone, Debug)]
pub struct VersionsArgs {
    /// Image
    image: ImageName,

    /// Those in this state, which needs a token
    #[arg(long, value_name = "STATE", default_value = "published")]
    state: VersionState,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// Show what a version has.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Image, and a version or alias of it
    #[arg(value_name = "IMAGE[:REF]")]
    target: Target,

    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn images(args: ImagesArgs, report: &Report) -> Result<(), Failure> {
    let remote = args.common.connect()?;
    let images: Vec<Image> = pages(async |cursor| {
        let ask = async |client: &Client| paged!(client.list_images(), cursor).send().await;
        remote.ask(report, ask).await.map(|list| (list.images, list.next_cursor))
    })
    .await?;
    if report.is_json() {
        return print_json(&json!({ "images": images }));
    }
    let row = |image: &Image| {
        let title = image.display_name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        [image.name.to_string(), day(image.updated_at), title]
    };
    table::print(["NAME", "CHANGED", "TITLE"], &images.iter().map(row).collect::<Vec<_>>())
}

pub(crate) async fn versions(args: VersionsArgs, report: &Report) -> Result<(), Failure> {
    let remote = args.common.connect()?;
    let (image, state) = (&args.image, args.state);
    let versions: Vec<Version> = pages(async |cursor| {
        let ask = async |client: &Client| {
            paged!(client.list_versions(), cursor).image(image.as_str()).state(state).send().await
        };
        remote.ask(report, ask).await.map(|list| (list.versions, list.next_cursor))
    })
    .await?;
    if report.is_json() {
        return print_json(&json!({ "versions": versions }));
    }
    let aliases = aliases(&remote, report, image).await?;
    let row = |version: &Version| {
        let since = version.published_at.unwrap_or(version.updated_at);
        [version.version.to_string(), version.state.to_string(), day(since), names(&aliases, version)]
    };
    table::print(["VERSION", "STATE", "SINCE", "ALIASES"], &versions.iter().map(row).collect::<Vec<_>>())
}

pub(crate) async fn show(args: ShowArgs, report: &Report) -> Result<(), Failure> {
    let remote = args.common.connect()?;
    let Target { image, reference } = &args.target;
    let manifest = match resolve(&remote, report, &args.target).await {
        Ok(version) => manifest(&remote, report, image, version.version.as_str()).await?,
        // A draft has no reference, but a name.
        Err(failure) if failure.kind() == Kind::NotFound => {
            let draft = manifest(&remote, report, image, reference.as_str()).await;
            draft.map_err(|other| if other.kind() == Kind::NotFound { failure } else { other })?
        }
        Err(failure) => return Err(failure),
    };
    if report.is_json() {
        return print_json(&json!(manifest));
    }
    let version = &manifest.version;
    let aliases = names(&aliases(&remote, report, image).await?, version);
    let since = version.published_at.unwrap_or(version.updated_at);
    let aliases = if aliases.is_empty() { aliases } else { format!(", {aliases}") };
    print_line(&format!("{}:{} {} {}{aliases}", **image, *version.version, version.state, day(since)))?;
    let mut rows = Vec::new();
    for ManifestEntry { artifact, attachments, .. } in manifest.artifacts {
        rows.push([
            kind(&artifact),
            artifact.format.to_string(),
            size(artifact.primary_blob_size_bytes),
            artifact.primary_blob_digest.to_string(),
        ]);
        rows.extend(attachments.iter().map(|attachment| {
            [
                String::new(),
                attachment.name.to_string(),
                size(attachment.blob_size_bytes),
                attachment.blob_digest.to_string(),
            ]
        }));
    }
    table::print(["ARTIFACT", "FORMAT, ATTACHMENT", "SIZE", "DIGEST"], &rows)
}

pub(crate) async fn manifest(
    remote: &Remote,
    report: &Report,
    image: &ImageName,
    version: &str,
) -> Result<Manifest, Failure> {
    remote.ask(report, async |client| client.get_manifest().image(image.as_str()).version(version).send().await).await
}

pub(crate) async fn resolve(remote: &Remote, report: &Report, target: &Target) -> Result<Version, Failure> {
    let Target { image, reference } = target;
    let ask = async |client: &Client| client.resolve().image(image.as_str()).reference(reference.as_str()).send().await;
    remote.ask(report, ask).await
}

/// What tells an artifact from others of its format.
pub(crate) fn kind(artifact: &Artifact) -> String {
    let Artifact { operating_system, architecture, variant, .. } = artifact;
    format!("{}/{}/{}", **operating_system, **architecture, **variant)
}

pub(crate) async fn aliases(remote: &Remote, report: &Report, image: &ImageName) -> Result<Vec<Alias>, Failure> {
    pages(async |cursor| {
        let ask = async |client: &Client| paged!(client.list_aliases(), cursor).image(image.as_str()).send().await;
        remote.ask(report, ask).await.map(|list| (list.aliases, list.next_cursor))
    })
    .await
}

/// All pages of a list.
async fn pages<T>(
    mut page: impl AsyncFnMut(Option<Cursor>) -> Result<(Vec<T>, Option<Cursor>), Failure>,
) -> Result<Vec<T>, Failure> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let (items, next) = page(cursor).await?;
        all.extend(items);
        if next.is_none() {
            return Ok(all);
        }
        cursor = next;
    }
}

fn names(aliases: &[Alias], version: &Version) -> String {
    let names = aliases.iter().filter(|alias| alias.version_id == version.id).map(|alias| alias.alias.to_string());
    names.collect::<Vec<_>>().join(", ")
}

pub(crate) fn day(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M").to_string()
}

fn size(bytes: i64) -> String {
    HumanBytes(bytes.unsigned_abs()).to_string()
}
