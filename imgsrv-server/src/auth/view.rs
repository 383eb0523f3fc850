//! What clients see of principals, roles and tokens.

use std::collections::BTreeMap;

use imgsrv_core::model::{Cursor, Paged, Prose};
use poem_openapi::Object;
use serde_json::Value;

use super::entity::api_token;
use super::id::OpaqueId;
use super::principals::{Account, NewPrincipal, PrincipalKind};
use super::roles::Role;
use super::tokens::{Issued, NewToken};
use crate::optional::Optional;
use crate::text::{Text, Timestamp};

/// A fixed set of actions that a principal can be given.
#[derive(Debug, Object)]
#[oai(rename = "Role")]
pub(super) struct RoleView {
    id: Text<Role>,
    display_name: String,
    description: String,
    /// What it allows: `content.write`, `auth.manage`.
    actions: Vec<String>,
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        Self {
            id: Text(role),
            display_name: role.display_name().to_owned(),
            description: role.description().to_owned(),
            actions: role.actions().iter().map(|action| action.name().to_owned()).collect(),
        }
    }
}

/// The roles that there are.
#[derive(Debug, Object)]
pub(super) struct Roles {
    roles: Vec<RoleView>,
}

impl Roles {
    pub(super) fn of_all() -> Self {
        Self { roles: Role::all().map(Into::into).collect() }
    }
}

/// Somebody who can hold tokens.
#[derive(Debug, Object)]
#[oai(rename = "Principal", skip_serializing_if_is_none)]
pub(super) struct PrincipalView {
    id: Text<OpaqueId>,
    kind: Text<PrincipalKind>,
    display_name: Text<Prose>,
    attributes: Option<BTreeMap<String, Value>>,
    role_ids: Vec<Text<Role>>,
}

impl From<Account> for PrincipalView {
    fn from(Account { principal, roles }: Account) -> Self {
        Self {
            id: Text(principal.id),
            kind: Text(principal.kind),
            display_name: Text(principal.display_name),
            attributes: principal.attributes.and_then(|attributes| match attributes {
                Value::Object(members) => Some(members.into_iter().collect()),
                _ => None,
            }),
            role_ids: roles.into_iter().map(Text).collect(),
        }
    }
}

/// Principals, oldest first.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(super) struct Principals {
    principals: Vec<PrincipalView>,
    /// Where the next page begins; absent on the last one.
    next_cursor: Option<Text<Cursor>>,
}

impl From<Paged<Account>> for Principals {
    fn from(page: Paged<Account>) -> Self {
        Self { principals: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next.map(Text) }
    }
}

/// A principal to create; it has no roles yet.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct CreatePrincipal {
    kind: Text<PrincipalKind>,
    display_name: Text<Prose>,
    /// Anything worth knowing of them; the server reads nothing into it.
    attributes: Optional<BTreeMap<String, Value>>,
}

impl From<CreatePrincipal> for NewPrincipal {
    fn from(request: CreatePrincipal) -> Self {
        Self {
            kind: request.kind.0,
            display_name: request.display_name.0,
            attributes: request.attributes.0,
            bootstrap: false,
        }
    }
}

/// A token, without its text.
#[derive(Debug, Object)]
#[oai(rename = "ApiToken", skip_serializing_if_is_none)]
pub(super) struct TokenView {
    id: Text<OpaqueId>,
    principal_id: Text<OpaqueId>,
    name: Option<Text<Prose>>,
    expires_at: Timestamp,
    /// When it was last used, to the minute.
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<api_token::Model> for TokenView {
    fn from(token: api_token::Model) -> Self {
        Self {
            id: Text(token.id),
            principal_id: Text(token.principal_id),
            name: token.name.map(Text),
            expires_at: Timestamp(token.expires_at),
            last_used_at: token.last_used_at.map(Timestamp),
            revoked_at: token.revoked_at.map(Timestamp),
        }
    }
}

/// Tokens of a principal, oldest first.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(super) struct ApiTokens {
    api_tokens: Vec<TokenView>,
    /// Where the next page begins; absent on the last one.
    next_cursor: Option<Text<Cursor>>,
}

impl From<Paged<api_token::Model>> for ApiTokens {
    fn from(page: Paged<api_token::Model>) -> Self {
        Self { api_tokens: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next.map(Text) }
    }
}

/// A token to issue.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct IssueApiToken {
    name: Optional<Text<Prose>>,
    /// In the future.
    expires_at: Timestamp,
}

impl From<IssueApiToken> for NewToken {
    fn from(request: IssueApiToken) -> Self {
        Self { name: request.name.0.map(|name| name.0), expires_at: request.expires_at.0 }
    }
}

/// A token just issued.
#[derive(Object)]
#[oai(rename = "IssuedApiToken", skip_serializing_if_is_none)]
pub(super) struct IssuedView {
    id: Text<OpaqueId>,
    principal_id: Text<OpaqueId>,
    name: Option<Text<Prose>>,
    expires_at: Timestamp,
    /// The token itself, to be sent as `Authorization: Bearer`. It is shown here and never again.
    plaintext: String,
}

impl From<Issued> for IssuedView {
    fn from(Issued { token, text }: Issued) -> Self {
        Self {
            id: Text(token.id),
            principal_id: Text(token.principal_id),
            name: token.name.map(Text),
            expires_at: Timestamp(token.expires_at),
            plaintext: text.reveal(),
        }
    }
}
