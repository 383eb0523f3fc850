//! The hashes by which Incus knows images of two files.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::TryStreamExt;

use super::{PublishStep, StepContext, StepError, StepOutput};
use crate::model::incus::Eligible;
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
        super::INCUS_INDEX
    }

    async fn run(&self, cx: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let mut computed = BTreeMap::<(Digest, Digest), Digest>::new();
        let mut combined = BTreeMap::<String, Digest>::new();
        for eligible in cx.artifacts().iter().filter_map(|entry| Eligible::from_entry(entry).ok()) {
            let artifact = &eligible.entry.artifact;
            let digest = match eligible.metadata {
                None => artifact.blob.digest.clone(),
                Some(metadata) => {
                    let pair = (metadata.blob.digest.clone(), artifact.blob.digest.clone());
                    if let Some(digest) = computed.get(&pair) {
                        digest.clone()
                    } else {
                        let digest = hash_both(cx, &metadata.blob, &artifact.blob).await?;
                        computed.entry(pair).or_insert(digest).clone()
                    }
                }
            };
            combined.insert(artifact.id.to_string(), digest);
        }
        Ok(Some(serde_json::json!({ "combined_sha256": combined })))
    }
}

async fn hash_both(cx: &StepContext<'_>, metadata: &BlobRef, root: &BlobRef) -> Result<Digest, StepError> {
    let mut chain = HashChain::default();
    for blob in [metadata, root] {
        let mut body = cx.open(blob).await?.body;
        while let Some(bytes) = body.try_next().await? {
            chain = cx.engine.hashing().feed(chain, vec![bytes]).await?;
        }
    }
    Ok(chain.digest())
}
