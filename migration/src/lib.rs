//! The database schema of imgsrv, for SQLite and PostgreSQL alike.
//!
//! A migration that was released is frozen: what it says is what stands in databases out there. It depends on nothing
//! else of imgsrv, so that no later change of a type can change what an old migration does.

pub use sea_orm_migration::prelude::{MigrationTrait, MigratorTrait};

mod m0001_initial;

/// Every migration, in order.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m0001_initial::Migration)]
    }
}
