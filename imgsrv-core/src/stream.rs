//! A blob's bytes on their way to a reader.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use opendal::Buffer;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::checksums::{BLOCK, Checksums, in_block};
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
    /// What the front piece is of.
    object: Option<Arc<Object>>,
    ahead: VecDeque<Ahead>,
    given_at: Option<Instant>,
}

struct Ahead {
    piece: Piece,
    read: AbortOnDropHandle<Result<Result<Buffer, Flaw>>>,
    grant: Grant,
}

/// What reading the next chunk came to.
pub(crate) enum Next {
    Chunk(Buffer, Grant),
    Broken(Flaw, Piece),
    End,
}

impl Reading {
    /// Begins to read `pieces`.
    pub(crate) fn new(engine: &Engine, pieces: VecDeque<Piece>, by: By) -> Self {
        let is_remote = engine.store().is_remote();
        let (budget, pace) = match by {
            By::Reader => (&engine.memory().outbound, if is_remote { REMOTE } else { LOCAL }),
            By::Worker => (&engine.memory().inbound, if is_remote { REMOTE } else { LOCAL_WORKER }),
        };
        Self {
            engine: engine.clone(),
            budget: budget.clone(),
            pieces,
            by,
            pace,
            chunk: LEAST,
            object: None,
            ahead: VecDeque::new(),
            given_at: None,
        }
    }

    /// Begins to read what follows the next chunk, and waits for that.
    pub(crate) async fn next(&mut self) -> Result<Next> {
        let keeps_up = self.given_at.is_none_or(|given_at| given_at.elapsed() < self.pace.keeps_up);
        if self.given_at.is_some() {
            self.chunk = if keeps_up { (self.chunk * 2).min(self.pace.chunk_max) } else { LEAST };
        }
        if self.ahead.is_empty() && !self.pieces.is_empty() {
            let grant = self.budget.up_to(self.wanted()).await;
            self.begin(grant);
        }
        let Some(Ahead { piece, read, grant }) = self.ahead.pop_front() else { return Ok(Next::End) };
        // For a reader that is slow anyway nothing is read ahead: memory is for those that are not. Nor is it before the
        // first chunk, which tells whether there is anything to read.
        let ahead = if keeps_up && self.given_at.is_some() { self.pace.ahead } else { 0 };
        while self.ahead.len() < ahead
            && !self.pieces.is_empty()
            && let Some(grant) = self.budget.ahead(self.wanted())
        {
            self.begin(grant);
        }
        let buffer = match read.await.map_err(|err| Error::internal("reading an object", err))?? {
            Ok(buffer) => buffer,
            Err(flaw) => return Ok(Next::Broken(flaw, piece)),
        };
        self.given_at = Some(Instant::now());
        Ok(Next::Chunk(buffer, grant))
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
        let (engine, blocks) = (self.engine.clone(), blocks(&piece));
        let how = How { by: self.by, has_begun: self.given_at.is_some() };
        let (before, behind) = (in_block(piece.start), in_block(blocks.end - piece.end));
        let read = tokio::spawn(async move {
            let read = engine.read_blocks(&object, blocks, how).await?;
            Ok(read.map(|buffer| buffer.slice(before..buffer.len() - behind)))
        });
        self.ahead.push_back(Ahead { piece, read: AbortOnDropHandle::new(read), grant });
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
                    Some((buffer, grant)) => Next::Chunk(buffer, grant),
                    None => reading.next().await.map_err(|err| {
                        tracing::error!(error = err.chain(), "a download broke off");
                        io::Error::other("the store is unavailable")
                    })?,
                };
                match next {
                    Next::Chunk(buffer, grant) => {
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

fn start_of_block(at: u64) -> u64 {
    at - at % BLOCK as u64
}

impl Engine {
    async fn read_blocks(&self, object: &Object, at: Range<u64>, how: How) -> Result<Result<Buffer, Flaw>> {
        let read = self.store().read(object, at.start, at.end);
        if how.by == By::Worker {
            return Ok(read.await?.ok_or(Flaw::Missing));
        }
        let key = object.key();
        let (read, checksums) = tokio::try_join!(read, self.checksums_in_time(key, how.has_begun))?;
        // A deleted object leaves no row.
        let (Some(buffer), Some(checksums)) = (read, checksums) else { return Ok(Err(Flaw::Missing)) };
        if checksums.agree(at.start, buffer.clone()) {
            return Ok(Ok(buffer));
        }
        if self.checksums_again(key).await?.is_some_and(|again| again.agree(at.start, buffer.clone())) {
            tracing::error!(key, "the remembered checksums of an object were spoilt, or were made anew since");
            return Ok(Ok(buffer));
        }
        tracing::error!(key, start = at.start, end = at.end, "bytes of an object differ from its checksums");
        Ok(Err(Flaw::Changed))
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
