//! Bodies that are asked for more once what they gave before has been sent.
//!
//! The connection would take as much ahead of what its client takes as it reads at once (hyper has one `max_buf_size` for
//! both). For a thousand slow readers that is more memory than all that is counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};

/// How many bytes may wait when more are asked for: small pieces are sent together.
const WAITING: usize = 64 << 10;

/// A body that the connection takes no faster than its client.
pub(crate) struct Paced<B> {
    inner: B,
    unsent: Arc<Unsent>,
}

/// What was given and has not been sent.
#[derive(Debug, Default)]
struct Unsent {
    bytes: AtomicUsize,
    fewer: AtomicWaker,
}

/// Bytes that count as unsent until they are dropped.
#[derive(Debug)]
pub(crate) struct Given {
    bytes: Bytes,
    counted: usize,
    unsent: Arc<Unsent>,
}

impl<B> Paced<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, unsent: Arc::default() }
    }
}

impl Unsent {
    fn poll_few(&self, cx: &Context<'_>) -> Poll<()> {
        let few = || self.bytes.load(Ordering::Acquire) < WAITING;
        if few() {
            return Poll::Ready(());
        }
        self.fewer.register(cx.waker());
        // They may have been sent between the two.
        if few() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Given;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Given>, B::Error>>> {
        std::task::ready!(self.unsent.poll_few(cx));
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    let (counted, unsent) = (bytes.len(), Arc::clone(&self.unsent));
                    unsent.bytes.fetch_add(counted, Ordering::AcqRel);
                    Given { bytes, counted, unsent }
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Buf for Given {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.counted, Ordering::AcqRel);
        self.unsent.fewer.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::*;

    /// A body of pieces of these sizes.
    struct Pieces(VecDeque<usize>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|size| Ok(Frame::data(Bytes::from(vec![0; size])))))
        }
    }

    /// The next piece, if it is to be had now.
    fn next(body: &mut Paced<Pieces>) -> Poll<Option<Given>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).now_or_never();
        frame.map_or(Poll::Pending, |frame| Poll::Ready(frame.map(|frame| frame.unwrap().into_data().unwrap())))
    }

    fn piece(body: &mut Paced<Pieces>) -> Given {
        let Poll::Ready(Some(given)) = next(body) else { panic!("there is no piece now") };
        given
    }

    #[test]
    fn what_waits_to_be_sent_is_little_however_large_the_pieces_are() {
        let mut body = Paced::new(Pieces([1000, WAITING - 1000, 1 << 20, 1].into()));
        let (first, second) = (piece(&mut body), piece(&mut body));
        assert!(next(&mut body).is_pending(), "enough waits");
        drop(first);
        let large = piece(&mut body);
        assert_eq!(large.remaining(), 1 << 20);
        drop(second);
        assert!(next(&mut body).is_pending(), "one large piece is enough");
        drop(large);
        drop(piece(&mut body));
        assert!(matches!(next(&mut body), Poll::Ready(None)), "the end");
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_when_bytes_are_sent() {
        let mut body = Paced::new(Pieces([WAITING, 1].into()));
        let first = piece(&mut body);
        let waiting = tokio::spawn(async move { poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some() });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap());
    }
}
