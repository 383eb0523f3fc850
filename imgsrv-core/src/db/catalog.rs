//! Images, versions, artifacts, attachments and aliases.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Order, Query, UnionType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, JoinType, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
};

use super::entity::{
    alias, alias_of_version, catalog_generation, image, image_of_alias, image_of_version, version, version_of_alias,
};
use super::page::{before, behind, time_and_id};
use super::{Tx, artifacts, db_error, hit, hit_row, insert_row};
use crate::model::{
    Alias, AliasName, Cursor, Image, ImageId, ImageName, Manifest, Page, Paged, Reference, Scope, Version,
    VersionEvent, VersionId, VersionName, VersionState,
};
use crate::{Condition, Error, Resource, Result};

pub(crate) async fn insert_image(tx: &Tx, row: Image) -> Result<()> {
    let name = row.name.clone();
    let row = image::Model {
        id: row.id,
        name: row.name,
        display_name: row.display_name,
        description: row.description,
        generation: 0,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    insert_row::<image::Entity>(tx, row, || Resource::Image(name)).await
}

fn has_published_version() -> Expr {
    Expr::exists(
        Query::select()
            .expr(Expr::value(1))
            .from(version::Entity)
            .and_where(
                Expr::col((version::Entity, version::Column::ImageId)).equals((image::Entity, image::Column::Id)),
            )
            .and_where(Expr::col((version::Entity, version::Column::State)).eq(VersionState::Published))
            .to_owned(),
    )
}

pub(crate) async fn image(db: &impl ConnectionTrait, name: &ImageName, scope: Scope) -> Result<Image> {
    let mut select = image::Entity::find().filter(image::Column::Name.eq(name.clone()));
    if scope == Scope::Published {
        select = select.filter(has_published_version());
    }
    let row = select.one(db).await.map_err(db_error)?;
    row.map(Image::from).ok_or_else(|| Error::NotFound(Resource::Image(name.clone())))
}

pub(crate) async fn list_images(db: &impl ConnectionTrait, scope: Scope, page: &Page) -> Result<Paged<Image>> {
    let mut select = image::Entity::find();
    if scope == Scope::Published {
        select = select.filter(has_published_version());
    }
    if let Some(cursor) = page.after() {
        let [name] = cursor.keys::<1>().ok_or_else(Page::bad_cursor)?;
        select = select.filter(image::Column::Name.gt(ImageName::try_from(name).map_err(|_| Page::bad_cursor())?));
    }
    let rows = select.order_by_asc(image::Column::Name).limit(page.limit() + 1).all(db).await.map_err(db_error)?;
    let images = rows.into_iter().map(Image::from).collect();
    Ok(Paged::from_rows(images, page, |last| Cursor::behind(&[last.name.as_ref()])))
}

/// Locks an image by its name and notes the time; the first statement of whatever changes its versions or aliases.
pub(crate) async fn touch_image(tx: &Tx, name: &ImageName, now: DateTime<Utc>) -> Result<Image> {
    let update = image::Entity::update_many()
        .col_expr(image::Column::UpdatedAt, Expr::value(now))
        .filter(image::Column::Name.eq(name.clone()));
    hit(tx, update).await?;
    image(tx, name, Scope::All).await
}

pub(crate) async fn delete_image(tx: &Tx, id: ImageId) -> Result<()> {
    image::Entity::delete_by_id(id).exec(tx).await.map_err(db_error)?;
    Ok(())
}

pub(crate) async fn has_versions(tx: &Tx, id: ImageId) -> Result<bool> {
    let row = version::Entity::find().filter(version::Column::ImageId.eq(id)).one(tx).await.map_err(db_error)?;
    Ok(row.is_some())
}

pub(crate) async fn insert_version(tx: &Tx, row: Version, image: &ImageName) -> Result<()> {
    let name = row.version.clone();
    let row = version::Model {
        id: row.id,
        image_id: row.image_id,
        version: row.version,
        state: row.state,
        published_at: row.published_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    insert_row::<version::Entity>(tx, row, || Resource::Version(image.clone(), name)).await
}

/// A version with its image, where the scope lets it be seen.
pub(crate) async fn version(
    db: &impl ConnectionTrait,
    image: &ImageName,
    name: &VersionName,
    scope: Scope,
) -> Result<(Image, Version)> {
    let mut select = version::Entity::find()
        .join(JoinType::InnerJoin, image_of_version())
        .select_also(image::Entity)
        .filter(image::Column::Name.eq(image.clone()))
        .filter(version::Column::Version.eq(name.clone()));
    if scope == Scope::Published {
        select = select.filter(version::Column::State.eq(VersionState::Published));
    }
    match select.one(db).await.map_err(db_error)? {
        Some((version, Some(image))) => Ok((image.into(), version.into())),
        _ => Err(Error::NotFound(Resource::Version(image.clone(), name.clone()))),
    }
}

pub(crate) async fn version_by_id(db: &impl ConnectionTrait, id: VersionId) -> Result<(Image, Version)> {
    let row = version::Entity::find_by_id(id)
        .join(JoinType::InnerJoin, image_of_version())
        .select_also(image::Entity)
        .one(db)
        .await
        .map_err(db_error)?;
    match row {
        Some((version, Some(image))) => Ok((image.into(), version.into())),
        _ => Err(Error::NotFound(Resource::Other("version", id.to_string()))),
    }
}

/// Versions in one state, newest first: by publication where they are published, else by creation.
pub(crate) async fn list_versions(
    db: &impl ConnectionTrait,
    image: ImageId,
    state: VersionState,
    page: &Page,
) -> Result<Paged<Version>> {
    let newest =
        if state == VersionState::Published { version::Column::PublishedAt } else { version::Column::CreatedAt };
    let mut select =
        version::Entity::find().filter(version::Column::ImageId.eq(image)).filter(version::Column::State.eq(state));
    if let Some(cursor) = page.after() {
        let (at, id) = time_and_id(cursor)?;
        select = select.filter(before(newest, version::Column::Id, at, id));
    }
    let rows = select
        .order_by_desc(newest)
        .order_by_desc(version::Column::Id)
        .limit(page.limit() + 1)
        .all(db)
        .await
        .map_err(db_error)?;
    let versions = rows.into_iter().map(Version::from).collect();
    Ok(Paged::from_rows(versions, page, |last: &Version| {
        behind(last.published_at.unwrap_or(last.created_at), last.id.0)
    }))
}

/// Makes `event` happen to the version, if its state allows; the first statement of every change of a version.
pub(crate) async fn transition(tx: &Tx, id: VersionId, event: VersionEvent, now: DateTime<Utc>) -> Result<bool> {
    let mut update = version::Entity::update_many()
        .col_expr(version::Column::UpdatedAt, Expr::value(now))
        .col_expr(version::Column::State, Expr::value(event.target()))
        .filter(version::Column::Id.eq(id))
        .filter(version::Column::State.eq(event.source()));
    if event == VersionEvent::Published {
        update = update.col_expr(version::Column::PublishedAt, Expr::value(now));
    }
    hit(tx, update).await
}

/// Why a guarded update of a version hit no row.
pub(crate) async fn explain(tx: &Tx, id: VersionId, event: VersionEvent) -> Result<Error> {
    let (_, version) = version_by_id(tx, id).await?;
    Ok(match version.state.after(event) {
        Err(invalid) => Error::precondition(Condition::WrongState, invalid.to_string()),
        Ok(_) => Error::changed_meanwhile("the version"),
    })
}

/// Deletes a version whose artifacts are deleted.
pub(crate) async fn delete_version(tx: &Tx, id: VersionId) -> Result<()> {
    version::Entity::delete_by_id(id).exec(tx).await.map_err(db_error)?;
    Ok(())
}

pub(crate) async fn manifest(
    db: &impl ConnectionTrait,
    image: &ImageName,
    version: &VersionName,
    scope: Scope,
) -> Result<Manifest> {
    let (image, version) = self::version(db, image, version, scope).await?;
    let artifacts = artifacts::entries(db, version.id).await?;
    Ok(Manifest { image, version, artifacts })
}

/// The published version of that name, else the one that an alias of that name points at.
pub(crate) async fn resolve(
    db: &impl ConnectionTrait,
    image: &ImageName,
    reference: &Reference,
) -> Result<Option<Version>> {
    // Apart, because each has its index; together, because they are one look at what may be moved meanwhile.
    let by = |rank: &'static str| {
        version::Entity::find().expr_as(Expr::cust(rank), RANK).filter(image::Column::Name.eq(image.clone()))
    };
    let by_name = by("0")
        .join(JoinType::InnerJoin, image_of_version())
        .filter(version::Column::Version.eq(reference.as_ref()))
        .filter(version::Column::State.eq(VersionState::Published));
    // What an alias points at is published. To ask for that would let a planner go through all that are.
    let by_alias = by("1")
        .join(JoinType::InnerJoin, alias_of_version())
        .join(JoinType::InnerJoin, image_of_alias())
        .filter(alias::Column::Alias.eq(reference.as_ref()));
    let mut either = by_name.into_query();
    either.union(UnionType::All, by_alias.into_query()).order_by(RANK, Order::Asc).limit(1);
    let row = version::Model::find_by_statement(db.get_database_backend().build(&either)).one(db).await;
    Ok(row.map_err(db_error)?.map(Version::from))
}

/// Which of two that are meant by one name comes first.
const RANK: &str = "rank";

/// Creates the alias or moves it.
pub(crate) async fn put_alias(tx: &Tx, row: Alias, exists: bool) -> Result<()> {
    let active = alias::ActiveModel {
        id: Set(row.id),
        image_id: Set(row.image_id),
        alias: Set(row.alias),
        version_id: Set(row.version_id),
        created_at: Set(row.created_at),
        updated_at: Set(row.updated_at),
    };
    if exists {
        alias::Entity::update(active).exec(tx).await.map_err(db_error)?;
    } else {
        alias::Entity::insert(active).exec_without_returning(tx).await.map_err(db_error)?;
    }
    Ok(())
}

pub(crate) async fn alias(db: &impl ConnectionTrait, image: ImageId, name: &AliasName) -> Result<Option<Alias>> {
    let row = alias::Entity::find()
        .join(JoinType::InnerJoin, version_of_alias())
        .select_also(version::Entity)
        .filter(alias::Column::ImageId.eq(image))
        .filter(alias::Column::Alias.eq(name.clone()))
        .one(db)
        .await
        .map_err(db_error)?;
    row.map(|(alias, version)| with_version(alias, version)).transpose()
}

pub(crate) async fn list_aliases(db: &impl ConnectionTrait, image: ImageId, page: &Page) -> Result<Paged<Alias>> {
    let mut select = alias::Entity::find()
        .join(JoinType::InnerJoin, version_of_alias())
        .select_also(version::Entity)
        .filter(alias::Column::ImageId.eq(image));
    if let Some(cursor) = page.after() {
        let [name] = cursor.keys::<1>().ok_or_else(Page::bad_cursor)?;
        select = select.filter(alias::Column::Alias.gt(AliasName::try_from(name).map_err(|_| Page::bad_cursor())?));
    }
    let rows = select.order_by_asc(alias::Column::Alias).limit(page.limit() + 1).all(db).await.map_err(db_error)?;
    let aliases = rows.into_iter().map(|(alias, version)| with_version(alias, version)).collect::<Result<Vec<_>>>()?;
    Ok(Paged::from_rows(aliases, page, |last| Cursor::behind(&[last.alias.as_ref()])))
}

fn with_version(alias: alias::Model, version: Option<version::Model>) -> Result<Alias> {
    let version = version.ok_or_else(|| Error::bug("an alias without a version"))?;
    Ok(alias_of(alias, version.version))
}

/// An alias, with the name of the version that it points at.
pub(super) fn alias_of(alias: alias::Model, version: VersionName) -> Alias {
    Alias {
        id: alias.id,
        image_id: alias.image_id,
        alias: alias.alias,
        version_id: alias.version_id,
        version,
        created_at: alias.created_at,
        updated_at: alias.updated_at,
    }
}

pub(crate) async fn delete_alias(tx: &Tx, image: ImageId, name: &AliasName) -> Result<bool> {
    let deleted = alias::Entity::delete_many()
        .filter(alias::Column::ImageId.eq(image))
        .filter(alias::Column::Alias.eq(name.clone()))
        .exec(tx)
        .await
        .map_err(db_error)?;
    Ok(deleted.rows_affected == 1)
}

/// Locks an image until the end of the transaction.
pub(crate) async fn lock_image(tx: &Tx, id: ImageId) -> Result<()> {
    let update = image::Entity::update_many()
        .col_expr(image::Column::Generation, Expr::col(image::Column::Generation))
        .filter(image::Column::Id.eq(id));
    hit(tx, update).await?;
    Ok(())
}

/// Counts one change of what the public sees of an image, which this transaction has locked.
///
/// The counter stays locked until the commit, so generations are in the order of commits.
pub(crate) async fn next_generation(tx: &Tx, id: ImageId) -> Result<()> {
    use catalog_generation::{Column, Entity};
    let next = hit_row(tx, Entity::update_many().col_expr(Column::N, Expr::col(Column::N).add(1))).await?;
    let next = next.ok_or_else(|| Error::bug("the table catalog_generation has no row"))?;
    let update = image::Entity::update_many()
        .col_expr(image::Column::Generation, Expr::value(next.n))
        .filter(image::Column::Id.eq(id));
    hit(tx, update).await?;
    Ok(())
}

impl From<image::Model> for Image {
    fn from(row: image::Model) -> Self {
        Self {
            id: row.id,
            name: row.name,
            display_name: row.display_name,
            description: row.description,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl From<version::Model> for Version {
    fn from(row: version::Model) -> Self {
        Self {
            id: row.id,
            image_id: row.image_id,
            version: row.version,
            state: row.state,
            published_at: row.published_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
