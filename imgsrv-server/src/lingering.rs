//! The end of a connection whose client may still be sending.
//!
//! A socket that is closed with bytes unread resets the connection, and the reset may overtake an answer that the client
//! has not read: who sends gigabytes that were refused at the first would hear of a broken pipe and not of why. So the
//! server says that nothing more comes from it, and reads on for a while (RFC 9112 §9.6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long the client may go on sending.
const LONGEST: Duration = Duration::from_secs(30);

/// How long it may pause meanwhile.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether there is more of a request than was read, which the client may be sending. Clones share one answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// The body of the request that comes now.
    pub(crate) fn watch(&self, body: poem::Body) -> poem::Body {
        let inner = BoxBody::from(body);
        if inner.is_end_stream() {
            return inner.into();
        }
        self.0.store(true, Ordering::Relaxed);
        BoxBody::new(Watched { inner, unread: self.clone() }).into()
    }

    pub(crate) fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

type BoxBody = http_body_util::combinators::BoxBody<Bytes, io::Error>;

/// A body that tells when all of it was read.
struct Watched {
    inner: BoxBody,
    unread: Unread,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if frame.is_none() || self.inner.is_end_stream() {
            self.unread.0.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    /// A small body that nobody wants has come with its head: that is no reason to end a connection.
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.unread.is_some() && matches!(Pin::new(&mut *self).poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))) {}
    }
}

/// A connection that is closed only after its client has had time to read the last answer.
#[derive(Debug)]
pub(crate) struct Lingering<I> {
    inner: I,
    unread: Unread,
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Ending {
    by: Instant,
    pause: Pin<Box<Sleep>>,
}

impl<I> Lingering<I> {
    pub(crate) fn new(inner: I, unread: Unread) -> Self {
        Self { inner, unread, ending: None }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Lingering<I> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ending =
            self.ending.get_or_insert_with(|| Ending { by: Instant::now() + LONGEST, pause: Box::pin(sleep(PAUSE)) });
        let mut scratch = [0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= ending.by {
                        return Poll::Ready(());
                    }
                    ending.pause.as_mut().reset(ending.by.min(now + PAUSE));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return ending.pause.as_mut().poll(cx),
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lingering<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        if self.unread.is_some() {
            ready!(self.poll_drain(cx));
        }
        Poll::Ready(Ok(()))
    }
}
