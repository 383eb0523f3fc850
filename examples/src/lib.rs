//! What the examples share: an engine on SQLite and a folder, opened in a few lines.

use std::path::Path;

use imgsrv_core::{BoxError, Builder, Engine};
use imgsrv_migration::{Migrator, MigratorTrait};
use opendal::{Operator, services::Fs};
use sea_orm::{ConnectOptions, Database};

/// Opens, or makes, the database and the store in a folder.
///
/// # Errors
/// When the folder cannot be written.
pub async fn open(folder: &Path) -> Result<Builder, BoxError> {
    let mut options = ConnectOptions::new(format!("sqlite://{}?mode=rwc", folder.join("imgsrv.db").display()));
    options.max_connections(1).sqlx_logging(false); // SQLite has one writer
    let database = Database::connect(options).await?;
    Migrator::up(&database, None).await?;
    let store = Operator::new(Fs::default().root(&folder.join("objects").display().to_string()))?;
    Ok(Engine::builder(database, store))
}
