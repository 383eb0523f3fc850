//! What others see of the catalogue, in formats of their own.
//!
//! A projection is rendered once per generation of the catalogue: when somebody first asks for it after a change.

mod simple_streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

pub use simple_streams::SimpleStreams;

use crate::db::{Tx, published};
use crate::error::unique;
use crate::model::{
    ArtifactId, Catalog, Digest, ImageId, Manifest, PublishedImage, PublishedVersion, VersionId, VersionState,
};
use crate::{BoxError, Engine, Error, Result};

/// Renders the published catalogue as files: an index, a list of checksums.
///
/// What needs the bytes of an image is computed by a [`PublishStep`](crate::publish::PublishStep) before; its output is
/// in the catalogue.
pub trait Projection: Send + Sync + 'static {
    /// Its name, unique among the projections; a server offers its files below it.
    fn name(&self) -> &'static str;

    /// The files that show this catalogue. They depend on it and on nothing else: no IO, no clock. What was made of an
    /// image may be kept for as long as the catalogue holds the same allocation of it.
    ///
    /// It runs on a thread that may block, and a row that is bad should cost what it describes and no more.
    ///
    /// # Errors
    /// Whatever keeps it from being rendered; whoever asks is told of an internal error, and it is tried again after the
    /// next change.
    fn render(&self, catalog: &Catalog) -> Result<Vec<File>, BoxError>;

    /// Why it does not show artifacts of a version; the texts are for people.
    fn left_out(&self, _catalog: &Catalog, _manifest: &Manifest) -> BTreeMap<ArtifactId, String> {
        BTreeMap::new()
    }
}

/// A file that a projection has rendered.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path below the name of the projection, `v1/index.json`.
    pub path: &'static str,
    /// What it is.
    pub media_type: &'static str,
    /// Its bytes, one piece after the other.
    pub body: Vec<Bytes>,
}

/// A rendered file as it can be sent.
#[derive(Debug)]
pub struct Rendered {
    /// What it is.
    pub media_type: &'static str,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// The bytes, one piece after the other.
    pub body: Vec<Bytes>,
}

/// Pieces smaller than this are joined: each costs a system call on its way out.
const PIECE: usize = 64 << 10;

impl From<File> for Rendered {
    fn from(file: File) -> Self {
        let mut hasher = Sha256::new();
        let (mut size, mut body, mut small) = (0, Vec::new(), BytesMut::new());
        for piece in file.body {
            hasher.update(&piece);
            size += piece.len() as u64;
            if piece.len() < PIECE {
                small.extend_from_slice(&piece);
            }
            if !small.is_empty() && (small.len() >= PIECE || piece.len() >= PIECE) {
                body.push(small.split().freeze());
            }
            if piece.len() >= PIECE {
                body.push(piece);
            }
        }
        if !small.is_empty() {
            body.push(small.freeze());
        }
        Self { media_type: file.media_type, digest: Digest::from_sha256(hasher.finalize().into()), size, body }
    }
}

/// The projections of an engine, and what they last showed.
pub(crate) struct Projections {
    all: Vec<Arc<dyn Projection>>,
    shown: Mutex<Option<Arc<Shown>>>,
    /// Held by whoever renders; those who come meanwhile wait for what it makes.
    rendering: tokio::sync::Mutex<()>,
}

/// One generation of the catalogue, and its files by projection and path.
struct Shown {
    catalog: Arc<Catalog>,
    files: HashMap<(&'static str, &'static str), Arc<Rendered>>,
    failed: BTreeSet<&'static str>,
}

impl Projections {
    pub(crate) fn new(all: Vec<Arc<dyn Projection>>) -> Result<Self> {
        unique("projections", all.iter().map(|projection| projection.name()))?;
        Ok(Self { all, shown: Mutex::default(), rendering: tokio::sync::Mutex::default() })
    }

    /// What was shown last; nothing before the first time.
    fn shown(&self) -> Option<Arc<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn at(&self, generation: i64) -> Option<Arc<Shown>> {
        self.shown().filter(|shown| shown.catalog.generation == generation)
    }

    fn render(&self, catalog: Arc<Catalog>) -> Shown {
        let (mut files, mut failed) = (HashMap::new(), BTreeSet::new());
        for projection in &self.all {
            let name = projection.name();
            let rendered = catch_unwind(AssertUnwindSafe(|| projection.render(&catalog)));
            match rendered.unwrap_or_else(|_| Err("it panicked".into())) {
                Ok(rendered) => {
                    files.extend(rendered.into_iter().map(|file| ((name, file.path), Arc::new(file.into()))));
                }
                Err(err) => {
                    tracing::error!(projection = name, error = err.to_string(), "a projection cannot be rendered");
                    failed.insert(name);
                }
            }
        }
        Shown { catalog, files, failed }
    }
}

impl Engine {
    /// A file of a projection, as of the last commit before the call; nothing where there is no such projection or file.
    ///
    /// # Errors
    /// What the database says; [`Error::Internal`] where the projection could not be rendered.
    pub async fn projected(&self, projection: &str, path: &str) -> Result<Option<Arc<Rendered>>> {
        let shown = self.shown().await?;
        if shown.failed.contains(projection) {
            return Err(Error::bug("a projection could not be rendered; the log says why"));
        }
        Ok(shown.files.get(&(projection, path)).cloned())
    }

    /// Everything that is published, as of the last commit before the call.
    ///
    /// # Errors
    /// What the database says.
    pub async fn catalog(&self) -> Result<Arc<Catalog>> {
        Ok(Arc::clone(&self.shown().await?.catalog))
    }

    /// Why a projection does not show artifacts of a version; nothing where there is no such projection.
    ///
    /// # Errors
    /// What the database says.
    pub async fn left_out(&self, projection: &str, manifest: &Manifest) -> Result<BTreeMap<ArtifactId, String>> {
        let Some(projection) = self.projections().all.iter().find(|other| other.name() == projection) else {
            return Ok(BTreeMap::new());
        };
        let catalog = match manifest.version.state {
            VersionState::Published => self.catalog().await?,
            // Nothing that is published has a say in why it is not.
            VersionState::Draft | VersionState::Publishing => Arc::default(),
        };
        Ok(projection.left_out(&catalog, manifest))
    }

    async fn shown(&self) -> Result<Arc<Shown>> {
        let generation = published::generation(self.db().reader()).await?;
        match self.projections().at(generation) {
            Some(shown) => Ok(shown),
            None => self.detached(|engine| async move { engine.show().await }).await,
        }
    }

    async fn show(&self) -> Result<Arc<Shown>> {
        let _turn = self.projections().rendering.lock().await;
        let generation = published::generation(self.db().reader()).await?;
        if let Some(shown) = self.projections().at(generation) {
            return Ok(shown);
        }
        // A database that has gone back, to a backup or to what a standby had, has nothing to do with what was shown.
        let before = self.projections().shown().filter(|shown| shown.catalog.generation < generation);
        let before = before.map(|shown| Arc::clone(&shown.catalog)).unwrap_or_default();
        let catalog = Arc::new(self.db().snapshot("catalog", async |tx| read(tx, &before).await).await?);
        let engine = self.clone();
        let shown = tokio::task::spawn_blocking(move || Arc::new(engine.projections().render(catalog)))
            .await
            .map_err(|err| Error::internal("rendering the projections", err))?;
        *self.projections().shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&shown));
        Ok(shown)
    }
}

/// The catalogue as it is now: what was there `before`, and what changed since.
async fn read(tx: &Tx, before: &Catalog) -> Result<Catalog> {
    let generation = published::generation(tx).await?;
    let changed = published::images_changed_after(tx, before.generation).await?;
    let ids: Vec<ImageId> = changed.iter().map(|image| image.id).collect();
    let mut versions = published::versions(tx, &ids).await?;
    let mut aliases = published::aliases(tx, &ids, versions.values().flatten()).await?;

    let known: HashMap<ImageId, &Arc<PublishedImage>> =
        before.images.iter().map(|image| (image.image.id, image)).collect();
    // What is published does not change, so only what is new is read.
    let mut read: HashMap<VersionId, Arc<PublishedVersion>> = ids
        .iter()
        .filter_map(|id| known.get(id))
        .flat_map(|image| &image.versions)
        .map(|version| (version.version.id, Arc::clone(version)))
        .collect();
    let new: Vec<VersionId> =
        versions.values().flatten().map(|version| version.id).filter(|id| !read.contains_key(id)).collect();
    let (mut entries, mut outputs) = (published::entries(tx, &new).await?, published::outputs(tx, &new).await?);

    let mut images: BTreeMap<_, _> =
        before.images.iter().map(|image| (image.image.name.clone(), Arc::clone(image))).collect();
    for image in changed {
        let versions = versions.remove(&image.id).unwrap_or_default().into_iter().filter_map(|version| {
            let id = version.id;
            // One of which a row could not be read is left out as a whole: its files could not be downloaded either.
            read.remove(&id).or_else(|| {
                let (artifacts, outputs) = (entries.remove(&id)?, outputs.remove(&id).unwrap_or_default());
                Some(Arc::new(PublishedVersion::new(version, artifacts, outputs)))
            })
        });
        let versions: Vec<_> = versions.collect();
        let aliases = aliases.remove(&image.id).unwrap_or_default();
        images.insert(image.name.clone(), Arc::new(PublishedImage { image, versions, aliases }));
    }
    Ok(Catalog::new(generation, images.into_values().collect()))
}
