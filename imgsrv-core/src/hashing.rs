//! Hashing beside the runtime: short jobs of some MiB, at most one a core at once.
//!
//! The state moves into a job and out again, so that no thread lives as long as a transfer and any number of transfers
//! share the threads that the file system needs too. What is given while a job runs waits for it, so that a core that
//! hashes need not wait for who reads or receives.

use std::sync::Arc;

use opendal::Buffer;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::checksums::Running;
use crate::memory::Grant;
use crate::model::{Digest, Etag, HashChain};
use crate::{Error, Result};

/// After how much a job lets others have its core: bytes. They take some ten ms, and more where a processor has no
/// instructions for SHA.
const JOB: usize = 16 << 20;

/// Limits how many hashing jobs run at once.
#[derive(Clone, Debug)]
pub(crate) struct HashPool(Arc<Semaphore>);

impl HashPool {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))))
    }

    /// Takes chunks for `hashes`, in their order, as long as no more than `most` of them are not hashed yet.
    pub(crate) fn begin<H: Hashes>(&self, hashes: H, most: usize) -> Hashing<H> {
        let (chunks, given) = mpsc::unbounded_channel();
        let task = AbortOnDropHandle::new(tokio::spawn(self.clone().run(hashes, given)));
        Hashing { chunks, slots: Arc::new(Semaphore::new(most)), task }
    }

    async fn run<H: Hashes>(self, mut hashes: H, mut chunks: UnboundedReceiver<Chunk>) -> Result<H> {
        while let Some(first) = chunks.recv().await {
            let permit = Arc::clone(&self.0).acquire_owned().await.expect("the pool is never closed");
            let job = tokio::task::spawn_blocking(move || {
                let (mut fed, mut next) = (0, Some(first));
                while let Some(Chunk { bytes, held }) = next {
                    fed += bytes.len();
                    bytes.for_each(|bytes| hashes.update(&bytes));
                    drop(held);
                    // A job for each chunk made a pass over 1 GiB in memory 3 % slower.
                    next = if fed < JOB { chunks.try_recv().ok() } else { None };
                }
                drop(permit);
                (hashes, chunks)
            });
            (hashes, chunks) = job.await.map_err(|err| Error::internal("hashing", err))?;
        }
        Ok(hashes)
    }
}

/// Hash states that are being fed. When it is dropped what waits is let go of, unhashed.
pub(crate) struct Hashing<H> {
    chunks: UnboundedSender<Chunk>,
    slots: Arc<Semaphore>,
    task: AbortOnDropHandle<Result<H>>,
}

/// Bytes, and what is given back when they are hashed.
struct Chunk {
    bytes: Buffer,
    held: (OwnedSemaphorePermit, Option<Grant>),
}

impl<H: Hashes> Hashing<H> {
    /// Gives a chunk, as soon as there is a slot for it.
    pub(crate) async fn feed(&self, bytes: impl Into<Buffer>, grant: Option<Grant>) -> Result<()> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        let given = self.chunks.send(Chunk { bytes: bytes.into(), held: (slot, grant) });
        given.map_err(|_| Error::bug("a hashing job panicked"))
    }

    /// Waits for all to be hashed.
    pub(crate) async fn end(self) -> Result<H> {
        drop(self.chunks);
        self.task.await.map_err(|err| Error::internal("hashing", err))?
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;
    use crate::memory::Budget;

    /// Hashes each chunk as soon as it is told to; panics when nobody can tell it any more.
    struct Told(mpsc::Receiver<()>);

    impl Hashes for Told {
        fn update(&mut self, _: &[u8]) {
            self.0.recv().expect("to be told");
        }
    }

    #[tokio::test]
    async fn as_many_chunks_as_were_agreed_upon_wait_for_their_hash() {
        let (tell, told) = mpsc::channel();
        let hashing = HashPool::new().begin(Told(told), 2);
        hashing.feed(vec![1], None).await.expect("a slot");
        hashing.feed(vec![2], None).await.expect("another one");
        let mut third = Box::pin(hashing.feed(vec![3], None));
        assert!(third.as_mut().now_or_never().is_none(), "both wait");
        tell.send(()).expect("a job");
        third.await.expect("the slot of the first");
        tell.send(()).and_then(|()| tell.send(())).expect("a job");
        hashing.end().await.expect("all are hashed");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_whoever_feeds_and_for_who_waits() {
        for most in [1, 2] {
            let begin = || HashPool::new().begin(Told(mpsc::channel().1), most);
            let hashing = begin();
            let mut fed = Ok(());
            while fed.is_ok() {
                fed = hashing.feed(vec![1], None).await;
            }
            let hashing = begin();
            hashing.feed(vec![1], None).await.expect("nothing has happened yet");
            assert!(hashing.end().await.is_err());
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_core_is_let_go_of_when_nobody_wants_it() {
        let pool = HashPool::new();
        let all = u32::try_from(pool.0.available_permits()).expect("a number of cores");
        let _busy = pool.0.acquire_many(all).await.expect("all of the pool");
        let budget = Budget::new(1 << 20, 0);
        let before = budget.left();
        let hashing = pool.begin(HashChain::default(), 1);
        hashing.feed(vec![1], Some(budget.up_to(1).await)).await.expect("a slot");
        tokio::task::yield_now().await;
        assert!(budget.left() < before);
        drop(hashing);
        tokio::task::yield_now().await;
        assert_eq!(budget.left(), before);
    }
}
