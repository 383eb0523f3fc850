//! The authenticator that knows the API tokens in the database.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use imgsrv_core::{Db, Engine};
use poem::http::HeaderMap;
use poem::http::header::AUTHORIZATION;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter};

use super::entity::{api_token, principal_role};
use super::id::OpaqueId;
use super::roles::Role;
use super::secret::TokenText;
use super::{AuthError, Authenticator, Principal};

/// How old `last_used_at` may get before a use moves it.
const USE_RESOLUTION: TimeDelta = TimeDelta::minutes(1);

// Each is sent to the client. Only whoever has the secret gets to know that a token exists.
const MISSING: &str = "a bearer token is required";
const MALFORMED: &str = "the Authorization header must be `Bearer` and a token";
const UNKNOWN: &str = "the token is not valid";
const EXPIRED: &str = "the token has expired";
const REVOKED: &str = "the token was revoked";

/// Knows the API tokens in the database.
///
/// It asks on every request and keeps nothing, so a revocation holds on the next one, on every node.
#[derive(Clone, Debug)]
pub struct DatabaseAuthenticator {
    engine: Engine,
    /// Tokens whose use is being written down: a burst of requests needs to write it once.
    noting: Arc<Mutex<HashSet<OpaqueId>>>,
}

impl DatabaseAuthenticator {
    /// An authenticator over the database of the engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine, noting: Arc::default() }
    }

    async fn find(&self, lookup_id: &str) -> Result<Option<(api_token::Model, Vec<Role>)>, AuthError> {
        let found = api_token::Entity::find()
            .filter(api_token::Column::LookupId.eq(lookup_id))
            .find_with_related(principal_role::Entity)
            .all(self.engine.db().reader())
            .await
            .map_err(|err| AuthError::Unavailable(Db::error(err)))?;
        Ok(found.into_iter().next().map(|(token, held)| (token, held.into_iter().map(|row| row.role).collect())))
    }

    /// Writes down that the token is in use, if that is news. Nobody waits for it: no request fails because of it.
    fn note_use(&self, token: &api_token::Model, now: DateTime<Utc>) {
        let due = now - USE_RESOLUTION;
        if token.last_used_at.is_some_and(|at| at > due) || !noting(&self.noting).insert(token.id.clone()) {
            return;
        }
        let (db, noted, id) = (self.engine.db().clone(), Arc::clone(&self.noting), token.id.clone());
        tokio::spawn(async move {
            if let Err(err) = db.tx("note use of token", async |tx| write_use(tx, &id, now, due).await).await {
                tracing::warn!(token = %id, error = err.chain(), "the use of a token was not noted");
            }
            noting(&noted).remove(&id);
        });
    }
}

#[async_trait]
impl Authenticator for DatabaseAuthenticator {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let text = bearer(headers)?;
        let presented = TokenText::parse(text).ok_or_else(|| refuse(UNKNOWN))?;
        let (token, roles) = self.find(presented.lookup_id()).await?.ok_or_else(|| refuse(UNKNOWN))?;
        let now = self.engine.clock().now();
        check(&presented, &token, now)?;
        self.note_use(&token, now);
        let actions = Role::all().filter(|role| roles.contains(role)).flat_map(Role::actions).copied().collect();
        Ok(Principal { id: token.principal_id.to_string(), actions })
    }
}

async fn write_use(
    tx: &imgsrv_core::Tx,
    id: &OpaqueId,
    now: DateTime<Utc>,
    due: DateTime<Utc>,
) -> imgsrv_core::Result<()> {
    api_token::Entity::update_many()
        .col_expr(api_token::Column::LastUsedAt, Expr::value(now))
        .filter(api_token::Column::Id.eq(id.clone()))
        .filter(
            Condition::any().add(api_token::Column::LastUsedAt.is_null()).add(api_token::Column::LastUsedAt.lte(due)),
        )
        .exec(tx)
        .await
        .map_err(Db::error)?;
    Ok(())
}

/// The token that the headers carry (RFC 6750 §2.1): exactly two fields, the scheme in any case.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| refuse(MISSING))?;
    let mut fields = value.to_str().map_err(|_| refuse(MALFORMED))?.split_ascii_whitespace();
    match (fields.next(), fields.next(), fields.next(), values.next()) {
        (Some(scheme), Some(token), None, None) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err(refuse(MALFORMED)),
    }
}

/// Whether the presented token is the stored one, and may be used now.
fn check(presented: &TokenText, stored: &api_token::Model, now: DateTime<Utc>) -> Result<(), AuthError> {
    if !presented.hashes_to(&stored.secret_sha256) {
        Err(refuse(UNKNOWN))
    } else if stored.revoked_at.is_some() {
        Err(refuse(REVOKED))
    } else if stored.expires_at <= now {
        Err(refuse(EXPIRED))
    } else {
        Ok(())
    }
}

fn refuse(why: &'static str) -> AuthError {
    AuthError::Unauthenticated(why.to_owned())
}

fn noting(set: &Mutex<HashSet<OpaqueId>>) -> std::sync::MutexGuard<'_, HashSet<OpaqueId>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use imgsrv_core::Clock;
    use poem::http::HeaderValue;

    use super::*;

    fn why<T>(result: Result<T, AuthError>) -> String {
        match result {
            Err(AuthError::Unauthenticated(why)) => why,
            Err(AuthError::Unavailable(err)) => panic!("{err}"),
            Ok(_) => "accepted".to_owned(),
        }
    }

    #[test]
    fn a_bearer_token_is_exactly_two_fields() {
        let told = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(ToOwned::to_owned)
        };
        for accepted in ["Bearer abc", "bearer abc", "BEARER  abc", "Bearer\tabc "] {
            assert_eq!(told(&[accepted]).unwrap(), "abc", "{accepted}");
        }
        for malformed in ["", "abc", "Bearer", "Bearer ", "Bearer a b", "Basic abc", "Bearerabc"] {
            assert_eq!(why(told(&[malformed])), MALFORMED, "{malformed}");
        }
        assert_eq!(why(told(&[])), MISSING);
        assert_eq!(why(told(&["Bearer abc", "Bearer abc"])), MALFORMED);
    }

    #[test]
    fn only_the_holder_of_the_secret_learns_what_became_of_a_token() {
        let now: DateTime<Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
        let (text, other) =
            (TokenText::generate(&Clock::system()).unwrap(), TokenText::generate(&Clock::system()).unwrap());
        let good = api_token::Model {
            id: "t".parse().unwrap(),
            principal_id: "p".parse().unwrap(),
            name: None,
            lookup_id: text.lookup_id().to_owned(),
            secret_sha256: text.sha256().to_vec(),
            expires_at: now + TimeDelta::microseconds(1),
            revoked_at: None,
            last_used_at: None,
            created_at: now,
        };
        let expired = api_token::Model { expires_at: now, ..good.clone() };
        let revoked = api_token::Model { revoked_at: Some(now), ..expired.clone() };
        assert_eq!(why(check(&text, &good, now)), "accepted");
        assert_eq!(why(check(&text, &expired, now)), EXPIRED);
        assert_eq!(why(check(&text, &revoked, now)), REVOKED);
        for stored in [&good, &expired, &revoked] {
            assert_eq!(why(check(&other, stored, now)), UNKNOWN);
        }
    }
}
