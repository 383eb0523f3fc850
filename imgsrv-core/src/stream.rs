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
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Result;
use crate::hashing::{Hashes, PartHashes};
use crate::memory::{Budget, Grant, LEAST};
use crate::model::Etag;
use crate::store::{Object, Store};

/// A piece of an object: bytes `start..end` of it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub key: String,
    pub start: u64,
    pub end: u64,
    /// What its bytes are checked by; that of an object is of use for the whole of it only.
    pub etag: Option<Etag>,
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
    /// The largest chunk. With the one that is read ahead a transfer holds twice as much.
    chunk_max: usize,
    /// A chunk that takes a reader longer than this is followed by the smallest, and nothing is read ahead.
    keeps_up: Duration,
}

const LOCAL: Pace = Pace { chunk_max: 3 << 19, keeps_up: Duration::from_millis(20) };

/// Each chunk costs a round trip, which even a reader of some MB/s should not wait for.
const REMOTE: Pace = Pace { chunk_max: 8 << 20, keeps_up: Duration::from_millis(200) };

/// Reads pieces one chunk ahead of whoever takes them.
pub(crate) struct Reading {
    store: Arc<Store>,
    budget: Budget,
    pieces: VecDeque<Piece>,
    pace: Pace,
    chunk: usize,
    /// What the front piece is of.
    object: Option<Arc<Object>>,
    ahead: Option<Ahead>,
    /// Of the piece that is being read, as far as it has been given.
    hashes: PartHashes,
    given_at: Option<Instant>,
}

struct Ahead {
    piece: Piece,
    /// Whether the piece ends with it.
    ends: bool,
    read: JoinHandle<Result<Option<Buffer>>>,
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
    pub(crate) fn new(store: Arc<Store>, budget: Budget, pieces: VecDeque<Piece>) -> Self {
        let pace = if store.is_remote() { REMOTE } else { LOCAL };
        Self {
            store,
            budget,
            pieces,
            pace,
            chunk: LEAST,
            object: None,
            ahead: None,
            hashes: no_hashes(),
            given_at: None,
        }
    }

    /// Waits for the next chunk and begins to read the one after it.
    pub(crate) async fn next(&mut self) -> Result<Next> {
        let keeps_up = self.given_at.is_none_or(|given_at| given_at.elapsed() < self.pace.keeps_up);
        if self.given_at.is_some() {
            self.chunk = if keeps_up { (self.chunk * 2).min(self.pace.chunk_max) } else { LEAST };
        }
        let ahead = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None if self.pieces.is_empty() => None,
            None => {
                let grant = self.budget.up_to(self.chunk).await;
                self.begin(grant)
            }
        };
        let Some(Ahead { piece, ends, read, grant }) = ahead else { return Ok(Next::End) };
        let buffer = read.await.map_err(|err| crate::Error::internal("reading an object", err))??;
        let Some(buffer) = buffer else { return Ok(Next::Broken(Flaw::Missing, piece)) };
        if !self.is_as_it_was(&piece, &buffer, ends) {
            return Ok(Next::Broken(Flaw::Changed, piece));
        }
        // For a reader that is slow anyway nothing is read ahead: memory is for those that are not.
        self.ahead = if keeps_up { self.budget.more(self.chunk).and_then(|grant| self.begin(grant)) } else { None };
        self.given_at = Some(Instant::now());
        Ok(Next::Chunk(buffer, grant))
    }

    /// Whether the piece may still be what it was. Its last chunk tells, so that one is not given before it is known.
    fn is_as_it_was(&mut self, piece: &Piece, chunk: &Buffer, ends: bool) -> bool {
        let Some(etag) = &piece.etag else { return true };
        for bytes in chunk.clone() {
            self.hashes.update(&bytes);
        }
        !ends || std::mem::replace(&mut self.hashes, no_hashes()).etag() == *etag
    }

    fn begin(&mut self, grant: Grant) -> Option<Ahead> {
        let front = self.pieces.front_mut()?;
        let end = front.end.min(front.start + grant.bytes() as u64);
        let piece = Piece { start: front.start, end, ..front.clone() };
        front.start = end;
        let ends = front.start == front.end;
        let object = self.object.take().unwrap_or_else(|| Arc::new(Object::new(piece.key.clone())));
        let read = {
            let (store, object) = (Arc::clone(&self.store), Arc::clone(&object));
            tokio::spawn(async move { store.read(&object, piece.start, piece.end).await })
        };
        if ends {
            self.pieces.pop_front();
        } else {
            self.object = Some(object);
        }
        Some(Ahead { piece, ends, read, grant })
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

fn no_hashes() -> PartHashes {
    PartHashes::new(None, false)
}
