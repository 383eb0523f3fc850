//! The first credential, and the way back in when the last one is lost.

use chrono::TimeDelta;
use imgsrv_core::model::{Actor, Prose};
use imgsrv_core::{Db, Engine, Result, Tx, detached};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::entity::principal;
use super::managers::any_usable;
use super::principals::{self, NewPrincipal, PrincipalKind};
use super::roles::{self, Role};
use super::secret::TokenText;
use super::tokens::{self, NewToken};

const LIFETIME: TimeDelta = TimeDelta::hours(24);

/// Makes a token of the bootstrap principal, valid for 24 hours, if nobody could manage the server otherwise.
///
/// Of several nodes that ask at once, one makes it.
///
/// # Errors
/// When the database does not do it.
pub async fn ensure_manager(engine: &Engine) -> Result<Option<TokenText>> {
    let engine = engine.acting_as(actor());
    detached(async move {
        engine
            .db()
            .tx("ensure manager", async |tx| {
                Db::lock_instance(tx).await?;
                if any_usable(tx, engine.clock().now()).await? {
                    return Ok(None);
                }
                issue_in(tx, &engine).await.map(Some)
            })
            .await
    })
    .await
}

/// Makes a token of the bootstrap principal, valid for 24 hours, whoever else could manage the server.
///
/// # Errors
/// When the database does not do it.
pub async fn issue_bootstrap_token(engine: &Engine) -> Result<TokenText> {
    let engine = engine.acting_as(actor());
    detached(async move {
        engine
            .db()
            .tx("issue bootstrap token", async |tx| {
                Db::lock_instance(tx).await?;
                issue_in(tx, &engine).await
            })
            .await
    })
    .await
}

/// Under the lock of the instance, so that there is one bootstrap principal.
async fn issue_in(tx: &Tx, engine: &Engine) -> Result<TokenText> {
    let known =
        principal::Entity::find().filter(principal::Column::Bootstrap.eq(true)).one(tx).await.map_err(Db::error)?;
    let principal = match known {
        Some(principal) => principal,
        None => principals::create_in(tx, engine, bootstrap_principal()).await?,
    };
    roles::assign_in(tx, engine, &principal.id, Role::AuthManager).await?;
    let new = NewToken { name: Some(prose("bootstrap")), expires_at: engine.clock().now() + LIFETIME };
    Ok(tokens::issue_in(tx, engine, &principal.id, new).await?.text)
}

fn bootstrap_principal() -> NewPrincipal {
    NewPrincipal { kind: PrincipalKind::User, display_name: prose("Bootstrap"), attributes: None, bootstrap: true }
}

fn prose(text: &'static str) -> Prose {
    text.parse().expect("a constant that follows the rule")
}

fn actor() -> Actor {
    "system:bootstrap".parse().expect("a constant that follows the rule")
}
