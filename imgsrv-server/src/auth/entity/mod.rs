//! The tables of principals, their roles and their tokens.

#![expect(unreachable_pub, reason = "what sea-orm derives for an entity is public")]

pub(super) mod api_token;
pub(super) mod principal;
pub(super) mod principal_role;
