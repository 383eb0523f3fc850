//! The tables, one a file, and how they hang together.

#![allow(unreachable_pub, reason = "sea-orm's derives make public items")]

use sea_orm::{EntityTrait, RelationBuilder, RelationDef};

pub(crate) mod alias;
pub(crate) mod artifact;
pub(crate) mod attachment;
pub(crate) mod blob;
pub(crate) mod blob_segment;
pub(crate) mod catalog_generation;
pub(crate) mod event;
pub(crate) mod image;
pub(crate) mod incus_fingerprint;
pub(crate) mod instance;
pub(crate) mod job;
pub(crate) mod part;
pub(crate) mod part_attempt;
pub(crate) mod publish_step;
pub(crate) mod sweep_plan;
pub(crate) mod upload;
pub(crate) mod version;

/// sea-orm asks this of every primary key; none of ours is ever counted by the database.
macro_rules! never_counted {
    ($($key:ident),+) => {
        $(impl sea_orm::TryFromU64 for crate::model::$key {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($key)))
            }
        })+
    };
}

never_counted!(
    AliasId,
    ArtifactId,
    AttachmentId,
    Digest,
    EventId,
    ImageId,
    JobId,
    StepId,
    SweepPlanId,
    UploadId,
    VersionId
);

pub(crate) fn segments_of_blob() -> RelationBuilder<blob::Entity, blob_segment::Entity> {
    blob::Entity::belongs_to(blob_segment::Entity).from(blob::Column::Digest).to(blob_segment::Column::Digest)
}

pub(crate) fn upload_of_part() -> RelationDef {
    part::Entity::belongs_to(upload::Entity).from(part::Column::UploadId).to(upload::Column::Id).into()
}

pub(crate) fn version_of_artifact() -> RelationDef {
    artifact::Entity::belongs_to(version::Entity).from(artifact::Column::VersionId).to(version::Column::Id).into()
}

pub(crate) fn artifact_of_attachment() -> RelationDef {
    attachment::Entity::belongs_to(artifact::Entity)
        .from(attachment::Column::ArtifactId)
        .to(artifact::Column::Id)
        .into()
}

pub(crate) fn version_of_alias() -> RelationDef {
    alias::Entity::belongs_to(version::Entity).from(alias::Column::VersionId).to(version::Column::Id).into()
}

pub(crate) fn alias_of_version() -> RelationDef {
    version::Entity::belongs_to(alias::Entity).from(version::Column::Id).to(alias::Column::VersionId).into()
}

pub(crate) fn image_of_alias() -> RelationDef {
    alias::Entity::belongs_to(image::Entity).from(alias::Column::ImageId).to(image::Column::Id).into()
}

pub(crate) fn image_of_version() -> RelationDef {
    version::Entity::belongs_to(image::Entity).from(version::Column::ImageId).to(image::Column::Id).into()
}
