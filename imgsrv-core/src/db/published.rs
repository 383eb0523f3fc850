//! The published catalogue, as projections read it.
//!
//! A row that cannot be read is logged and left out, with the version that it is of: one bad row must not take the rest of
//! the catalogue away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QueryResult, QueryTrait,
    Select, TryGetable,
};
use serde_json::Value;

use super::entity::{alias, artifact, attachment, catalog_generation, image, job, publish_step, version};
use super::{Tx, artifacts, catalog, db_error};
use crate::model::{
    Alias, Artifact, ArtifactEntry, ArtifactId, Attachment, Image, ImageId, JobId, JobKind, JobOutcome, Outputs,
    Version, VersionId, VersionState,
};
use crate::{Error, Result};

/// How many ids one query names: few enough for every database, many enough for few queries.
const BATCH: usize = 500;

/// How often the public has seen a change.
pub(crate) async fn generation(db: &impl ConnectionTrait) -> Result<i64> {
    let row = catalog_generation::Entity::find().one(db).await.map_err(db_error)?;
    Ok(row.ok_or_else(|| Error::bug("the table catalog_generation has no row"))?.n)
}

/// The images of which the public has seen a change after that generation.
pub(crate) async fn images_changed_after(tx: &Tx, generation: i64) -> Result<Vec<Image>> {
    let select = image::Entity::find().filter(image::Column::Generation.gt(generation));
    Ok(readable(tx, "images", select).await?.into_iter().map(Image::from).collect())
}

/// The published versions of images, oldest first.
pub(crate) async fn versions(tx: &Tx, images: &[ImageId]) -> Result<HashMap<ImageId, Vec<Version>>> {
    let mut found = HashMap::<_, Vec<_>>::new();
    for images in images.chunks(BATCH) {
        let select = version::Entity::find()
            .filter(version::Column::ImageId.is_in(images.iter().copied()))
            .filter(version::Column::State.eq(VersionState::Published))
            .order_by_asc(version::Column::PublishedAt)
            .order_by_asc(version::Column::Id);
        for row in readable(tx, "versions", select).await? {
            found.entry(row.image_id).or_default().push(row.into());
        }
    }
    Ok(found)
}

/// The aliases of images that point at one of these versions, by name.
pub(crate) async fn aliases(
    tx: &Tx,
    images: &[ImageId],
    versions: impl Iterator<Item = &Version>,
) -> Result<HashMap<ImageId, Vec<Alias>>> {
    let versions: HashMap<VersionId, &Version> = versions.map(|version| (version.id, version)).collect();
    let mut found = HashMap::<_, Vec<_>>::new();
    for images in images.chunks(BATCH) {
        let select = alias::Entity::find()
            .filter(alias::Column::ImageId.is_in(images.iter().copied()))
            .order_by_asc(alias::Column::Alias);
        for row in readable(tx, "aliases", select).await? {
            if let Some(version) = versions.get(&row.version_id) {
                found.entry(row.image_id).or_default().push(catalog::alias_of(row, version.version.clone()));
            }
        }
    }
    Ok(found)
}

/// The artifacts of versions in the order in which they were added, each with its attachments by name. A version is not
/// among them where one of its rows cannot be read.
pub(crate) async fn entries(tx: &Tx, versions: &[VersionId]) -> Result<HashMap<VersionId, Vec<ArtifactEntry>>> {
    let mut found = HashMap::<_, Vec<_>>::new();
    for versions in versions.chunks(BATCH) {
        let select = artifact::Entity::find()
            .filter(artifact::Column::VersionId.is_in(versions.iter().copied()))
            .order_by_asc(artifact::Column::CreatedAt)
            .order_by_asc(artifact::Column::Id);
        let (artifacts, mut spoilt) =
            rows::<_, Artifact, VersionId>(tx, "artifacts", select, "version_id", TryInto::try_into).await?;
        let ids: Vec<_> = artifacts.iter().map(|artifact| artifact.id).collect();
        let (attachments, bare) = attachments(tx, &ids).await?;
        spoilt.extend(
            artifacts.iter().filter(|artifact| bare.contains(&artifact.id)).map(|artifact| artifact.version_id),
        );
        for entry in artifacts::with_attachments(artifacts, attachments) {
            found.entry(entry.artifact.version_id).or_default().push(entry);
        }
        found.retain(|version, _| !spoilt.contains(version));
    }
    Ok(found)
}

/// The attachments of artifacts, and the artifacts of which one cannot be read.
async fn attachments(tx: &Tx, artifacts: &[ArtifactId]) -> Result<(Vec<Attachment>, HashSet<ArtifactId>)> {
    let (mut found, mut spoilt) = (Vec::new(), HashSet::new());
    for artifacts in artifacts.chunks(BATCH) {
        let select = attachment::Entity::find()
            .filter(attachment::Column::ArtifactId.is_in(artifacts.iter().copied()))
            .order_by_asc(attachment::Column::Name);
        let (attachments, of) =
            rows::<_, Attachment, ArtifactId>(tx, "attachments", select, "artifact_id", TryInto::try_into).await?;
        found.extend(attachments);
        spoilt.extend(of);
    }
    Ok((found, spoilt))
}

/// What the steps found out that published the versions.
pub(crate) async fn outputs(tx: &Tx, versions: &[VersionId]) -> Result<HashMap<VersionId, Outputs>> {
    let mut found = HashMap::<_, Outputs>::new();
    for versions in versions.chunks(BATCH) {
        let subjects: BTreeMap<String, VersionId> = versions.iter().map(|id| (id.to_string(), *id)).collect();
        let select = job::Entity::find()
            .filter(job::Column::Kind.eq(JobKind::Publish))
            .filter(job::Column::Subject.is_in(subjects.keys()))
            .filter(job::Column::Outcome.eq(JobOutcome::Succeeded));
        let jobs: HashMap<JobId, VersionId> = readable(tx, "jobs", select)
            .await?
            .into_iter()
            .filter_map(|job| Some((job.id, *subjects.get(&job.subject)?)))
            .collect();
        let select = publish_step::Entity::find()
            .filter(publish_step::Column::JobId.is_in(jobs.keys().copied()))
            .filter(publish_step::Column::Output.is_not_null());
        for row in readable(tx, "publish_steps", select).await? {
            if let (Some(version), Some(output)) =
                (jobs.get(&row.job_id), row.output.filter(|output| *output != Value::Null))
            {
                found.entry(*version).or_default().insert(row.name, output);
            }
        }
    }
    Ok(found)
}

async fn raw<E: EntityTrait>(tx: &Tx, select: Select<E>) -> Result<Vec<QueryResult>> {
    tx.query_all_raw(select.build(tx.get_database_backend())).await.map_err(db_error)
}

async fn readable<E: EntityTrait>(tx: &Tx, table: &'static str, select: Select<E>) -> Result<Vec<E::Model>> {
    let rows = raw(tx, select).await?;
    Ok(rows.iter().filter_map(|row| valid(table, E::Model::from_query_result(row, ""))).collect())
}

/// What can be read of a table, and the owners, named in that column, of what cannot.
async fn rows<E: EntityTrait, T, O: TryGetable + Eq + Hash>(
    tx: &Tx,
    table: &'static str,
    select: Select<E>,
    owner: &str,
    convert: impl Fn(E::Model) -> Result<T>,
) -> Result<(Vec<T>, HashSet<O>)> {
    let rows = raw(tx, select).await?;
    let (mut found, mut spoilt) = (Vec::new(), HashSet::new());
    for row in &rows {
        let model = valid(table, E::Model::from_query_result(row, ""));
        match model.and_then(|model| valid(table, convert(model))) {
            Some(value) => found.push(value),
            None => spoilt.extend(row.try_get::<O>("", owner).ok()),
        }
    }
    Ok((found, spoilt))
}

fn valid<T, E: Display>(table: &'static str, row: Result<T, E>) -> Option<T> {
    row.inspect_err(|err| tracing::error!(table, error = %err, "a row of the published catalogue cannot be read")).ok()
}
