//! The programs that people download images with, as they run them, against a server that speaks TLS. Each story is
//! told on the embedded default and on PostgreSQL with Garage.

mod daemon;
mod downloads;
mod files;
mod images;
mod loops;
pub(crate) mod site;
