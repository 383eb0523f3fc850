//! `imgsrv push`: from files to a published version. Every step looks first at what is there, so that a second run
//! completes what a first one began.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use imgsrv_client::Client;
use imgsrv_client::types::{
    AddArtifact, AddAttachment, AliasName, Architecture, AttachmentName, CreateImage, CreateVersion, Format, ImageName,
    JobState, Manifest, ManifestEntry, MediaType, OperatingSystem, PublishJob, PutAlias, Variant, VersionName,
    VersionState,
};
use uuid::Uuid;

use crate::catalog::manifest;
use crate::failure::{Failure, Kind};
use crate::guess;
use crate::layout::USUAL_PART;
use crate::local::{LocalFile, check_is_file};
use crate::poll::Poll;
use crate::remote::{Common, Remote};
use crate::report::{Event, Report};
use crate::upload::{Sending, upload};

const FORMATS: [&str; 12] = [
    "raw",
    "raw.gz",
    "raw.xz",
    "raw.zst",
    "qcow2",
    "iso",
    "vmdk",
    "vhdx",
    "ova",
    "squashfs",
    "root.tar.xz",
    "incus_combined.tar.gz",
];

pub(crate) fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(FORMATS).try_map(|word| word.parse::<Format>())
}

/// Upload files and publish them as a version of an image. Run it again to complete what was interrupted.
#[derive(Args, Clone, Debug)]
pub struct PushArgs {
    /// Files to publish, each an artifact of the version
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Image to publish it as; it is created if need be
    #[arg(long, value_name = "NAME")]
    image: ImageName,

    /// Version to publish; it must not exist, or be a draft, or have the same files
    #[arg(long, value_name = "VERSION")]
    version: VersionName,

    /// Operating system [default: guessed from the file's name]
    #[arg(long, value_name = "NAME")]
    os: Option<OperatingSystem>,

    /// Architecture [default: guessed from the file's name]
    #[arg(long, value_name = "NAME")]
    arch: Option<Architecture>,

    /// Variant
    #[arg(long, value_name = "NAME", default_value = "default")]
    variant: Variant,

    /// Format [default: guessed from the file's name and its first bytes]
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    format: Option<Format>,

    /// Attach a file to each artifact under this name; may be given several times
    #[arg(long, value_name = "NAME=FILE", value_parser = OsStringValueParser::new().try_map(|text| Attach::parse(&text)))]
    attach: Vec<Attach>,

    /// Point this alias at the version when it is published; may be given several times
    #[arg(long, value_name = "ALIAS")]
    alias: Vec<AliasName>,

    /// Leave the version a draft, for others to add to
    #[arg(long, conflicts_with = "alias")]
    draft: bool,

    /// Replace what a draft has under the same names
    #[arg(long)]
    replace: bool,

    /// How many parts are sent at once
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,

    /// Size of a part in MiB; larger ones are used where there would be more than 10,000
    #[arg(long, value_name = "MIB", default_value_t = USUAL_PART >> 20, value_parser = clap::value_parser!(u64).range(5..=5120))]
    part_size: u64,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// `NAME=FILE`.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    pub(crate) name: AttachmentName,
    pub(crate) path: PathBuf,
}

impl Attach {
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        const RULE: &str = "must be a name and a file, as in incus.tar.xz=meta.tar.xz";
        // A path may be any bytes, a name may not.
        let at = text.as_bytes().iter().position(|byte| *byte == b'=').ok_or(RULE)?;
        let (name, path) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
        let name = std::str::from_utf8(name).map_err(|_| RULE)?;
        Ok(Self { name: name.parse().map_err(|err| format!("the name {err}"))?, path: OsStr::from_bytes(path).into() })
    }
}

/// An artifact as it is to be.
struct Planned {
    file: LocalFile,
    add: AddArtifact,
}

/// What is to be published.
struct Release<'a> {
    args: &'a PushArgs,
    remote: &'a Remote,
    report: &'a Report,
    artifacts: Vec<Planned>,
    attachments: Vec<(LocalFile, AddAttachment)>,
}

pub(crate) async fn push(args: PushArgs, report: &Report) -> Result<(), Failure> {
    let remote = args.common.connect()?;
    remote.may_publish(report).await?;
    let release = plan(&args, &remote, report).await?;
    release.carry_out().await
}

/// Reads all files. What cannot be guessed is asked for before the first of them.
async fn plan<'a>(args: &'a PushArgs, remote: &'a Remote, report: &'a Report) -> Result<Release<'a>, Failure> {
    for path in args.files.iter().chain(args.attach.iter().map(|attach| &attach.path)) {
        check_is_file(path)?;
    }
    let kinds = args.files.iter().map(|path| guess_kind(args, path)).collect::<Result<Vec<_>, _>>()?;
    for (at, kind) in kinds.iter().enumerate() {
        if kinds[..at].contains(kind) {
            let line = "two files with the same operating system, architecture, variant and format";
            return Err(Failure::usage(line).about(args.files[at].display()));
        }
    }
    for (at, Attach { name, .. }) in args.attach.iter().enumerate() {
        if args.attach[..at].iter().any(|other| other.name == *name) {
            return Err(Failure::usage(format!("--attach: {} twice", **name)));
        }
    }
    let mut release = Release { args, remote, report, artifacts: Vec::new(), attachments: Vec::new() };
    for (path, (operating_system, architecture, format)) in args.files.iter().zip(kinds) {
        let file = LocalFile::hash(path, report).await?;
        let add = AddArtifact {
            operating_system,
            architecture,
            format,
            variant: Some(args.variant.parse().map_err(|err| Failure::usage(format!("--variant: {err}")))?),
            primary_blob_digest: file.digest.clone(),
            primary_blob_size_bytes: file.size_bytes(),
            primary_media_type: known(guess::media_type(format)),
            requirements: std::collections::HashMap::new(),
        };
        release.artifacts.push(Planned { file, add });
    }
    for Attach { name, path } in &args.attach {
        let file = LocalFile::hash(path, report).await?;
        let add = AddAttachment {
            name: name.clone(),
            media_type: known(guess::media_type_of_attachment(name)),
            blob_digest: file.digest.clone(),
            blob_size_bytes: file.size_bytes(),
        };
        release.attachments.push((file, add));
    }
    Ok(release)
}

fn guess_kind(args: &PushArgs, path: &std::path::Path) -> Result<(OperatingSystem, Architecture, Format), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let format = args.format.map_or_else(|| guess::format(path, &name), Ok)?;
    let missing = |flag| Failure::usage(format!("{}: its name does not tell; give --{flag}", path.display()));
    let os = match &args.os {
        Some(os) => os.clone(),
        None => guess::operating_system(&name, format).and_then(|os| os.parse().ok()).ok_or_else(|| missing("os"))?,
    };
    let arch = match &args.arch {
        Some(arch) => arch.clone(),
        None => guess::architecture(&name).and_then(|arch| arch.parse().ok()).ok_or_else(|| missing("arch"))?,
    };
    Ok((os, arch, format))
}

fn known(media_type: &'static str) -> MediaType {
    media_type.parse().expect("a media type")
}

impl Release<'_> {
    async fn carry_out(&self) -> Result<(), Failure> {
        let Self { args: PushArgs { image, version, .. }, report, .. } = self;
        // What cannot become of it is told before gigabytes are sent.
        let there = self.manifest().await?;
        if let Some(manifest) = &there {
            self.check(manifest)?;
        }
        if !there.as_ref().is_some_and(is_published) {
            let sending = Sending { part: self.args.part_size << 20, parallel: self.args.parallel.into() };
            let files = self.artifacts.iter().map(|planned| &planned.file);
            for file in files.chain(self.attachments.iter().map(|(file, _)| file)) {
                upload(self.remote, report, file, sending).await?;
            }
            if there.is_none() {
                self.create().await?;
            }
            if there.as_ref().is_none_or(is_draft) {
                self.fill_draft().await?;
            }
            if self.args.draft {
                report.say(&Event::Drafted { image, version });
                return Ok(());
            }
            self.publish().await?;
            // Somebody else may have changed the draft before it was published.
            let published = self.manifest().await?.ok_or_else(|| self.conflict("was deleted meanwhile"))?;
            self.check(&published)?;
        }
        report.say(&Event::Published { image, version });
        for alias in &self.args.alias {
            let to = PutAlias { version: version.clone() };
            self.remote
                .ask(report, async |client| {
                    client.put_alias().image(image.as_str()).alias(alias.as_str()).body(to.clone()).send().await
                })
                .await?;
            report.say(&Event::Alias { image, alias, version });
        }
        Ok(())
    }

    async fn manifest(&self) -> Result<Option<Manifest>, Failure> {
        let PushArgs { image, version, .. } = self.args;
        match manifest(self.remote, self.report, image, version).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(failure) if failure.kind() == Kind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What is there under the same names must be the same, unless it may be replaced; and what can change no more must
    /// have everything.
    fn check(&self, manifest: &Manifest) -> Result<(), Failure> {
        let draft = is_draft(manifest);
        let may_replace = draft && self.args.replace;
        if !draft && self.args.draft {
            return Err(self.conflict("is no draft any more"));
        }
        for planned in &self.artifacts {
            let entry = manifest.artifacts.iter().find(|entry| is_for(entry, planned));
            let Some(entry) = entry else {
                if draft {
                    continue;
                }
                return Err(self.conflict("is published without this file").about(&planned.file.name));
            };
            if !may_replace && !is_same(entry, planned) {
                return Err(self.conflict(has_another(draft)).about(&planned.file.name));
            }
            for (file, add) in &self.attachments {
                match entry.attachments.iter().find(|attachment| attachment.name == add.name) {
                    Some(attachment) if may_replace || attachment.blob_digest == add.blob_digest => {}
                    None if draft => {}
                    Some(_) => return Err(self.conflict(has_another(draft)).about(&file.name)),
                    None => return Err(self.conflict("is published without this attachment").about(&file.name)),
                }
            }
        }
        Ok(())
    }

    fn conflict(&self, what: &str) -> Failure {
        let PushArgs { image, version, .. } = self.args;
        Failure::new(Kind::Conflict, format!("{}:{} {what}", **image, **version))
    }

    async fn create(&self) -> Result<(), Failure> {
        let PushArgs { image, version, .. } = self.args;
        let create = CreateImage { name: image.clone(), display_name: None, description: None };
        there_already(
            self.remote.ask(self.report, async |client| client.create_image().body(create.clone()).send().await).await,
        )?;
        let create = CreateVersion { version: version.clone() };
        let created = self
            .remote
            .ask(self.report, async |client| {
                client.create_version().image(image.as_str()).body(create.clone()).send().await
            })
            .await;
        there_already(created)
    }

    /// Makes the draft have what is planned.
    async fn fill_draft(&self) -> Result<(), Failure> {
        let PushArgs { image, version, .. } = self.args;
        for planned in &self.artifacts {
            let entry = match self.entry(planned).await? {
                Some(entry) if is_same(&entry, planned) => entry,
                other => {
                    if let Some(entry) = other {
                        self.remove(&entry).await?;
                    }
                    self.add(planned).await?
                }
            };
            for (file, add) in &self.attachments {
                self.attach(&entry, file, add).await?;
            }
            let digest = &planned.file.digest;
            self.report.say(&Event::Added { file: &planned.file.name, digest, image, version });
        }
        Ok(())
    }

    /// What the version has now. Somebody else may be adding to it.
    async fn entry(&self, planned: &Planned) -> Result<Option<ManifestEntry>, Failure> {
        let manifest = self.manifest().await?.ok_or_else(|| self.conflict("was deleted meanwhile"))?;
        self.check(&manifest)?;
        Ok(manifest.artifacts.into_iter().find(|entry| is_for(entry, planned)))
    }

    async fn add(&self, planned: &Planned) -> Result<ManifestEntry, Failure> {
        let PushArgs { image, version, .. } = self.args;
        let add = async |client: &Client| {
            let add = client.add_artifact().image(image.as_str()).version(version.as_str());
            add.body(planned.add.clone()).send().await
        };
        let added = self.remote.ask(self.report, add).await;
        let entry = self.entry(planned).await?.filter(|entry| is_same(entry, planned));
        match added {
            Err(failure) if !is_settled(&failure) => Err(failure),
            Err(failure) => entry.ok_or(failure),
            Ok(_) => entry.ok_or_else(|| self.conflict("lost what was added to it")),
        }
    }

    async fn remove(&self, entry: &ManifestEntry) -> Result<(), Failure> {
        let PushArgs { image, version, .. } = self.args;
        let id = entry.artifact.id;
        let removed = self
            .remote
            .ask(self.report, async |client| {
                client.remove_artifact().image(image.as_str()).version(version.as_str()).artifact_id(id).send().await
            })
            .await;
        gone_already(removed)
    }

    async fn attach(&self, entry: &ManifestEntry, file: &LocalFile, add: &AddAttachment) -> Result<(), Failure> {
        let PushArgs { image, version, .. } = self.args;
        let artifact = entry.artifact.id;
        match entry.attachments.iter().find(|attachment| attachment.name == add.name) {
            Some(attachment) if attachment.blob_digest == add.blob_digest => return Ok(()),
            Some(attachment) => {
                let id = attachment.id;
                let removed = self
                    .remote
                    .ask(self.report, async |client| {
                        let remove = client.remove_attachment().image(image.as_str()).version(version.as_str());
                        remove.artifact_id(artifact).attachment_id(id).send().await
                    })
                    .await;
                gone_already(removed)?;
            }
            None => {}
        }
        let added = self
            .remote
            .ask(self.report, async |client| {
                let attach =
                    client.add_attachment().image(image.as_str()).version(version.as_str()).artifact_id(artifact);
                attach.body(add.clone()).send().await
            })
            .await;
        match added {
            Err(failure) if is_settled(&failure) => {
                let manifest = self.manifest().await?.ok_or_else(|| self.conflict("was deleted meanwhile"))?;
                let entry = manifest.artifacts.iter().find(|entry| entry.artifact.id == artifact);
                let attached = entry.and_then(|entry| entry.attachments.iter().find(|other| other.name == add.name));
                match attached {
                    Some(attached) if attached.blob_digest == add.blob_digest => Ok(()),
                    _ => Err(failure.about(&file.name)),
                }
            }
            added => added.map(drop).map_err(|failure| failure.about(&file.name)),
        }
    }

    async fn publish(&self) -> Result<(), Failure> {
        let PushArgs { image, version, .. } = self.args;
        let publish = async |client: &Client| {
            client.publish_version().image(image.as_str()).version(version.as_str()).send().await
        };
        let mut job = self.remote.ask(self.report, publish).await?;
        self.report.say(&Event::Publishing { image, version, job_id: job.id });
        if job.state == JobState::Failed {
            // It failed before this run, which has since made sure that all files are there.
            job = retry(self.remote, self.report, job.id).await?;
        }
        follow(self.remote, self.report, job).await
    }
}

/// Waits until the job has ended.
pub(crate) async fn follow(remote: &Remote, report: &Report, mut job: PublishJob) -> Result<(), Failure> {
    let (id, mut poll) = (job.id, Poll::default());
    loop {
        match job.state {
            JobState::Succeeded => return Ok(()),
            JobState::Failed => return Err(failed(&job)),
            JobState::Queued | JobState::Running => {}
        }
        poll.pause().await;
        job = get_job(remote, report, id).await?;
    }
}

/// Makes a failed job go on. That it cannot be done twice is no failure: its answer was lost, or another one did it.
pub(crate) async fn retry(remote: &Remote, report: &Report, id: Uuid) -> Result<PublishJob, Failure> {
    match remote.ask(report, async |client| client.retry_job().job_id(id).send().await).await {
        Err(failure) if failure.kind() == Kind::Conflict => {
            let job = get_job(remote, report, id).await?;
            if job.state == JobState::Failed { Err(failure) } else { Ok(job) }
        }
        retried => retried,
    }
}

pub(crate) async fn get_job(remote: &Remote, report: &Report, id: Uuid) -> Result<PublishJob, Failure> {
    remote.ask(report, async |client| client.get_job().job_id(id).send().await).await
}

fn failed(job: &PublishJob) -> Failure {
    let step = job.failed_step.as_deref().map(|step| format!("in the step {step}: ")).unwrap_or_default();
    let reason = job.failure_message.as_deref().unwrap_or("without a reason");
    Failure::other(format!(
        "publishing {}:{} failed {step}{reason}; `imgsrv jobs retry {id}` goes on there, `imgsrv jobs abandon {id}` makes it a draft again",
        *job.image_name,
        *job.version,
        id = job.id,
    ))
}

fn is_draft(manifest: &Manifest) -> bool {
    manifest.version.state == VersionState::Draft
}

fn is_published(manifest: &Manifest) -> bool {
    manifest.version.state == VersionState::Published
}

fn is_for(entry: &ManifestEntry, Planned { add, .. }: &Planned) -> bool {
    let artifact = &entry.artifact;
    artifact.operating_system == add.operating_system
        && artifact.architecture == add.architecture
        && artifact.format == add.format
        && Some(artifact.variant.as_str()) == add.variant.as_ref().map(|variant| variant.as_str())
}

fn is_same(entry: &ManifestEntry, planned: &Planned) -> bool {
    entry.artifact.primary_blob_digest == planned.file.digest
}

fn has_another(draft: bool) -> &'static str {
    if draft {
        "has another file in its place; --replace takes this one"
    } else {
        "is published with another file in its place"
    }
}

/// Whether what the version has now decides: an answer was lost, or another one does the same.
fn is_settled(failure: &Failure) -> bool {
    matches!(failure.status(), Some(409 | 412))
}

fn there_already<T>(created: Result<T, Failure>) -> Result<(), Failure> {
    match created {
        Err(failure) if failure.status() != Some(409) => Err(failure),
        _ => Ok(()),
    }
}

fn gone_already<T>(removed: Result<T, Failure>) -> Result<(), Failure> {
    match removed {
        Err(failure) if failure.kind() != Kind::NotFound => Err(failure),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_formats_are_those_of_the_specification() {
        let specification: Value = serde_json::from_str(include_str!("../../imgsrv.json")).unwrap();
        let mut formats = FORMATS;
        let mut specified: Vec<String> =
            serde_json::from_value(specification["components"]["schemas"]["Format"]["enum"].clone()).unwrap();
        formats.sort_unstable();
        specified.sort_unstable();
        assert_eq!(json!(specified), json!(formats));
    }

    #[test]
    fn attachments() {
        let attach = Attach::parse(OsStr::new("a.b=c=d")).unwrap();
        assert_eq!((attach.name.as_str(), attach.path.to_str()), ("a.b", Some("c=d")));
        for text in ["", "a", "=b", "a b=c"] {
            assert!(Attach::parse(OsStr::new(text)).is_err(), "{text}");
        }
    }
}
