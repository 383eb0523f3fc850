//! Who may do what.
//!
//! An [`Authenticator`] tells who sends a request; whoever has identities of their own implements it. The one that
//! comes along, [`DatabaseAuthenticator`], knows the principals, roles and API tokens that [`AuthApi`] manages.

mod api;
mod authenticator;
mod bootstrap;
mod entity;
mod id;
mod managers;
mod principals;
mod roles;
mod secret;
mod tokens;
mod view;

use async_trait::async_trait;
use imgsrv_core::model::Actor;
use poem::http::HeaderMap;

pub use api::AuthApi;
pub use authenticator::DatabaseAuthenticator;
pub use bootstrap::{ensure_manager, issue_bootstrap_token};
pub use secret::TokenText;
#[cfg(feature = "fuzzing")]
pub(crate) use {authenticator::bearer, id::OpaqueId};

/// Something that only some may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Upload, edit the catalogue, publish; see drafts.
    WriteContent,
    /// Manage principals, their roles and their tokens.
    ManageAuth,
}

impl Action {
    /// Its name, as clients see it: `content.write`, `auth.manage`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteContent => "content.write",
            Self::ManageAuth => "auth.manage",
        }
    }
}

/// Whoever sends a request, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// An opaque id, stable for as long as there are events that name it.
    pub id: String,
    /// What they may do.
    pub actions: Vec<Action>,
}

impl Principal {
    /// How the events that they cause name them: `principal:<id>`.
    pub fn actor(&self) -> Actor {
        // The id is an authenticator's, which may know nothing of what an actor can be spelled with.
        let id: String = self
            .id
            .chars()
            .take(246)
            .map(|c| if c.is_ascii_alphanumeric() || "._:@/+-".contains(c) { c } else { '_' })
            .collect();
        format!("principal:{id}").parse().expect("only characters of an actor, and no more than it may have")
    }

    /// Whether they may do it.
    pub fn may(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }
}

/// Why nobody can be told to have sent a request.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The request proves no identity: 401. The sentence is sent to the client, so it must not help an attacker.
    #[error("{0}")]
    Unauthenticated(String),
    /// It cannot be known now.
    #[error("credentials cannot be checked")]
    Unavailable(#[source] imgsrv_core::Error),
}

/// Tells who sends a request.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The principal that the headers of a request prove.
    ///
    /// # Errors
    /// [`AuthError::Unauthenticated`] when they prove none, [`AuthError::Unavailable`] when that cannot be known now.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(id: &str) -> Principal {
        Principal { id: id.to_owned(), actions: vec![Action::WriteContent] }
    }

    #[test]
    fn an_actor_names_the_principal() {
        assert_eq!(principal("018f-ab").actor().as_ref(), "principal:018f-ab");
        assert_eq!(principal("anna@example.org").actor().as_ref(), "principal:anna@example.org");
    }

    #[test]
    fn every_id_makes_an_actor() {
        assert_eq!(principal("Zoë <z>").actor().as_ref(), "principal:Zo__<z>".replace(['<', '>'], "_"));
        assert_eq!(principal("").actor().as_ref(), "principal:");
        assert_eq!(principal(&"x".repeat(1000)).actor().as_ref().len(), 256);
    }

    #[test]
    fn actions_do_not_contain_each_other() {
        assert!(principal("x").may(Action::WriteContent));
        assert!(!principal("x").may(Action::ManageAuth));
    }
}
