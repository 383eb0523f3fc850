//! A part on its way: read from the file while it is sent, with its digest in front.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest, Sha256};
use tokio::io::Take;
use tokio::task::spawn_blocking;
use tokio_util::io::ReaderStream;

use crate::layout::Piece;
use crate::local::hash_all;
use crate::report::Task;

const CHUNK: usize = 256 << 10;

/// The value of `Content-Digest` (RFC 9530) for a piece of a file.
pub(crate) async fn content_digest(path: &Path, piece: Piece) -> io::Result<String> {
    let mut file = File::open(path)?;
    let digest = spawn_blocking(move || {
        file.seek(SeekFrom::Start(piece.offset))?;
        let mut rest = file.take(piece.len);
        let hasher = hash_all(&mut rest, Sha256::new(), |_| {})?;
        if rest.limit() > 0 { Err(io::Error::other("became shorter while it was sent")) } else { Ok(hasher.finalize()) }
    });
    let digest = digest.await.map_err(io::Error::other)??;
    Ok(format!("sha-256=:{}:", BASE64_STANDARD.encode(digest)))
}

/// A piece of a file as a body whose length is known: a proxy may not take one of unknown length.
pub(crate) struct PartBody {
    bytes: ReaderStream<Take<tokio::fs::File>>,
    left: u64,
    task: Task,
    sent: Arc<AtomicU64>,
}

impl PartBody {
    /// What leaves is added to `sent`.
    pub(crate) fn new(file: File, piece: Piece, task: Task, sent: Arc<AtomicU64>) -> io::Result<Self> {
        (&file).seek(SeekFrom::Start(piece.offset))?;
        let piece_of_file = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), piece.len);
        Ok(Self { bytes: ReaderStream::with_capacity(piece_of_file, CHUNK), left: piece.len, task, sent })
    }
}

impl Body for PartBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = Pin::new(&mut self.bytes).poll_next(context);
        chunk.map_ok(|chunk| {
            let count = chunk.len() as u64;
            self.left = self.left.saturating_sub(count);
            self.sent.fetch_add(count, Ordering::Relaxed);
            self.task.advance(count);
            Frame::data(chunk)
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
