//! Those who can hold tokens.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use imgsrv_core::model::{Cursor, InvalidText, Page, Paged, Prose, Subject, Text, has_nul};
use imgsrv_core::{Change, Db, Engine, Error, Resource, Result, Tx, detached};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set, SqlErr};
use serde_json::Value;

use super::entity::{principal, principal_role};
use super::id::OpaqueId;
use super::roles::Role;

/// What a principal is, for people to tell them apart; nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sea_orm::EnumIter, sea_orm::DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum PrincipalKind {
    #[sea_orm(string_value = "user")]
    User,
    #[sea_orm(string_value = "service")]
    Service,
}

impl Text for PrincipalKind {
    const NAME: &'static str = "PrincipalKind";
    const WHAT: &'static str = "kind";
    const PATTERN: &'static str = "^(user|service)$";
    const EXAMPLE: &'static str = "service";
    const WORDS: &'static [&'static str] = &["user", "service"];
}

impl AsRef<str> for PrincipalKind {
    fn as_ref(&self) -> &str {
        match self {
            Self::User => "user",
            Self::Service => "service",
        }
    }
}

impl FromStr for PrincipalKind {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        [Self::User, Self::Service].into_iter().find(|kind| kind.as_ref() == text).ok_or(InvalidText::of::<Self>())
    }
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_ref())
    }
}

/// A principal to create.
#[derive(Clone, Debug)]
pub(super) struct NewPrincipal {
    pub(super) kind: PrincipalKind,
    pub(super) display_name: Prose,
    pub(super) attributes: Option<BTreeMap<String, Value>>,
    pub(super) bootstrap: bool,
}

/// A principal and its roles, in the order of [`Role::all`].
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) principal: principal::Model,
    pub(super) roles: Vec<Role>,
}

pub(super) async fn create(engine: &Engine, new: NewPrincipal) -> Result<Account> {
    let engine = engine.clone();
    let principal =
        detached(async move { engine.db().tx("create principal", async |tx| create_in(tx, &engine, new).await).await })
            .await?;
    Ok(Account { principal, roles: Vec::new() })
}

/// The same within a transaction.
pub(super) async fn create_in(tx: &Tx, engine: &Engine, new: NewPrincipal) -> Result<principal::Model> {
    let attributes = new.attributes.map(|members| Value::Object(members.into_iter().collect()));
    if attributes.as_ref().is_some_and(has_nul) {
        return Err(Error::Invalid { what: "attributes", reason: "must not contain the character U+0000".to_owned() });
    }
    let at = engine.clock().now();
    let row = principal::ActiveModel {
        id: Set(engine.clock().new_id().into()),
        kind: Set(new.kind),
        display_name: Set(new.display_name),
        attributes: Set(attributes),
        bootstrap: Set(new.bootstrap),
        created_at: Set(at),
    };
    let principal = principal::Entity::insert(row).exec_with_returning(tx).await.map_err(Db::error)?;
    engine.record(tx, Change::new(Subject::Principal, &principal.id, "created").to(principal.kind)).await?;
    Ok(principal)
}

pub(super) async fn get(engine: &Engine, id: OpaqueId) -> Result<Account> {
    let db = engine.db().clone();
    detached(async move {
        db.snapshot("get principal", async |tx| {
            let principal = principal::Entity::find_by_id(id.clone()).one(tx).await.map_err(Db::error)?;
            let accounts = with_roles(tx, principal.into_iter().collect()).await?;
            accounts.into_iter().next().ok_or_else(|| not_found(&id))
        })
        .await
    })
    .await
}

/// Oldest first.
pub(super) async fn list(engine: &Engine, page: Page) -> Result<Paged<Account>> {
    let db = engine.db().clone();
    detached(async move {
        db.snapshot("list principals", async |tx| {
            let mut query = principal::Entity::find().order_by_asc(principal::Column::Id).limit(page.limit() + 1);
            if let Some(after) = last_seen(&page)? {
                query = query.filter(principal::Column::Id.gt(after));
            }
            let rows = query.all(tx).await.map_err(Db::error)?;
            let Paged { items, next } = Paged::from_rows(rows, &page, |row| Cursor::behind(&[row.id.as_ref()]));
            Ok(Paged { items: with_roles(tx, items).await?, next })
        })
        .await
    })
    .await
}

/// The id that the page begins behind. Ids sort by time, so they are the order of every list here.
pub(super) fn last_seen(page: &Page) -> Result<Option<OpaqueId>> {
    let Some(cursor) = page.after() else { return Ok(None) };
    cursor.keys::<1>().and_then(|[id]| id.parse().ok()).map(Some).ok_or_else(Page::bad_cursor)
}

async fn with_roles(tx: &Tx, principals: Vec<principal::Model>) -> Result<Vec<Account>> {
    let ids = principals.iter().map(|principal| principal.id.clone());
    let held = principal_role::Entity::find()
        .filter(principal_role::Column::PrincipalId.is_in(ids))
        .all(tx)
        .await
        .map_err(Db::error)?;
    let held: HashSet<_> = held.into_iter().map(|row| (row.principal_id, row.role)).collect();
    let account = |principal: principal::Model| {
        let roles = Role::all().filter(|role| held.contains(&(principal.id.clone(), *role))).collect();
        Account { principal, roles }
    };
    Ok(principals.into_iter().map(account).collect())
}

/// Fails when there is no such principal.
pub(super) async fn require(tx: &Tx, id: &OpaqueId) -> Result<()> {
    match principal::Entity::find_by_id(id.clone()).one(tx).await.map_err(Db::error)? {
        Some(_) => Ok(()),
        None => Err(not_found(id)),
    }
}

/// What it means that a row which names the principal could not be written.
pub(super) fn missing(id: &OpaqueId, err: DbErr) -> Error {
    match err.sql_err() {
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => not_found(id),
        _ => Db::error(err),
    }
}

fn not_found(id: &OpaqueId) -> Error {
    Error::NotFound(Resource::Other("principal", id.to_string()))
}

#[cfg(test)]
mod tests {
    use sea_orm::{ActiveEnum, Iterable};

    use super::*;

    #[test]
    fn a_kind_has_one_spelling() {
        for kind in PrincipalKind::iter() {
            assert_eq!(kind.as_ref().parse(), Ok(kind));
            assert_eq!(kind.to_value(), kind.as_ref());
            assert!(PrincipalKind::PATTERN.contains(kind.as_ref()));
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let page = |cursor| Page::new(None, Some(cursor)).unwrap();
        assert_eq!(last_seen(&page(Cursor::behind(&["a-1"]))).unwrap().unwrap().as_ref(), "a-1");
        for cursor in [Cursor::behind(&["a", "b"]), Cursor::behind(&["not an id"]), "AAAA".parse().unwrap()] {
            assert!(matches!(last_seen(&page(cursor)), Err(Error::Invalid { what: "cursor", .. })));
        }
        assert_eq!(last_seen(&Page::default()).unwrap(), None);
    }
}
