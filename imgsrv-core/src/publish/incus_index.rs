//! The hashes by which Incus knows images of two files.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::TryStreamExt;

use super::{PublishStep, StepContext, StepError, StepOutput};
use crate::db::{Tx, fingerprints};
use crate::model::incus::{self, Eligible};
use crate::model::{BlobRef, Digest, HashChain};

/// Computes, for every artifact that Incus can use, the SHA-256 of metadata and root file one after the other; of a
/// combined archive it is the archive's own.
///
/// The output maps artifact ids to digests: `{"combined_sha256": {"<artifact id>": "sha256:…"}}`.
#[derive(Debug)]
pub(super) struct IncusIndex;

#[async_trait]
impl PublishStep for IncusIndex {
    fn name(&self) -> &'static str {
        incus::STEP
    }

    async fn run(&self, cx: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let mut combined = BTreeMap::<String, Digest>::new();
        for eligible in cx.artifacts().iter().filter_map(|entry| Eligible::from_entry(entry).ok()) {
            let artifact = &eligible.entry.artifact;
            let digest = match eligible.metadata {
                None => artifact.blob.digest.clone(),
                Some(metadata) => fingerprint(cx, &metadata.blob, &artifact.blob).await?,
            };
            combined.insert(artifact.id.to_string(), digest);
        }
        Ok(Some(incus::output(&combined)))
    }
}

/// Computed once for each pair: it costs a pass over the image.
async fn fingerprint(cx: &StepContext<'_>, metadata: &BlobRef, root: &BlobRef) -> Result<Digest, StepError> {
    if let Some(known) = fingerprints::get(cx.engine.db().reader(), &metadata.digest, &root.digest).await? {
        return Ok(known);
    }
    let computed = hash_both(cx, metadata, root).await?;
    let (metadata, root, fingerprint) = (metadata.digest.clone(), root.digest.clone(), computed.clone());
    cx.engine
        .detached(|engine| async move {
            let insert = async |tx: &Tx| fingerprints::insert(tx, metadata, root, fingerprint).await;
            engine.db().tx("incus_fingerprint", insert).await
        })
        .await?;
    Ok(computed)
}

async fn hash_both(cx: &StepContext<'_>, metadata: &BlobRef, root: &BlobRef) -> Result<Digest, StepError> {
    let hashing = cx.engine.hashing().begin(HashChain::default(), 1);
    for blob in [metadata, root] {
        let mut body = cx.open(blob).await?.body;
        while let Some(bytes) = body.try_next().await? {
            // One chunk beside the budget: what is read needs none of it as soon as the next one is asked for.
            hashing.feed(bytes, None).await?;
        }
    }
    Ok(hashing.end().await?.digest())
}
