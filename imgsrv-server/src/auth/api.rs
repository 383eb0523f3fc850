//! `/v1/auth`: principals, their roles and their tokens.

use imgsrv_core::Engine;
use imgsrv_core::model::Cursor;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use super::id::OpaqueId;
use super::roles::{self, Role};
use super::view::{ApiTokens, CreatePrincipal, IssueApiToken, IssuedView, PrincipalView, Principals, Roles};
use super::{principals, tokens};
use crate::api::respond::{Created, NoContent};
use crate::api::{Tag, page};
use crate::extract::CanManageAuth;
use crate::number::Limit;
use crate::problem::Problem;
use crate::text::Text;

/// Principals, their roles and their API tokens. Everything here needs `auth.manage`.
#[derive(Clone, Copy, Debug)]
pub struct AuthApi;

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Auth")]
impl AuthApi {
    /// List the roles
    ///
    /// They are fixed.
    #[oai(path = "/roles", method = "get", operation_id = "list_roles")]
    #[expect(clippy::unused_async, reason = "the framework takes async handlers only")]
    async fn list_roles(&self, _may: CanManageAuth) -> Result<Json<Roles>, Problem> {
        Ok(Json(Roles::of_all()))
    }

    /// List the principals
    ///
    /// Oldest first, with their roles.
    #[oai(path = "/principals", method = "get", operation_id = "list_principals")]
    async fn list_principals(
        &self,
        engine: Data<&Engine>,
        _may: CanManageAuth,
        /// At most so many, 1 to 1000.
        limit: Query<Option<Limit>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<Text<Cursor>>>,
    ) -> Result<Json<Principals>, Problem> {
        Ok(Json(principals::list(&engine, page(&limit, cursor)?).await?.into()))
    }

    /// Create a principal
    ///
    /// It has no roles yet, and no tokens.
    #[oai(path = "/principals", method = "post", operation_id = "create_principal")]
    async fn create_principal(
        &self,
        engine: Data<&Engine>,
        may: CanManageAuth,
        body: Json<CreatePrincipal>,
    ) -> Result<Created<PrincipalView>, Problem> {
        Ok(Created::new(principals::create(&engine.acting_as(may.actor()), body.0.into()).await?))
    }

    /// Read a principal
    ///
    /// With its roles.
    #[oai(path = "/principals/:principal", method = "get", operation_id = "get_principal")]
    async fn get_principal(
        &self,
        engine: Data<&Engine>,
        _may: CanManageAuth,
        principal: Path<Text<OpaqueId>>,
    ) -> Result<Json<PrincipalView>, Problem> {
        Ok(Json(principals::get(&engine, principal.0.0).await?.into()))
    }

    /// Give a principal a role
    ///
    /// What it has already it keeps.
    #[oai(path = "/principals/:principal/roles/:role", method = "put", operation_id = "assign_role")]
    async fn assign_role(
        &self,
        engine: Data<&Engine>,
        may: CanManageAuth,
        principal: Path<Text<OpaqueId>>,
        role: Path<Text<Role>>,
    ) -> Result<NoContent, Problem> {
        roles::assign(&engine.acting_as(may.actor()), principal.0.0, role.0.0).await?;
        Ok(NoContent::Done)
    }

    /// Take a role away from a principal
    ///
    /// What it does not have is not missed. The last manager who has a usable token keeps the role (412).
    #[oai(path = "/principals/:principal/roles/:role", method = "delete", operation_id = "unassign_role")]
    async fn unassign_role(
        &self,
        engine: Data<&Engine>,
        may: CanManageAuth,
        principal: Path<Text<OpaqueId>>,
        role: Path<Text<Role>>,
    ) -> Result<NoContent, Problem> {
        roles::unassign(&engine.acting_as(may.actor()), principal.0.0, role.0.0).await?;
        Ok(NoContent::Done)
    }

    /// List the tokens of a principal
    ///
    /// Oldest first, without their texts; revoked and expired ones too.
    #[oai(path = "/principals/:principal/api-tokens", method = "get", operation_id = "list_api_tokens")]
    async fn list_api_tokens(
        &self,
        engine: Data<&Engine>,
        _may: CanManageAuth,
        principal: Path<Text<OpaqueId>>,
        /// At most so many, 1 to 1000.
        limit: Query<Option<Limit>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<Text<Cursor>>>,
    ) -> Result<Json<ApiTokens>, Problem> {
        Ok(Json(tokens::list(&engine, principal.0.0, page(&limit, cursor)?).await?.into()))
    }

    /// Issue a token for a principal
    ///
    /// This answer is the only place where its text can be read: the server keeps a hash.
    #[oai(path = "/principals/:principal/api-tokens", method = "post", operation_id = "issue_api_token")]
    async fn issue_api_token(
        &self,
        engine: Data<&Engine>,
        may: CanManageAuth,
        principal: Path<Text<OpaqueId>>,
        body: Json<IssueApiToken>,
    ) -> Result<Created<IssuedView>, Problem> {
        Ok(Created::new(tokens::issue(&engine.acting_as(may.actor()), principal.0.0, body.0.into()).await?))
    }

    /// Revoke a token
    ///
    /// It is of no use from the next request on. Revoking again changes nothing. The last usable token of a manager
    /// stays (412).
    #[oai(path = "/api-tokens/:token", method = "delete", operation_id = "revoke_api_token")]
    async fn revoke_api_token(
        &self,
        engine: Data<&Engine>,
        may: CanManageAuth,
        token: Path<Text<OpaqueId>>,
    ) -> Result<NoContent, Problem> {
        tokens::revoke(&engine.acting_as(may.actor()), token.0.0).await?;
        Ok(NoContent::Done)
    }
}
