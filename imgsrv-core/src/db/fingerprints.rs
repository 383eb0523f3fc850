//! The fingerprints of Incus, which cost a pass over an image to compute.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel};

use super::entity::incus_fingerprint::{Entity, Model};
use super::{Tx, db_error};
use crate::Result;
use crate::model::Digest;

pub(crate) async fn get(db: &impl ConnectionTrait, metadata: &Digest, root: &Digest) -> Result<Option<Digest>> {
    let row = Entity::find_by_id((metadata.clone(), root.clone())).one(db).await.map_err(db_error)?;
    Ok(row.map(|row| row.fingerprint))
}

/// Another node may have computed the same meanwhile.
pub(crate) async fn insert(tx: &Tx, metadata: Digest, root: Digest, fingerprint: Digest) -> Result<()> {
    let row = Model { metadata_digest: metadata, root_digest: root, fingerprint }.into_active_model();
    let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned());
    match insert.exec_without_returning(tx).await {
        Ok(_) | Err(DbErr::RecordNotInserted) => Ok(()),
        Err(err) => Err(db_error(err)),
    }
}
