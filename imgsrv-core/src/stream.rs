//! A blob's bytes on their way to a reader.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use opendal::Buffer;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::checksums::{BLOCK, Checksums};
use crate::memory::{Budget, Grant, LEAST};
use crate::store::Object;
use crate::{Engine, Error, Result};

/// A piece of an object: bytes `start..end` of it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub key: String,
    pub start: u64,
    pub end: u64,
    /// How many bytes the whole object has.
    pub of: u64,
}

/// What is wrong with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The store does not have (all of) it.
    Missing,
    /// The store has other bytes.
    Changed,
}

/// Bytes of a blob.
pub struct BlobStream {
    /// The size of the whole blob, bytes.
    pub size: u64,
    /// Which of its bytes these are.
    pub range: Range<u64>,
    /// The bytes. An error means that they are not to be had: what came before it is not the whole.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream").field("size", &self.size).field("range", &self.range).finish_non_exhaustive()
    }
}

/// How a store is read.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// The largest chunk: bytes.
    chunk_max: usize,
    /// How many chunks are read ahead, behind the one that a transfer holds or waits for.
    ahead: usize,
    /// Behind a chunk that takes a reader longer than this nothing more is read ahead, and then come the smallest.
    keeps_up: Duration,
}

/// A transfer can hold three chunks, one that is sent and two that are read, in the 4 MiB that it may have.
const LOCAL: Pace = Pace { chunk_max: 5 << 18, ahead: 1, keeps_up: Duration::from_millis(20) };

/// A worker hashes as fast as it is given bytes, and there are few of them: larger chunks cost less each byte.
const LOCAL_WORKER: Pace = Pace { chunk_max: 4 << 20, keeps_up: Duration::from_millis(200), ..LOCAL };

/// Each chunk costs a round trip, which even a reader of some MB/s should not wait for, and a store gives several at once
/// faster than one after the other. They are multiples of the 1 MiB in which Garage keeps objects.
const REMOTE: Pace = Pace { chunk_max: 5 << 20, ahead: 4, keeps_up: Duration::from_millis(200) };

/// What a reader is given of a chunk as soon as so much of it has come: bytes. That is few enough to be in the processor's
/// caches when they are checked and sent. A worker is given whole chunks.
const AT_ONCE: usize = 256 << 10;

/// How long a transfer that has begun waits for the database, and how often it asks.
const PATIENCE: Duration = Duration::from_mins(1);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Somebody to whom other bytes than those that were stored must not be given.
    Reader,
    /// A worker that hashes them, to find out what they are.
    Worker,
}

/// Who reads, and whether anything was given yet.
#[derive(Clone, Copy, Debug)]
struct How {
    by: By,
    has_begun: bool,
}

/// Reads pieces ahead of whoever takes them.
pub(crate) struct Reading {
    engine: Engine,
    budget: Budget,
    pieces: VecDeque<Piece>,
    by: By,
    pace: Pace,
    chunk: usize,
    /// What the first of `pieces` is of.
    object: Option<Arc<Object>>,
    /// What is given.
    front: Option<Chunk>,
    ahead: VecDeque<Chunk>,
    given_at: Option<Instant>,
    /// How long the reader took for what it was given of the front chunk.
    taken: Duration,
}

/// A piece, or as much of it as was granted, on its way from the store.
struct Chunk {
    piece: Piece,
    arriving: mpsc::UnboundedReceiver<Result<Result<Buffer, Flaw>>>,
    /// How much of it was not given yet: bytes.
    left: usize,
    /// For what was not given yet.
    grant: Grant,
    _task: AbortOnDropHandle<()>,
}

/// What comes next.
pub(crate) enum Next {
    Bytes(Buffer, Grant),
    Broken(Flaw, Piece),
    End,
}

impl Reading {
    /// Begins to read `pieces`; for those that are empty the store is not asked.
    pub(crate) fn new(engine: &Engine, pieces: VecDeque<Piece>, by: By) -> Self {
        let is_remote = engine.store().is_remote();
        let (budget, pace) = match by {
            By::Reader => (&engine.memory().outbound, if is_remote { REMOTE } else { LOCAL }),
            By::Worker => (&engine.memory().inbound, if is_remote { REMOTE } else { LOCAL_WORKER }),
        };
        Self {
            engine: engine.clone(),
            budget: budget.clone(),
            pieces: pieces.into_iter().filter(|piece| piece.start < piece.end).collect(),
            by,
            pace,
            chunk: LEAST,
            object: None,
            front: None,
            ahead: VecDeque::new(),
            given_at: None,
            taken: Duration::ZERO,
        }
    }

    /// Waits for what comes next, while what follows is read.
    pub(crate) async fn next(&mut self) -> Result<Next> {
        self.taken += self.given_at.map_or(Duration::ZERO, |given_at| given_at.elapsed());
        let front = match self.front.take() {
            Some(front) => Some(front),
            None => self.next_chunk().await,
        };
        let Some(mut front) = front else { return Ok(Next::End) };
        let arrived = front.arriving.recv().await.ok_or_else(|| Error::bug("what reads an object ended early"))?;
        let buffer = match arrived? {
            Ok(buffer) => buffer,
            Err(flaw) => return Ok(Next::Broken(flaw, front.piece)),
        };
        self.given_at = Some(Instant::now());
        front.left -= buffer.len();
        if front.left == 0 {
            return Ok(Next::Bytes(buffer, front.grant));
        }
        let grant = front.grant.split(buffer.len());
        self.front = Some(front);
        Ok(Next::Bytes(buffer, grant))
    }

    /// The chunk behind the one that was given, and begins to read those behind it.
    async fn next_chunk(&mut self) -> Option<Chunk> {
        let keeps_up = std::mem::take(&mut self.taken) < self.pace.keeps_up;
        let has_begun = self.given_at.is_some();
        if has_begun {
            self.chunk = if keeps_up { (self.chunk * 2).min(self.pace.chunk_max) } else { LEAST };
        }
        if self.ahead.is_empty() && !self.pieces.is_empty() {
            let grant = self.budget.up_to(self.wanted()).await;
            self.begin(grant);
        }
        let front = self.ahead.pop_front()?;
        // For a reader that is slow anyway nothing is read ahead: memory is for those that are not. Nor is it before the
        // first chunk, which tells whether there is anything to read.
        let ahead = if keeps_up && has_begun { self.pace.ahead } else { 0 };
        while self.ahead.len() < ahead
            && !self.pieces.is_empty()
            && let Some(grant) = self.budget.ahead(self.wanted())
        {
            self.begin(grant);
        }
        Some(front)
    }

    /// How much the next chunk is to hold: bytes.
    fn wanted(&self) -> usize {
        self.pieces.front().map_or(0, |front| length(start_of_block(front.start), front.end, self.chunk))
    }

    fn begin(&mut self, grant: Grant) {
        let Some(front) = self.pieces.front_mut() else { return };
        let end = front.end.min(start_of_block(front.start) + grant.bytes() as u64);
        let piece = Piece { end, ..front.clone() };
        front.start = end;
        let object = self.object.take().unwrap_or_else(|| Arc::new(Object::new(piece.key.clone())));
        if front.start == front.end {
            self.pieces.pop_front();
        } else {
            self.object = Some(Arc::clone(&object));
        }
        let left = usize::try_from(piece.end - piece.start).expect("no more than was granted");
        let how = How { by: self.by, has_begun: self.given_at.is_some() };
        let (arrived, arriving) = mpsc::unbounded_channel();
        let (engine, wanted) = (self.engine.clone(), piece.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            // Nothing receives when nobody waits any more.
            let give = |buffer| drop(arrived.send(Ok(Ok(buffer))));
            if let Some(failed) = engine.read_piece(&object, &wanted, how, give).await.transpose() {
                drop(arrived.send(failed.map(Err)));
            }
        }));
        self.ahead.push_back(Chunk { piece, arriving, left, grant, _task: task });
    }

    /// The rest as a stream, after a first chunk that was read to see whether there is anything to give.
    ///
    /// `broken` is told of a piece that is not what it was; the stream then ends with an error.
    pub(crate) fn into_stream(
        self,
        first: (Buffer, Grant),
        broken: impl Fn(Flaw, Piece) + Send + 'static,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let state = (self, Some(first), VecDeque::<Bytes>::new(), None::<Grant>, broken);
        stream::try_unfold(state, |(mut reading, mut first, mut ready, mut held, broken)| async move {
            loop {
                if let Some(bytes) = ready.pop_front() {
                    return Ok(Some((bytes, (reading, first, ready, held, broken))));
                }
                // What the reader has taken needs no memory any more; who waits for some must hold none.
                drop(held.take());
                let next = match first.take() {
                    Some((buffer, grant)) => Next::Bytes(buffer, grant),
                    None => reading.next().await.map_err(|err| {
                        tracing::error!(error = err.chain(), "a download broke off");
                        io::Error::other("the store is unavailable")
                    })?,
                };
                match next {
                    Next::Bytes(buffer, grant) => {
                        held = Some(grant);
                        ready.extend(buffer);
                    }
                    Next::End => return Ok(None),
                    Next::Broken(flaw, piece) => {
                        broken(flaw, piece);
                        return Err(io::Error::other("an object of the blob is not what it was"));
                    }
                }
            }
        })
        .boxed()
    }
}

/// The bytes of the blocks that a piece touches.
fn blocks(piece: &Piece) -> Range<u64> {
    start_of_block(piece.start)..piece.end.next_multiple_of(BLOCK as u64).min(piece.of)
}

/// How long a chunk is that begins at `start` of what there is up to `end`. If more follow, it ends at a multiple of the
/// largest that it may be: stores keep an object in blocks, and read whole ones.
fn length(start: u64, end: u64, most: usize) -> usize {
    let (left, most) = (end - start, most as u64);
    let length = if left > most { most - start % most } else { left };
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// The whole blocks of what waits, if that is at least so much or all that is `left`.
fn take_blocks(waiting: &mut Vec<Bytes>, left: u64, least: usize) -> Option<Buffer> {
    let size: usize = waiting.iter().map(Bytes::len).sum();
    let is_rest = size as u64 == left;
    if size < least && !is_rest {
        return None;
    }
    let blocks = if is_rest { size } else { size - size % BLOCK };
    let all: Buffer = std::mem::take(waiting).into_iter().collect();
    waiting.extend(all.slice(blocks..));
    Some(all.slice(..blocks))
}

fn start_of_block(at: u64) -> u64 {
    at - at % BLOCK as u64
}

impl Engine {
    /// Gives the bytes of a piece as they come, or says what is wrong with the rest of them.
    async fn read_piece(
        &self,
        object: &Object,
        piece: &Piece,
        how: How,
        mut give: impl FnMut(Buffer),
    ) -> Result<Option<Flaw>> {
        let Range { start: mut at, end } = blocks(piece);
        let mut read = std::pin::pin!(self.store().read(object, at..end));
        let checksums = async {
            Ok(match how.by {
                By::Worker => Some(None),
                By::Reader => self.checksums_in_time(object.key(), how.has_begun).await?.map(Some),
            })
        };
        let least = if how.by == By::Worker { usize::MAX } else { AT_ONCE };
        let (mut arrived, checksums) = tokio::try_join!(read.try_next(), checksums)?;
        // A deleted object leaves no row.
        let Some(checksums) = checksums else { return Ok(Some(Flaw::Missing)) };
        let mut waiting = Vec::<Bytes>::new();
        while let Some(buffer) = arrived {
            let Some(buffer) = buffer else { return Ok(Some(Flaw::Missing)) };
            waiting.extend(buffer);
            if let Some(blocks) = take_blocks(&mut waiting, end - at, least) {
                if let Some(checksums) = &checksums
                    && !self.are_right(object, checksums, at, &blocks).await?
                {
                    return Ok(Some(Flaw::Changed));
                }
                let within =
                    |to: u64| usize::try_from(to.saturating_sub(at)).map_or(blocks.len(), |to| to.min(blocks.len()));
                give(blocks.slice(within(piece.start)..within(piece.end)));
                at += blocks.len() as u64;
            }
            arrived = read.try_next().await?;
        }
        Ok(None)
    }

    async fn are_right(&self, object: &Object, checksums: &Checksums, start: u64, blocks: &Buffer) -> Result<bool> {
        if checksums.agree(start, blocks.clone()) {
            return Ok(true);
        }
        let key = object.key();
        if self.checksums_again(key).await?.is_some_and(|again| again.agree(start, blocks.clone())) {
            tracing::error!(key, "the remembered checksums of an object were spoilt, or were made anew since");
            return Ok(true);
        }
        tracing::error!(key, start, size = blocks.len(), "bytes of an object differ from its checksums");
        Ok(false)
    }

    /// The checksums of an object. A transfer that has begun waits for a database that is away for a moment.
    async fn checksums_in_time(&self, key: &str, has_begun: bool) -> Result<Option<Checksums>> {
        let begun = Instant::now();
        loop {
            match self.checksums(key).await {
                Err(err) if has_begun && err.retryable() && begun.elapsed() < PATIENCE => sleep(ASK_AGAIN).await,
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_taken_of_what_has_come() {
        let bytes: Bytes = (0..=250).cycle().take(5 * AT_ONCE + 1000).collect();
        for frame in [1000, BLOCK, BLOCK + 1, AT_ONCE, 3 * AT_ONCE + 7, bytes.len()] {
            let (mut waiting, mut taken) = (Vec::new(), Vec::new());
            for frame in bytes.chunks(frame) {
                waiting.push(bytes.slice_ref(frame));
                let Some(blocks) = take_blocks(&mut waiting, (bytes.len() - taken.len()) as u64, AT_ONCE) else {
                    continue;
                };
                taken.extend(blocks.to_bytes());
                let is_end = taken.len() == bytes.len();
                assert!(is_end || (taken.len() % BLOCK == 0 && blocks.len() > AT_ONCE - BLOCK), "{}", blocks.len());
            }
            assert!(waiting.is_empty() && taken == bytes, "frames of {frame}");
        }
    }

    #[test]
    fn a_chunk_ends_where_all_of_its_size_do() {
        const MIB: usize = 1 << 20;
        let mib = |count: usize| (count * MIB) as u64;
        assert_eq!(length(0, mib(100), 6 * MIB), 6 * MIB);
        assert_eq!(length(mib(4), mib(100), 6 * MIB), 2 * MIB);
        assert_eq!(length(mib(6) - BLOCK as u64, mib(100), 6 * MIB), BLOCK);
        assert_eq!(length(mib(4), mib(10), 6 * MIB), 6 * MIB, "the last one is as long as it may be");
        assert_eq!(length(mib(4), mib(10) + 1, 6 * MIB), 2 * MIB);
        assert_eq!(length(mib(99), mib(99) + 5, 6 * MIB), 5);
    }
}
