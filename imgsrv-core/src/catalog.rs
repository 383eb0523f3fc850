//! The catalogue: images, versions, artifacts, attachments and aliases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt;

use crate::db::{Db, Tx, artifacts, catalog, jobs, sweeps};
use crate::engine::Change;
use crate::model::{
    Alias, AliasName, Artifact, ArtifactId, Attachment, AttachmentId, Digest, Image, ImageName, JobKind, Manifest,
    NewArtifact, NewAttachment, NewImage, Page, Paged, Reference, Scope, Subject, Version, VersionEvent, VersionId,
    VersionName, VersionState,
};
use crate::published::Published;
use crate::{Condition, Engine, Error, Resource, Result};

impl Engine {
    /// Makes an image.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub async fn create_image(&self, new: NewImage) -> Result<Image> {
        self.detached(|engine| async move {
            let now = engine.clock().now();
            let image = Image {
                id: engine.clock().new_id().into(),
                name: new.name,
                display_name: new.display_name,
                description: new.description,
                created_at: now,
                updated_at: now,
            };
            engine
                .db()
                .tx("create_image", async |tx| {
                    catalog::insert_image(tx, image.clone()).await?;
                    engine.record(tx, Change::new(Subject::Image, image.id, "created").named(&image.name)).await?;
                    Ok(image)
                })
                .await
        })
        .await
    }

    /// The image.
    ///
    /// # Errors
    /// [`Error::NotFound`], in [`Scope::Published`] also when it has no published version.
    pub async fn get_image(&self, image: &ImageName, scope: Scope) -> Result<Image> {
        catalog::image(self.db().reader(), image, scope).await
    }

    /// Images by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another list.
    pub async fn list_images(&self, scope: Scope, page: Page) -> Result<Paged<Image>> {
        catalog::list_images(self.db().reader(), scope, &page).await
    }

    /// Deletes an image that has no version.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::NotEmpty`].
    pub async fn delete_image(&self, image: &ImageName) -> Result<()> {
        let name = image.clone();
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("delete_image", async |tx| {
                    let image = catalog::touch_image(tx, &name, now).await?;
                    if catalog::has_versions(tx, image.id).await? {
                        let reason = format!("image {name} has versions");
                        return Err(Error::precondition(Condition::NotEmpty, reason));
                    }
                    catalog::delete_image(tx, image.id).await?;
                    engine.record(tx, Change::new(Subject::Image, image.id, "deleted").named(&image.name)).await
                })
                .await
        })
        .await
    }

    /// Makes a draft.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the image; [`Error::AlreadyExists`].
    pub async fn create_version(&self, image: &ImageName, version: &VersionName) -> Result<Version> {
        let (name, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("create_version", async |tx| {
                    let image = catalog::touch_image(tx, &name, now).await?;
                    let version = Version {
                        id: engine.clock().new_id().into(),
                        image_id: image.id,
                        version,
                        state: VersionState::Draft,
                        published_at: None,
                        created_at: now,
                        updated_at: now,
                    };
                    catalog::insert_version(tx, version.clone(), &name).await?;
                    let change = Change::new(Subject::Version, version.id, "created").to(version.state);
                    engine.record(tx, change.named_in(&name, &version.version)).await?;
                    Ok(version)
                })
                .await
        })
        .await
    }

    /// Versions of an image in one state, newest first; in [`Scope::Published`] none but published ones.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the image as [`Engine::get_image`] has it; [`Error::Invalid`] for a cursor of another
    /// list.
    pub async fn list_versions(
        &self,
        image: &ImageName,
        state: VersionState,
        scope: Scope,
        page: Page,
    ) -> Result<Paged<Version>> {
        let image = self.get_image(image, scope).await?;
        if scope == Scope::Published && state != VersionState::Published {
            return Ok(Paged { items: Vec::new(), next: None });
        }
        catalog::list_versions(self.db().reader(), image.id, state, &page).await
    }

    /// Everything that a version is.
    ///
    /// # Errors
    /// [`Error::NotFound`], in [`Scope::Published`] also when it is not published.
    pub async fn get_manifest(&self, image: &ImageName, version: &VersionName, scope: Scope) -> Result<Manifest> {
        if scope == Scope::Published {
            // What is published does not change, so several reads agree without a transaction.
            let published = self.get_published(image, version).await?;
            let read = |db: Db, name| async move { catalog::image(db.reader(), &name, Scope::All).await }.boxed();
            let image = self.images().read(self.db(), image.clone(), read).await?;
            let Published { version, artifacts } = Arc::unwrap_or_clone(published);
            return Ok(Manifest { image, version, artifacts });
        }
        let (image, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            engine.db().snapshot("manifest", async |tx| catalog::manifest(tx, &image, &version, scope).await).await
        })
        .await
    }

    /// What everybody may see of a version.
    async fn get_published(&self, image: &ImageName, version: &VersionName) -> Result<Arc<Published>> {
        if let Some(published) = self.published().get(&(image.clone(), version.clone())) {
            return Ok(published);
        }
        let found = catalog::manifest(self.db().reader(), image, version, Scope::Published).await?;
        let published = Arc::new(Published { version: found.version, artifacts: found.artifacts });
        self.published().put((image.clone(), version.clone()), Arc::clone(&published));
        Ok(published)
    }

    /// Deletes a draft with its artifacts and attachments.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] unless it is a draft.
    pub async fn delete_draft(&self, image: &ImageName, version: &VersionName) -> Result<()> {
        let (image, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            let edit = async |tx: &Tx, id: VersionId| {
                jobs::delete_for(tx, JobKind::Publish, &id.to_string()).await?;
                let cited = artifacts::entries(tx, id).await?.into_iter().flat_map(|entry| {
                    let attached = entry.attachments.into_iter().map(|attachment| attachment.blob.digest);
                    attached.chain([entry.artifact.blob.digest]).collect::<Vec<_>>()
                });
                artifacts::delete_all(tx, id).await?;
                catalog::delete_version(tx, id).await?;
                engine.let_go(tx, cited).await?;
                let change = Change::new(Subject::Version, id, "deleted").from(VersionState::Draft);
                engine.record(tx, change.named_in(&image, &version)).await
            };
            engine.edit(&image, &version, "delete_draft", edit).await
        })
        .await
    }

    /// Artifacts of a version, in the order in which they were added.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the version as [`Engine::get_manifest`] has it; [`Error::Invalid`] for a cursor of
    /// another list.
    pub async fn list_artifacts(
        &self,
        image: &ImageName,
        version: &VersionName,
        scope: Scope,
        page: Page,
    ) -> Result<Paged<Artifact>> {
        let (_, version) = catalog::version(self.db().reader(), image, version, scope).await?;
        artifacts::list(self.db().reader(), version.id, &page).await
    }

    /// One artifact of a version.
    ///
    /// # Errors
    /// [`Error::NotFound`], for the version too.
    pub async fn get_artifact(
        &self,
        image: &ImageName,
        version: &VersionName,
        artifact: ArtifactId,
        scope: Scope,
    ) -> Result<Artifact> {
        if scope == Scope::Published {
            let published = self.get_published(image, version).await?;
            return Ok(published.entry(artifact)?.artifact.clone());
        }
        let (_, version) = catalog::version(self.db().reader(), image, version, scope).await?;
        artifacts::get(self.db().reader(), version.id, artifact).await
    }

    /// Adds an artifact to a draft. Its blob need not exist yet.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] unless it is a draft; [`Error::AlreadyExists`] where another one
    /// has the same variant, operating system, architecture and format; [`Error::Invalid`] for requirements that are
    /// blank, hold control characters or are longer than 255 bytes.
    pub async fn add_artifact(&self, image: &ImageName, version: &VersionName, new: NewArtifact) -> Result<Artifact> {
        let (image, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            check_requirements(&new.requirements)?;
            let edit = async |tx: &Tx, version_id: VersionId| {
                let now = engine.clock().now();
                engine.cite(tx, &new.blob.digest).await?;
                let artifact = Artifact {
                    id: engine.clock().new_id().into(),
                    version_id,
                    variant: new.variant,
                    operating_system: new.operating_system,
                    architecture: new.architecture,
                    format: new.format,
                    blob: new.blob,
                    requirements: new.requirements,
                    created_at: now,
                };
                artifacts::insert(tx, artifact.clone()).await?;
                let digest = &artifact.blob.digest;
                let change = Change::new(Subject::Artifact, artifact.id, "added").to(digest);
                engine.record(tx, change.named_in(&image, &version)).await?;
                Ok(artifact)
            };
            engine.edit(&image, &version, "add_artifact", edit).await
        })
        .await
    }

    /// Removes an artifact and its attachments from a draft.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] unless it is a draft.
    pub async fn remove_artifact(&self, image: &ImageName, version: &VersionName, artifact: ArtifactId) -> Result<()> {
        let (image, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            let edit = async |tx: &Tx, version_id: VersionId| {
                let Artifact { blob, .. } = artifacts::get(tx, version_id, artifact).await?;
                let attached = artifacts::attached(tx, artifact).await?;
                artifacts::delete(tx, version_id, artifact).await?;
                engine.let_go(tx, attached.into_iter().chain([blob.digest.clone()])).await?;
                let change = Change::new(Subject::Artifact, artifact, "removed").from(blob.digest);
                engine.record(tx, change.named_in(&image, &version)).await
            };
            engine.edit(&image, &version, "remove_artifact", edit).await
        })
        .await
    }

    /// One attachment of an artifact.
    ///
    /// # Errors
    /// [`Error::NotFound`], for the artifact and the version too.
    pub async fn get_attachment(
        &self,
        image: &ImageName,
        version: &VersionName,
        artifact: ArtifactId,
        attachment: AttachmentId,
        scope: Scope,
    ) -> Result<Attachment> {
        if scope == Scope::Published {
            let published = self.get_published(image, version).await?;
            let mut attachments = published.entry(artifact)?.attachments.iter();
            let found = attachments.find(|found| found.id == attachment);
            return found.cloned().ok_or(Error::NotFound(Resource::Attachment(attachment)));
        }
        let artifact = self.get_artifact(image, version, artifact, scope).await?;
        artifacts::attachment(self.db().reader(), artifact.id, attachment).await
    }

    /// Adds an attachment to an artifact of a draft. Its blob need not exist yet.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] unless it is a draft; [`Error::AlreadyExists`] where the artifact
    /// has one of that name.
    pub async fn add_attachment(
        &self,
        image: &ImageName,
        version: &VersionName,
        artifact: ArtifactId,
        new: NewAttachment,
    ) -> Result<Attachment> {
        let (image, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            let edit = async |tx: &Tx, version_id: VersionId| {
                let now = engine.clock().now();
                let artifact = artifacts::get(tx, version_id, artifact).await?;
                engine.cite(tx, &new.blob.digest).await?;
                let attachment = Attachment {
                    id: engine.clock().new_id().into(),
                    artifact_id: artifact.id,
                    name: new.name,
                    blob: new.blob,
                    created_at: now,
                };
                artifacts::insert_attachment(tx, attachment.clone()).await?;
                let digest = &attachment.blob.digest;
                let change = Change::new(Subject::Attachment, attachment.id, "added").to(digest);
                engine.record(tx, change.named_in(&image, &version)).await?;
                Ok(attachment)
            };
            engine.edit(&image, &version, "add_attachment", edit).await
        })
        .await
    }

    /// Removes an attachment from an artifact of a draft.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Condition::WrongState`] unless it is a draft.
    pub async fn remove_attachment(
        &self,
        image: &ImageName,
        version: &VersionName,
        artifact: ArtifactId,
        attachment: AttachmentId,
    ) -> Result<()> {
        let (image, version) = (image.clone(), version.clone());
        self.detached(|engine| async move {
            let edit = async |tx: &Tx, version_id: VersionId| {
                let artifact = artifacts::get(tx, version_id, artifact).await?;
                let Attachment { blob, .. } = artifacts::attachment(tx, artifact.id, attachment).await?;
                artifacts::delete_attachment(tx, artifact.id, attachment).await?;
                engine.let_go(tx, [blob.digest.clone()]).await?;
                let change = Change::new(Subject::Attachment, attachment, "removed").from(blob.digest);
                engine.record(tx, change.named_in(&image, &version)).await
            };
            engine.edit(&image, &version, "remove_attachment", edit).await
        })
        .await
    }

    /// The time of a blob that nothing cites begins when the last citation goes. Locks come in the order of digests.
    async fn let_go(&self, tx: &Tx, digests: impl IntoIterator<Item = Digest>) -> Result<()> {
        for digest in digests.into_iter().collect::<BTreeSet<_>>() {
            sweeps::let_go(tx, &digest, self.clock().now()).await?;
        }
        Ok(())
    }

    /// Points an alias at a published version, and makes it if it is new. One that points there already stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the image or the version; [`Condition::WrongState`] unless it is published.
    pub async fn put_alias(&self, image: &ImageName, alias: &AliasName, version: &VersionName) -> Result<Alias> {
        let (image, alias, version) = (image.clone(), alias.clone(), version.clone());
        self.detached(|engine| async move {
            engine.db().tx("put_alias", async |tx| engine.move_alias(tx, &image, alias, &version).await).await
        })
        .await
    }

    async fn move_alias(&self, tx: &Tx, image: &ImageName, name: AliasName, version: &VersionName) -> Result<Alias> {
        let now = self.clock().now();
        let owner = catalog::touch_image(tx, image, now).await?;
        let (_, target) = catalog::version(tx, image, version, Scope::All).await?;
        if target.state != VersionState::Published {
            let reason = format!("version {version} is {}: an alias points at a published version", target.state);
            return Err(Error::precondition(Condition::WrongState, reason));
        }
        let old = catalog::alias(tx, owner.id, &name).await?;
        if let Some(same) = old.clone().filter(|old| old.version_id == target.id) {
            return Ok(same);
        }
        let alias = Alias {
            id: old.as_ref().map_or_else(|| self.clock().new_id().into(), |old| old.id),
            image_id: owner.id,
            alias: name,
            version_id: target.id,
            version: target.version,
            created_at: old.as_ref().map_or(now, |old| old.created_at),
            updated_at: now,
        };
        catalog::put_alias(tx, alias.clone(), old.is_some()).await?;
        catalog::next_generation(tx, owner.id).await?;
        let change = match &old {
            Some(old) => Change::new(Subject::Alias, alias.id, "moved").from(&old.version),
            None => Change::new(Subject::Alias, alias.id, "created"),
        };
        self.record(tx, change.to(&alias.version).named_in(image, &alias.alias)).await?;
        Ok(alias)
    }

    /// The alias.
    ///
    /// # Errors
    /// [`Error::NotFound`], for the image too, as [`Engine::get_image`] has it.
    pub async fn get_alias(&self, image: &ImageName, alias: &AliasName, scope: Scope) -> Result<Alias> {
        let owner = self.get_image(image, scope).await?;
        let found = catalog::alias(self.db().reader(), owner.id, alias).await?;
        found.ok_or_else(|| Error::NotFound(Resource::Alias(image.clone(), alias.clone())))
    }

    /// Aliases of an image, by name.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the image as [`Engine::get_image`] has it; [`Error::Invalid`] for a cursor of another list.
    pub async fn list_aliases(&self, image: &ImageName, scope: Scope, page: Page) -> Result<Paged<Alias>> {
        let owner = self.get_image(image, scope).await?;
        catalog::list_aliases(self.db().reader(), owner.id, &page).await
    }

    /// Deletes an alias.
    ///
    /// # Errors
    /// [`Error::NotFound`], for the image too.
    pub async fn delete_alias(&self, image: &ImageName, alias: &AliasName) -> Result<()> {
        let (image, name) = (image.clone(), alias.clone());
        self.detached(|engine| async move {
            let now = engine.clock().now();
            engine
                .db()
                .tx("delete_alias", async |tx| {
                    let owner = catalog::touch_image(tx, &image, now).await?;
                    let Some(alias) = catalog::alias(tx, owner.id, &name).await? else {
                        return Err(Error::NotFound(Resource::Alias(image, name)));
                    };
                    catalog::delete_alias(tx, owner.id, &name).await?;
                    catalog::next_generation(tx, owner.id).await?;
                    let change = Change::new(Subject::Alias, alias.id, "deleted").from(&alias.version);
                    engine.record(tx, change.named_in(&image, &name)).await
                })
                .await
        })
        .await
    }

    /// The published version that a reference means: one of that name, else the one that an alias of that name points
    /// at.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn resolve(&self, image: &ImageName, reference: &Reference) -> Result<Version> {
        let names = (image.clone(), reference.clone());
        let read =
            |db: Db, (image, reference)| async move { catalog::resolve(db.reader(), &image, &reference).await }.boxed();
        let found = self.references().read(self.db(), names, read).await?;
        found.ok_or_else(|| Error::NotFound(Resource::Reference(image.clone(), reference.clone())))
    }

    /// Everything in the published version that a reference means.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn resolve_manifest(&self, image: &ImageName, reference: &Reference) -> Result<Manifest> {
        let version = self.resolve(image, reference).await?;
        self.get_manifest(image, &version.version, Scope::Published).await
    }

    /// Runs a change of a draft's content behind the guard that it is one. Call it in a detached task.
    async fn edit<T>(
        &self,
        image: &ImageName,
        version: &VersionName,
        name: &'static str,
        change: impl AsyncFnOnce(&Tx, VersionId) -> Result<T>,
    ) -> Result<T> {
        let (_, version) = catalog::version(self.db().reader(), image, version, Scope::All).await?;
        let now = self.clock().now();
        self.db()
            .tx(name, async |tx| {
                if !catalog::transition(tx, version.id, VersionEvent::Edited, now).await? {
                    return Err(catalog::explain(tx, version.id, VersionEvent::Edited).await?);
                }
                change(tx, version.id).await
            })
            .await
    }
}

fn check_requirements(requirements: &BTreeMap<String, String>) -> Result<()> {
    let fits = |text: &String| !text.trim().is_empty() && text.len() <= 255 && !text.contains(char::is_control);
    if requirements.len() <= 64 && requirements.iter().all(|(key, value)| fits(key) && fits(value)) {
        return Ok(());
    }
    let reason = "are at most 64 texts, each of 1 to 255 bytes without control characters".to_owned();
    Err(Error::Invalid { what: "requirements", reason })
}
