//! What two engines and their database say, in the words of the model.

use std::collections::BTreeMap;
use std::fmt::Debug;

use chrono::{DateTime, Utc};
use imgsrv_core::Error;
use imgsrv_core::model::{
    BlobState, ImageName, JobId, Page, Scope, SweepPlan, UploadFilter, UploadId, UploadState, VersionState,
};
use imgsrv_core::sea_orm::{ConnectionTrait, QueryResult, Statement};
use uuid::Uuid;

use super::operation::{ALIASES, CONTENTS, FORMATS, Harm, IMAGES, NOTES, Piece, Place, VERSIONS};
use super::state::{Artifact, Blob, Ended, Job, Part, Plan, State, Upload, Version, Work};
use super::world::World;
use crate::fixture::{Fixture, image, read, version};

/// Everything, from one engine or the other. Whatever can be read is read.
pub(super) async fn look(world: &World<'_>) -> State {
    let f = world.f;
    let (images, ids) = images(f).await;
    let (uploads, blobs) = (uploads(world).await, blobs(world).await);
    let mut plans = BTreeMap::new();
    for (step, id) in &world.plans {
        match f.other.get_sweep_plan(*id).await {
            Ok(plan) => drop(plans.insert(*step, plan_of(&plan))),
            Err(Error::NotFound(_)) => {}
            Err(err) => panic!("{err}"),
        }
    }
    let aliases = aliases(f, &images).await;
    let seen = State { now: f.clock.now(), images, aliases, uploads, blobs, jobs: jobs(world, &ids).await, plans };
    check_public(f, &seen).await;
    seen
}

/// What differs, each thing on two lines.
pub(super) fn differences(model: &State, engine: &State) -> String {
    let mut text = String::new();
    compare(&mut text, "image", &model.images, &engine.images);
    compare(&mut text, "alias", &model.aliases, &engine.aliases);
    compare(&mut text, "upload", &model.uploads, &engine.uploads);
    compare(&mut text, "blob", &model.blobs, &engine.blobs);
    compare(&mut text, "plan", &model.plans, &engine.plans);
    let numbered = |state: &State| state.jobs.iter().cloned().enumerate().collect::<BTreeMap<_, _>>();
    compare(&mut text, "job", &numbered(model), &numbered(engine));
    text
}

fn compare<K: Debug + Ord, V: Debug + PartialEq>(
    text: &mut String,
    what: &str,
    model: &BTreeMap<K, V>,
    engine: &BTreeMap<K, V>,
) {
    let keys: std::collections::BTreeSet<_> = model.keys().chain(engine.keys()).collect();
    for key in keys.into_iter().filter(|key| model.get(*key) != engine.get(*key)) {
        let (model, engine) = (model.get(key), engine.get(key));
        text.push_str(&format!("{what} {key:?}\n  model:  {model:?}\n  engine: {engine:?}\n"));
    }
}

async fn rows(f: &Fixture, sql: &str) -> Vec<QueryResult> {
    let statement = Statement::from_string(f.database.get_database_backend(), sql);
    f.database.query_all_raw(statement).await.expect(sql)
}

fn known(names: &[&'static str], name: &str) -> &'static str {
    names.iter().find(|known| **known == name).unwrap_or_else(|| panic!("nobody made {name}"))
}

fn content_of(digest: &str) -> usize {
    CONTENTS.iter().position(|content| content.0.as_ref() == digest).expect("a content of ours")
}

fn plan_of(plan: &SweepPlan) -> Plan {
    let blobs = plan.blobs.iter().map(|blob| (content_of(blob.digest.as_ref()), blob.action)).collect();
    Plan { created_at: plan.created_at, blobs }
}

type Images = BTreeMap<&'static str, BTreeMap<&'static str, Version>>;

/// The catalogue, and the versions by their ids.
async fn images(f: &Fixture) -> (Images, BTreeMap<String, Place>) {
    let (mut images, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for found in f.engine.list_images(Scope::All, Page::default()).await.expect("images").items {
        let name = known(IMAGES, found.name.as_ref());
        let mut versions = BTreeMap::new();
        for state in VersionState::ALL {
            let listed =
                f.other.list_versions(&found.name, *state, Scope::All, Page::default()).await.expect("versions");
            for listed in listed.items {
                let number = known(VERSIONS, listed.version.as_ref());
                ids.insert(listed.id.to_string(), (name, number));
                versions.insert(number, manifest(f, &found.name, number).await);
                assert_eq!(versions[number].state, *state);
            }
        }
        images.insert(name, versions);
    }
    (images, ids)
}

async fn manifest(f: &Fixture, image: &ImageName, number: &str) -> Version {
    let manifest = f.engine.get_manifest(image, &version(number), Scope::All).await.expect("a manifest");
    let mut artifacts = BTreeMap::new();
    for entry in manifest.artifacts {
        let attached = entry
            .attachments
            .iter()
            .map(|attachment| (known(NOTES, attachment.name.as_ref()), content_of(attachment.blob.digest.as_ref())));
        let (content, attachments) = (content_of(entry.artifact.blob.digest.as_ref()), attached.collect());
        artifacts.insert(known(FORMATS, entry.artifact.format.word()), Artifact { content, attachments });
    }
    Version { state: manifest.version.state, artifacts }
}

async fn aliases(f: &Fixture, images: &Images) -> BTreeMap<(&'static str, &'static str), &'static str> {
    let mut aliases = BTreeMap::new();
    for name in images.keys() {
        for alias in f.engine.list_aliases(&image(name), Scope::All, Page::default()).await.expect("aliases").items {
            aliases.insert((*name, known(ALIASES, alias.alias.as_ref())), known(VERSIONS, alias.version.as_ref()));
        }
    }
    aliases
}

async fn uploads(world: &World<'_>) -> BTreeMap<usize, Upload> {
    let f = world.f;
    let mut hidden = BTreeMap::new();
    for row in rows(f, "select id, attempts, updated_at from uploads").await {
        let id: Uuid = row.try_get_by_index(0).expect("an id");
        let attempts: i32 = row.try_get_by_index(1).expect("a number");
        let updated_at: DateTime<Utc> = row.try_get_by_index(2).expect("a time");
        hidden.insert(id, (attempts, updated_at));
    }
    let steps: BTreeMap<UploadId, usize> = world.uploads.iter().map(|(step, upload)| (upload.0, *step)).collect();
    let mut uploads = BTreeMap::new();
    for found in f.other.list_uploads(UploadFilter::default()).await.expect("sessions").items {
        let content = content_of(found.expected_digest.as_ref());
        let (attempts, updated_at) = hidden[&found.id.0];
        let step = steps.get(&found.id).unwrap_or_else(|| panic!("nobody began {found:?}"));
        let mut parts = BTreeMap::new();
        if !found.state.is_terminal() {
            for part in f.engine.list_parts(found.id).await.expect("parts") {
                let piece = Piece::with_etag(content, part.etag.as_ref()).expect("a piece of ours");
                parts.insert(part.number.get(), Part { piece, attempt: 0, after: None });
            }
        }
        if matches!(found.state, UploadState::Created | UploadState::Uploading) {
            assert_eq!(found.received, parts.values().map(|part| part.piece.size() as u64).sum::<u64>(), "{found:?}");
        }
        let wrong_size = found.expected_size != CONTENTS[content].1.len() as u64;
        let (state, expires_at) = (found.state, found.expires_at);
        uploads.insert(*step, Upload { content, wrong_size, state, parts, attempts, expires_at, updated_at });
    }
    for row in rows(f, "select upload_id, number, attempt, chain_after from parts").await {
        let id: Uuid = row.try_get_by_index(0).expect("an id");
        let number: i32 = row.try_get_by_index(1).expect("a number");
        let step = steps.get(&id.into()).expect("it was begun by us");
        let upload = uploads.get_mut(step).expect("a part has a session");
        if let Some(part) = upload.parts.get_mut(&u16::try_from(number).expect("a part number")) {
            part.attempt = row.try_get_by_index(2).expect("a number");
            part.after = row.try_get_by_index(3).expect("a number or none");
        }
    }
    uploads
}

async fn blobs(world: &World<'_>) -> BTreeMap<usize, Blob> {
    let f = world.f;
    let mut blobs = BTreeMap::new();
    for row in rows(f, "select digest, condemned_at from blobs").await {
        let content = content_of(&row.try_get_by_index::<String>(0).expect("a digest"));
        let condemned_at: Option<DateTime<Utc>> = row.try_get_by_index(1).expect("a time or none");
        let (digest, bytes) = &CONTENTS[content];
        let blob = f.engine.get_blob(digest, Scope::All).await.expect("a blob");
        assert_eq!(blob.size, bytes.len() as u64);
        let objects = f.other.blob_objects(digest).await.expect("objects");
        let harm = objects.first().and_then(|object| world.harmed.get(&object.key)).copied();
        let harm = harm.filter(|harm| *harm != Harm::Undone);
        if harm.is_none() && BlobState::CITABLE.contains(&blob.state) {
            let found = read(&f.other, digest, None).await;
            assert!(found.as_ref().is_ok_and(|found| found == bytes), "content {content} is lost: {:?}", found.err());
        }
        blobs.insert(content, Blob { state: blob.state, last_used_at: blob.last_used_at, condemned_at, harm });
    }
    blobs
}

async fn jobs(world: &World<'_>, versions: &BTreeMap<String, Place>) -> Vec<Job> {
    let f = world.f;
    let mut validated = Vec::new();
    for row in rows(f, "select job_id from publish_steps where name = 'validate_catalog' and state = 'succeeded'").await
    {
        validated.push(row.try_get_by_index::<Uuid>(0).expect("an id"));
    }
    let select = "select id, kind, subject, outcome, available_at, case when lease is null then 0 else 1 end, crashes \
                  from jobs where kind = 'publish' or finished_at is null order by id";
    let mut jobs = Vec::new();
    for row in rows(f, select).await {
        let id: Uuid = row.try_get_by_index(0).expect("an id");
        let kind: String = row.try_get_by_index(1).expect("a kind");
        let subject: String = row.try_get_by_index(2).expect("a subject");
        let work = match kind.as_str() {
            "ingest" => {
                let upload: Uuid = subject.parse().expect("an id");
                let step = world.uploads.iter().find(|(_, known)| known.0.0 == upload).expect("a session of ours").0;
                Work::Ingest(*step)
            }
            "publish" => Work::Publish(versions[&subject]),
            "list-objects" => Work::Listing,
            other => panic!("nobody needs a job to {other}"),
        };
        let ended = row.try_get_by_index::<Option<String>>(3).expect("an outcome or none");
        let ended = ended.map(|outcome| match outcome.as_str() {
            "succeeded" => Ended::Succeeded,
            "failed" => Ended::Failed,
            _ => Ended::Abandoned,
        });
        jobs.push(Job {
            work,
            ended,
            available_at: row.try_get_by_index(4).expect("a time"),
            leased: row.try_get_by_index::<i32>(5).expect("a number") == 1,
            crashes: row.try_get_by_index(6).expect("a number"),
            validated: validated.contains(&id),
        });
    }
    jobs
}

/// The jobs that were made to publish a version, in their order.
pub(super) async fn publish_jobs(f: &Fixture, place: Place) -> Vec<JobId> {
    let Ok(manifest) = f.engine.get_manifest(&image(place.0), &version(place.1), Scope::All).await else {
        return Vec::new();
    };
    let subject = manifest.version.id;
    let select = format!("select id from jobs where kind = 'publish' and subject = '{subject}' order by id");
    rows(f, &select).await.iter().map(|row| row.try_get_by_index::<Uuid>(0).expect("an id").into()).collect()
}

/// What everybody may see is what was published, and all of that.
async fn check_public(f: &Fixture, seen: &State) {
    let is_public = |version: &Version| version.state == VersionState::Published;
    let listed = f.other.list_images(Scope::Published, Page::default()).await.expect("images").items;
    let listed: Vec<_> = listed.iter().map(|image| image.name.as_ref()).collect();
    let public = seen.images.iter().filter(|image| image.1.values().any(is_public));
    assert_eq!(listed, public.map(|image| *image.0).collect::<Vec<_>>());
    let published = seen.published();
    for (content, (digest, _)) in CONTENTS.iter().enumerate() {
        let found = f.engine.get_blob(digest, Scope::Published).await;
        assert_eq!(found.is_ok(), published.contains(&content), "content {content}: {found:?}");
    }
    for ((name, alias), number) in &seen.aliases {
        let resolved = f.engine.resolve(&image(name), &alias.parse().expect("a reference")).await.expect("a version");
        assert_eq!(resolved.version.as_ref(), *number);
    }
}
