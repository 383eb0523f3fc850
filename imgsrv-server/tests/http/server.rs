//! What the stories are told with: the program under test, clients that speak its API, and what holds for every answer.

mod answer;
mod certificate;
mod client;
mod operations;
mod program;
mod promised;
mod raw;

pub(crate) use answer::{Answer, id, members, names, send, try_send};
pub(crate) use certificate::Authority;
pub(crate) use client::{Api, artifact, attachment, bytes, digest, list_of, promise, until, with};
pub(crate) use operations::{Operation, Who, World, body, forbidden, operations, unknown};
pub(crate) use program::{Folder, Server, program, to_listen};
pub(crate) use raw::{connect, half_closed, raw, read_until, request};
