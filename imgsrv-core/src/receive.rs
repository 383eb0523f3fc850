//! A request body on its way into the store.
//!
//! One batch is filled from the client while the one before it is written. Beside that they are hashed, a few behind.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;
use std::{io, mem};

use bytes::{Bytes, BytesMut};
use futures_util::stream::Fuse;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::hashing::{HashPool, PartHashes};
use crate::memory::Budget;
use crate::store::Store;
use crate::{Condition, Error, Result};

/// A client that sends nothing for so long is gone, whether its connection says so or not.
const SILENCE: Duration = Duration::from_mins(2);

/// A client that takes longer for a batch is given small ones: memory is for those that make use of it.
const SLOW: Duration = Duration::from_secs(1);

/// How often the room on the disk is looked at: bytes.
const CHECK_ROOM: u64 = 64 << 20;

/// How much is copied at once: bytes. glibc copies what is larger with `rep movsb` on processors that claim to be fast at
/// that; Zen 3 and 4 are twenty times as slow where the place of the copy within its page is 1 to 15 bytes behind that of
/// the original: <https://sourceware.org/bugzilla/show_bug.cgi?id=30994>.
const COPY: usize = 2 << 10;

/// What is needed to receive one body.
pub(crate) struct Receiver<'a> {
    pub store: &'a Store,
    pub budget: &'a Budget,
    pub hashing: &'a HashPool,
    /// Cancelled when nobody waits for the answer any more.
    pub gone: &'a CancellationToken,
    /// How many bytes the client has announced.
    pub announced: Option<u64>,
    /// The bytes that the session still lacks.
    pub room: u64,
    /// The most bytes that any part may have.
    pub part_max: u64,
    /// What must be left on the disk: bytes.
    pub min_free: u64,
}

impl Receiver<'_> {
    /// Streams `body` into the object `key`, durable when this answers, and hashes it on the way.
    pub(crate) async fn receive(
        &self,
        key: &str,
        body: Pin<&mut (impl Stream<Item = io::Result<Bytes>> + Send)>,
        hashes: PartHashes,
    ) -> Result<PartHashes> {
        let (room, part_max) = (self.room, self.part_max);
        let mut source = Source { body: body.fuse(), gone: self.gone, spare: None, size: 0, room, part_max };
        // Nothing is held for a client that sends nothing.
        source.spare = source.next().await?;
        if source.spare.is_none() {
            return Ok(hashes);
        }
        let sizes = self.store.batches();
        let announced = self.announced.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
        let base = (sizes.alive() * sizes.least).min(announced);
        let granted = self.gone.run_until_cancelled(self.budget.allowance(base)).await;
        let mut allowance = granted.ok_or_else(|| interrupted("nobody waits for the answer"))?;
        let mut batch = source.fill(None, sizes.least).await?;
        let mut kept = VecDeque::from(vec![Bytes::new(); sizes.kept]);
        let mut spent = None;
        let mut size = sizes.least;
        let mut writer = self.store.writer(key).await?;
        let hashing = self.hashing.begin(hashes, sizes.kept);
        let (mut written, mut checked) = (0, 0);
        while !batch.is_empty() {
            if written - checked >= CHECK_ROOM {
                if let Err(err) = self.store.check_room(self.min_free).await {
                    writer.discard().await;
                    return Err(err);
                }
                checked = written;
            }
            let begun = Instant::now();
            let flush = async {
                tokio::try_join!(writer.write(batch.clone()), hashing.feed(batch.clone(), None))?;
                Ok(Instant::now())
            };
            let fill = async { Ok((source.fill(spent, size).await?, Instant::now())) };
            let (flushed_at, (filled, filled_at)) = match tokio::try_join!(flush, fill) {
                Ok(done) => done,
                Err(err) => {
                    writer.discard().await;
                    return Err(err);
                }
            };
            written += batch.len() as u64;
            kept.push_back(mem::replace(&mut batch, filled));
            if filled_at <= flushed_at {
                // The client waits for us: larger batches cost less each byte.
                allowance.grow(sizes.alive() * sizes.most);
                size = sizes.of(allowance.bytes());
            } else if filled_at - begun > SLOW {
                size = sizes.least;
            }
            // Memory that the next batch cannot use is free from here on, since that may take its client long.
            spent =
                kept.pop_front().and_then(|batch| batch.try_into_mut().ok()).filter(|spent| spent.capacity() == size);
            // What is held must have become as small as what is granted then.
            if size == sizes.least && batch.len() == size && kept.iter().all(|kept| kept.len() == size) {
                allowance.shrink();
            }
        }
        // To close an object takes long.
        drop((kept, spent));
        writer.finish().await?;
        hashing.end().await
    }
}

struct Source<'a, B> {
    body: Fuse<Pin<&'a mut B>>,
    gone: &'a CancellationToken,
    /// What of a frame did not fit into the last batch.
    spare: Option<Bytes>,
    /// How many bytes came, and how many may.
    size: u64,
    room: u64,
    part_max: u64,
}

impl<B: Stream<Item = io::Result<Bytes>> + Send> Source<'_, B> {
    /// The next `size` bytes; fewer at the end of the body, and none behind it.
    ///
    /// They are copied, into memory that was `spent` if there is some, so that the connection can receive into the same
    /// memory again, and a client that sends single bytes does not have us hold more about them than of them.
    async fn fill(&mut self, spent: Option<BytesMut>, size: usize) -> Result<Bytes> {
        let mut batch = spent.unwrap_or_else(|| BytesMut::with_capacity(size));
        batch.clear();
        while batch.len() < size
            && let Some(mut frame) = self.next().await?
        {
            let room = size - batch.len();
            if frame.len() > room {
                self.spare = Some(frame.split_off(room));
            }
            frame.chunks(COPY).for_each(|block| batch.extend_from_slice(block));
        }
        Ok(batch.freeze())
    }

    /// The next bytes; refuses the first that are too many.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(spare) = self.spare.take() {
            return Ok(Some(spare));
        }
        loop {
            let frame = tokio::select! {
                biased;
                () = self.gone.cancelled() => return Err(interrupted("nobody waits for the answer")),
                frame = timeout(SILENCE, self.body.next()) => {
                    frame.map_err(|_| interrupted("nothing came for two minutes"))?
                }
            };
            match frame {
                // A connection that breaks can look like the end of a body without a length.
                None if self.gone.is_cancelled() => return Err(interrupted("nobody waits for the answer")),
                None => return Ok(None),
                Some(Err(err)) => return Err(interrupted(err)),
                Some(Ok(frame)) if frame.is_empty() => {}
                Some(Ok(frame)) => {
                    self.size += frame.len() as u64;
                    if self.size > self.room {
                        return Err(too_many());
                    }
                    if self.size > self.part_max {
                        return Err(too_large(self.part_max));
                    }
                    return Ok(Some(frame));
                }
            }
        }
    }
}

/// The body ended before its end.
pub(crate) fn interrupted(why: impl std::fmt::Display) -> Error {
    Error::Invalid { what: "body", reason: format!("ended early: {why}") }
}

/// The refusal of a part that no store would take in one piece.
pub(crate) fn too_large(part_max: u64) -> Error {
    Error::Invalid { what: "part", reason: format!("has at most {part_max} bytes") }
}

/// The refusal of a part with which the upload would be larger than was promised.
pub(crate) fn too_many() -> Error {
    Error::precondition(
        Condition::SizeMismatch,
        "with this part the upload would have more bytes than expected_size_bytes: abort it and begin another",
    )
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn frames(sizes: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
        let mut random = fastrand::Rng::with_seed(1);
        sizes.into_iter().map(|size| std::iter::repeat_with(|| random.u8(..)).take(size).collect()).collect()
    }

    /// Receives a body without a length; how many bytes it had.
    async fn receive(
        body: impl Stream<Item = io::Result<Bytes>> + Send,
        budget: &Budget,
        room: u64,
        part_max: u64,
    ) -> Result<u64> {
        let store = Store::in_memory();
        let (hashing, gone) = (HashPool::new(), CancellationToken::new());
        let receiver = Receiver {
            store: &store,
            budget,
            hashing: &hashing,
            gone: &gone,
            announced: None,
            room,
            part_max,
            min_free: 0,
        };
        let hashes = receiver.receive("part", std::pin::pin!(body), PartHashes::new(None, false)).await?;
        let stored = store.size("part").await.expect("the store");
        assert_eq!(stored.unwrap_or(0), hashes.size(), "an empty part has no object");
        Ok(hashes.size())
    }

    #[tokio::test]
    async fn a_part_has_two_limits() {
        let budget = Budget::new(1 << 20, 0);
        let receive = async |room, part_max| {
            receive(stream::iter(frames(vec![1000; 600]).into_iter().map(Ok)), &budget, room, part_max).await
        };
        assert_eq!(receive(600_000, 600_000).await.expect("it fits"), 600_000);
        for (room, part_max) in [(599_999, 600_000), (599_999, 599_999)] {
            let refused = receive(room, part_max).await.expect_err("more than was promised");
            assert_eq!(refused.code(), Condition::SizeMismatch.slug());
        }
        let refused = receive(600_000, 599_999).await.expect_err("more than a part may have");
        assert!(matches!(refused, Error::Invalid { what: "part", .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_body_is_not_asked_for_more_behind_its_end() {
        // An `unfold` panics when it is.
        for count in [0, 1, 7] {
            let body = stream::unfold(count, |left| async move {
                (left > 0).then(|| (Ok(Bytes::from(vec![0; 100_000])), left - 1))
            });
            let received = receive(body, &Budget::new(1 << 20, 0), u64::MAX, u64::MAX).await;
            assert_eq!(received.expect("a part"), count * 100_000);
        }
    }

    const BUDGET: usize = 8 << 20;

    /// What of a budget is left while a client is served that sends frames of so many bytes, each after a pause: as it is at
    /// each frame.
    async fn left(frames: impl Iterator<Item = (usize, Duration)> + Send) -> Vec<usize> {
        let budget = Budget::new(BUDGET, 0);
        let mut left = Vec::new();
        let body = stream::iter(frames).then(|(size, pause)| async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from(vec![0; size]))
        });
        receive(body.inspect(|_| left.push(budget.left())), &budget, u64::MAX, u64::MAX).await.expect("a part");
        assert_eq!(budget.left(), BUDGET, "all is given back");
        left
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_for_clients_that_make_use_of_it() {
        const BASE: usize = 64 << 10;
        let fast = || std::iter::repeat_n((1 << 20, Duration::ZERO), 64);
        let slow = |pause| std::iter::repeat_n((16 << 10, pause), 512);
        assert_eq!(left(fast()).await.into_iter().min(), Some(BUDGET - (4 * (960 << 10))), "four batches of 960 KiB");
        let held = left(slow(Duration::from_secs(5))).await;
        assert_eq!(held.into_iter().min(), Some(BUDGET - BASE), "four batches of 16 KiB");
        // 320 KiB and 3 KiB a second.
        for pause in [Duration::from_millis(50), Duration::from_secs(5)] {
            let held = left(fast().chain(slow(pause))).await;
            assert_eq!(held.last(), Some(&(BUDGET - BASE)), "who was fast once gives it back");
        }
    }
}
