//! The fixed roles, and who has them.

use std::fmt;
use std::str::FromStr;

use imgsrv_core::model::{InvalidText, Subject, Text};
use imgsrv_core::{Change, Db, Engine, Result, Tx, detached};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, Iterable, QueryFilter, Set};

use super::Action;
use super::entity::principal_role;
use super::id::OpaqueId;
use super::managers::keep_one;
use super::principals::{missing, require};

/// What a principal may be given; neither role contains the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sea_orm::EnumIter, sea_orm::DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Role {
    #[sea_orm(string_value = "content-writer")]
    ContentWriter,
    #[sea_orm(string_value = "auth-manager")]
    AuthManager,
}

impl Role {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }

    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::ContentWriter => "content-writer",
            Self::AuthManager => "auth-manager",
        }
    }

    pub(super) const fn display_name(self) -> &'static str {
        match self {
            Self::ContentWriter => "Content writer",
            Self::AuthManager => "Auth manager",
        }
    }

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::ContentWriter => "Uploads blobs, edits the catalogue, publishes versions and sees drafts.",
            Self::AuthManager => "Manages principals, their roles and their tokens.",
        }
    }

    pub(super) const fn actions(self) -> &'static [Action] {
        match self {
            Self::ContentWriter => &[Action::WriteContent],
            Self::AuthManager => &[Action::ManageAuth],
        }
    }
}

impl Text for Role {
    const NAME: &'static str = "RoleId";
    const WHAT: &'static str = "role";
    const PATTERN: &'static str = "^(content-writer|auth-manager)$";
    const EXAMPLE: &'static str = "content-writer";
    const WORDS: &'static [&'static str] = &["content-writer", "auth-manager"];
}

impl FromStr for Role {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Self::all().find(|role| role.id() == text).ok_or(InvalidText::of::<Self>())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl AsRef<str> for Role {
    fn as_ref(&self) -> &str {
        self.id()
    }
}

/// Gives a role; giving it again changes nothing.
pub(super) async fn assign(engine: &Engine, principal: OpaqueId, role: Role) -> Result<()> {
    let engine = engine.clone();
    detached(
        async move { engine.db().tx("assign role", async |tx| assign_in(tx, &engine, &principal, role).await).await },
    )
    .await
}

/// The same within a transaction.
pub(super) async fn assign_in(tx: &Tx, engine: &Engine, principal: &OpaqueId, role: Role) -> Result<()> {
    let at = engine.clock().now();
    let row =
        principal_role::ActiveModel { principal_id: Set(principal.clone()), role: Set(role), created_at: Set(at) };
    let inserted = principal_role::Entity::insert(row)
        .on_conflict(
            OnConflict::columns([principal_role::Column::PrincipalId, principal_role::Column::Role])
                .do_nothing()
                .to_owned(),
        )
        .exec_without_returning(tx)
        .await
        .map_err(|err| missing(principal, err))?;
    if inserted > 0 {
        engine.record(tx, Change::new(Subject::Principal, principal, "role assigned").to(role.id())).await?;
    }
    Ok(())
}

/// Takes a role away; taking it away again changes nothing. Nobody can take the last usable manager's.
pub(super) async fn unassign(engine: &Engine, principal: OpaqueId, role: Role) -> Result<()> {
    let engine = engine.clone();
    detached(async move {
        engine
            .db()
            .tx("unassign role", async |tx| {
                keep_one(tx, engine.clock(), async || {
                    let deleted = principal_role::Entity::delete_many()
                        .filter(principal_role::Column::PrincipalId.eq(principal.clone()))
                        .filter(principal_role::Column::Role.eq(role))
                        .exec(tx)
                        .await
                        .map_err(Db::error)?;
                    if deleted.rows_affected == 0 {
                        return require(tx, &principal).await;
                    }
                    engine
                        .record(tx, Change::new(Subject::Principal, &principal, "role unassigned").from(role.id()))
                        .await
                })
                .await
            })
            .await
    })
    .await
}

#[cfg(test)]
mod tests {
    use sea_orm::ActiveEnum;

    use super::*;

    #[test]
    fn a_role_has_one_spelling() {
        for role in Role::all() {
            assert_eq!(role.id().parse(), Ok(role));
            assert_eq!(role.to_value(), role.id());
            assert!(Role::PATTERN.contains(role.id()));
        }
        assert!("admin".parse::<Role>().is_err());
    }
}
