//! Whether anybody can manage the server.

use chrono::{DateTime, Utc};
use imgsrv_core::{Clock, Condition, Db, Error, Result, Tx};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};

use super::entity::{api_token, principal_role};
use super::id::OpaqueId;
use super::roles::Role;

/// Whether a principal with the role `auth-manager` has a token that is neither expired nor revoked.
///
/// A role alone opens nothing: were it enough, a manager whose only token ran out would lock everybody out for good.
pub(super) async fn any_usable(tx: &Tx, now: DateTime<Utc>) -> Result<bool> {
    // Asked for first, because they are few: PostgreSQL might begin a join with the tokens, which are many.
    let managers = principal_role::Entity::find()
        .select_only()
        .column(principal_role::Column::PrincipalId)
        .filter(principal_role::Column::Role.eq(Role::AuthManager))
        .into_tuple::<OpaqueId>()
        .all(tx)
        .await
        .map_err(Db::error)?;
    let usable = api_token::Entity::find()
        .select_only()
        .column(api_token::Column::Id)
        .filter(api_token::Column::PrincipalId.is_in(managers))
        .filter(api_token::Column::RevokedAt.is_null())
        .filter(api_token::Column::ExpiresAt.gt(now))
        .into_tuple::<OpaqueId>()
        .one(tx)
        .await
        .map_err(Db::error)?;
    Ok(usable.is_some())
}

/// Makes a change that may take a manager's credential away, unless nobody could manage the server afterwards.
///
/// Of two such changes at once the second waits for the first: it must see what is left.
pub(super) async fn keep_one(tx: &Tx, clock: &Clock, change: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    Db::lock_instance(tx).await?;
    let now = clock.now();
    let managed = any_usable(tx, now).await?;
    change().await?;
    if managed && !any_usable(tx, now).await? {
        return Err(Error::precondition(
            Condition::LastManager,
            "it is the last usable credential of an auth-manager; nobody could manage the server without it",
        ));
    }
    Ok(())
}
