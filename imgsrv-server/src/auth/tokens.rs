//! API tokens: issued once, recognised by their hash, revoked for good.

use chrono::{DateTime, Datelike, SubsecRound, Utc};
use imgsrv_core::model::{Cursor, Page, Paged, Prose, Subject};
use imgsrv_core::{Change, Db, Engine, Error, Resource, Result, Tx, detached};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set};

use super::entity::api_token;
use super::id::OpaqueId;
use super::managers::keep_one;
use super::principals::{last_seen, missing, require};
use super::secret::TokenText;

/// A token to issue.
#[derive(Clone, Debug)]
pub(super) struct NewToken {
    pub(super) name: Option<Prose>,
    pub(super) expires_at: DateTime<Utc>,
}

/// A token just issued: the only time that its text is known.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) token: api_token::Model,
    pub(super) text: TokenText,
}

pub(super) async fn issue(engine: &Engine, principal: OpaqueId, new: NewToken) -> Result<Issued> {
    let engine = engine.clone();
    detached(
        async move { engine.db().tx("issue token", async |tx| issue_in(tx, &engine, &principal, new).await).await },
    )
    .await
}

/// The same within a transaction.
pub(super) async fn issue_in(tx: &Tx, engine: &Engine, principal: &OpaqueId, new: NewToken) -> Result<Issued> {
    let at = engine.clock().now();
    let text = TokenText::generate(engine.clock())?;
    let row = api_token::ActiveModel {
        id: Set(engine.clock().new_id().into()),
        principal_id: Set(principal.clone()),
        name: Set(new.name),
        lookup_id: Set(text.lookup_id().to_owned()),
        secret_sha256: Set(text.sha256().to_vec()),
        expires_at: Set(usable_expiry(new.expires_at, at)?),
        revoked_at: Set(None),
        last_used_at: Set(None),
        created_at: Set(at),
    };
    let token = api_token::Entity::insert(row).exec_with_returning(tx).await.map_err(|err| missing(principal, err))?;
    engine.record(tx, Change::new(Subject::Token, &token.id, "issued").to(principal)).await?;
    Ok(Issued { token, text })
}

/// Oldest first, expired and revoked ones included.
pub(super) async fn list(engine: &Engine, principal: OpaqueId, page: Page) -> Result<Paged<api_token::Model>> {
    let db = engine.db().clone();
    detached(async move {
        db.snapshot("list tokens", async |tx| {
            require(tx, &principal).await?;
            let mut query = api_token::Entity::find()
                .filter(api_token::Column::PrincipalId.eq(principal.clone()))
                .order_by_asc(api_token::Column::Id)
                .limit(page.limit() + 1);
            if let Some(after) = last_seen(&page)? {
                query = query.filter(api_token::Column::Id.gt(after));
            }
            let rows = query.all(tx).await.map_err(Db::error)?;
            Ok(Paged::from_rows(rows, &page, |row| Cursor::behind(&[row.id.as_ref()])))
        })
        .await
    })
    .await
}

/// Makes a token useless from the next request on; revoking it again changes nothing. Nobody can revoke the last usable
/// manager's.
pub(super) async fn revoke(engine: &Engine, id: OpaqueId) -> Result<()> {
    let engine = engine.clone();
    detached(async move {
        engine
            .db()
            .tx("revoke token", async |tx| {
                keep_one(tx, engine.clock(), async || {
                    let at = engine.clock().now();
                    let revoked = api_token::Entity::update_many()
                        .col_expr(api_token::Column::RevokedAt, Expr::value(at))
                        .filter(api_token::Column::Id.eq(id.clone()))
                        .filter(api_token::Column::RevokedAt.is_null())
                        .exec(tx)
                        .await
                        .map_err(Db::error)?;
                    if revoked.rows_affected == 0 {
                        return require_token(tx, &id).await;
                    }
                    engine.record(tx, Change::new(Subject::Token, &id, "revoked")).await
                })
                .await
            })
            .await
    })
    .await
}

async fn require_token(tx: &Tx, id: &OpaqueId) -> Result<()> {
    match api_token::Entity::find_by_id(id.clone()).one(tx).await.map_err(Db::error)? {
        Some(_) => Ok(()),
        None => Err(Error::NotFound(Resource::Other("token", id.to_string()))),
    }
}

/// A time after now, in the microseconds that every database keeps.
fn usable_expiry(expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let expires_at = expires_at.trunc_subsecs(6);
    // SQLite compares times as texts, and a fifth digit of the year would break their order.
    if expires_at > now && expires_at.year() <= 9999 {
        Ok(expires_at)
    } else {
        let reason = "must be in the future, and not after the year 9999".to_owned();
        Err(Error::Invalid { what: "expires_at", reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_expires_in_the_future() {
        let now = time("2026-11-20T12:00:00.000001Z");
        for text in ["2026-11-20T12:00:00.000001Z", "2026-11-20T12:00:00.0000019Z", "1970-01-01T00:00:00Z"] {
            assert!(usable_expiry(time(text), now).is_err(), "{text}");
        }
        assert_eq!(
            usable_expiry(time("2026-11-20T12:00:00.0000029Z"), now).unwrap(),
            time("2026-11-20T12:00:00.000002Z")
        );
        assert!(usable_expiry(time("9999-12-31T23:59:59Z"), now).is_ok());
        assert!(usable_expiry(time("+10000-01-01T00:00:00Z"), now).is_err());
    }
}
