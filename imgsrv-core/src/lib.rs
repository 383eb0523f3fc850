//! Stores, catalogues, publishes and serves VM and disk images, over any database that sea-orm and any store that
//! opendal can reach.
//!
//! A **blob** is verified bytes with a SHA-256. An **upload** delivers one blob in numbered **parts**, in any order, on
//! any node. An **image** is a namespace for **versions**; a version's **manifest** lists **artifacts** and their
//! **attachments**, which cite blobs. A version is a draft until a **publish job** of ordered steps makes it immutable;
//! then **aliases** may point at it.
//!
//! One handle does it all: [`Engine`]. It takes a database whose migrations ([`imgsrv_migration`]) have run and a store:
//!
//! ```
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use imgsrv_core::Engine;
//! use imgsrv_core::opendal::{Operator, services::Memory};
//! use imgsrv_core::sea_orm::Database;
//! use imgsrv_migration::{Migrator, MigratorTrait};
//!
//! let database = Database::connect("postgres://imgsrv@localhost/imgsrv").await?;
//! Migrator::up(&database, None).await?;
//! let store = Operator::new(Memory::default())?;
//! let engine = Engine::builder(database, store).build().await?;
//! # Ok(())
//! # }
//! ```
//!
//! From bytes to something that everybody may read (in a test, with the feature `testing`):
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use futures_util::{StreamExt, TryStreamExt, stream};
//! use imgsrv_core::model::{BlobRef, Digest, JobState, NewArtifact, NewImage, NewUpload, PartNumber, PartRef, Variant};
//! use imgsrv_core::{Engine, PartClaim};
//!
//! let engine = Engine::in_memory().await?;
//! let bytes = "a very small disk";
//! let digest = Digest::of(bytes.as_bytes());
//!
//! let new = NewUpload {
//!     expected_digest: digest.clone(),
//!     expected_size: bytes.len() as u64,
//!     media_type_hint: None,
//!     filename_hint: None,
//! };
//! let upload = engine.begin_upload(new).await?;
//! let body = stream::iter([Ok(bytes.into())]);
//! let part = engine.put_part(upload.id, PartNumber::try_from(1)?, PartClaim::default(), body).await?;
//! let listed = PartRef { number: part.number, etag: part.etag.to_string(), size: part.size };
//! engine.complete_upload(upload.id, vec![listed]).await?;
//!
//! let (image, version) = ("tiny".try_into()?, "1.0".try_into()?);
//! engine.create_image(NewImage { name: "tiny".try_into()?, display_name: None, description: None }).await?;
//! engine.create_version(&image, &version).await?;
//! let artifact = NewArtifact {
//!     variant: Variant::default_variant(),
//!     operating_system: "linux".try_into()?,
//!     architecture: "amd64".try_into()?,
//!     format: "raw".parse()?,
//!     blob: BlobRef { digest: digest.clone(), size: bytes.len() as u64, media_type: "application/octet-stream".try_into()? },
//!     requirements: Default::default(),
//! };
//! engine.add_artifact(&image, &version, artifact).await?;
//! let job = engine.publish_version(&image, &version).await?;
//! engine.run_until_idle().await?; // a server calls `run` instead
//! assert_eq!(engine.get_job(job.job.id).await?.job.state(), JobState::Succeeded);
//!
//! engine.put_alias(&image, &"latest".try_into()?, &version).await?;
//! assert_eq!(engine.resolve(&image, &"latest".try_into()?).await?.version, version);
//! let read: Vec<u8> = engine.read_blob(&digest, None).await?.body.map_ok(|b| b.to_vec()).try_concat().await?;
//! assert_eq!(read, bytes.as_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - A part that was acknowledged is durable, and so is every other answer.
//! - What is published never changes: guards in the code, triggers in the database.
//! - Any number of nodes may share one database and one store; each job is done by one of them at a time.
//! - Callers may stop waiting at any moment: what changes something runs to its end or leaves nothing behind.
//!
//! # What it leaves to you
//!
//! - Authorization: [`Engine::acting_as`] only writes down who acts, and [`model::Scope`] is for you to choose.
//! - The drivers: enable the feature `sqlite` or `postgres` (or sea-orm's own), and opendal's services.
//! - A place for the worker: spawn [`Engine::run`].

mod blobs;
mod catalog;
mod checksums;
mod circuit;
mod clock;
mod collect;
mod db;
mod engine;
mod error;
mod faults;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hashing;
mod heartbeat;
mod ingest;
mod memory;
pub mod model;
mod parts;
pub mod projection;
pub mod publish;
mod published;
mod receive;
mod remembered;
mod runner;
mod scrub;
mod segments;
mod store;
mod stream;
mod sweep;
#[cfg(feature = "testing")]
pub mod testing;
mod together;
mod uploads;
mod verify;

pub use blobs::BlobObject;
pub use clock::Clock;
pub use collect::Collected;
pub use db::{Db, Limited, Tx};
pub use engine::{Builder, Change, Engine, Settings, detached};
pub use error::{BoxError, Condition, Error, FieldError, Resource, Result};
pub use parts::{PART_SIZE_MAX, PartClaim};
pub use runner::Ran;
pub use stream::BlobStream;
pub use sweep::Swept;
pub use uploads::PART_SIZE_MIN;
pub use verify::Verdict;
pub use {opendal, sea_orm};
