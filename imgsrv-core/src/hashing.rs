//! Hashing beside the runtime: short jobs of some MiB, at most one a core at once.
//!
//! The state moves into a job and out again, so that no thread lives as long as a transfer and any number of transfers
//! share the threads that the file system needs too.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::checksums::Running;
use crate::model::{Digest, Etag, HashChain};
use crate::{Error, Result};

/// Limits how many hashing jobs run at once.
#[derive(Clone, Debug)]
pub(crate) struct HashPool(Arc<Semaphore>);

impl HashPool {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))))
    }

    /// Feeds `bytes` to `hashes` and gives both back.
    pub(crate) async fn feed<H: Hashes>(&self, mut hashes: H, bytes: Vec<Bytes>) -> Result<H> {
        let _permit = self.0.acquire().await.expect("the pool is never closed");
        tokio::task::spawn_blocking(move || {
            for bytes in &bytes {
                hashes.update(bytes);
            }
            hashes
        })
        .await
        .map_err(|err| Error::internal("hashing", err))
    }
}

/// A set of hash states.
pub(crate) trait Hashes: Send + 'static {
    fn update(&mut self, bytes: &[u8]);
}

impl Hashes for HashChain {
    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }
}

/// Everything that is computed of a part while it streams through.
pub(crate) struct PartHashes {
    checksums: Running,
    /// From the first byte of the upload, as far as the part before this one is known.
    chain: Option<HashChain>,
    own: Own,
}

/// The part's own SHA-256.
enum Own {
    /// Not asked for.
    Unknown,
    /// The part begins the upload, so the chain is it.
    Chain,
    /// Asked for, and apart from the chain.
    Apart(Box<Sha256>),
}

impl PartHashes {
    /// Hashes for a part that follows `chain`; with its own SHA-256 if that is `wanted` or costs nothing.
    pub(crate) fn new(chain: Option<HashChain>, wanted: bool) -> Self {
        let own = match &chain {
            Some(chain) if chain.offset() == 0 => Own::Chain,
            _ if wanted => Own::Apart(Box::default()),
            _ => Own::Unknown,
        };
        Self { checksums: Running::default(), chain, own }
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.checksums.size()
    }

    pub(crate) fn etag(&self) -> Etag {
        Etag::of(self.checksums.whole(), self.size())
    }

    pub(crate) fn checksums(&self) -> &Running {
        &self.checksums
    }

    pub(crate) fn chain(&self) -> Option<&HashChain> {
        self.chain.as_ref()
    }

    pub(crate) fn own(&self) -> Option<Digest> {
        match &self.own {
            Own::Unknown => None,
            Own::Chain => self.chain.as_ref().map(HashChain::digest),
            Own::Apart(hasher) => Some(Digest::from_sha256(hasher.as_ref().clone().finalize().into())),
        }
    }
}

impl Hashes for PartHashes {
    fn update(&mut self, bytes: &[u8]) {
        self.checksums.update(bytes);
        if let Some(chain) = &mut self.chain {
            chain.update(bytes);
        }
        if let Own::Apart(hasher) = &mut self.own {
            hasher.update(bytes);
        }
    }
}
