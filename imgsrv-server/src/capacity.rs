//! How many transfers are under way at once.
//!
//! Their buffers share a budget of memory, for which transfers wait. What each takes beside it (a connection, a task, an
//! open file) is bounded here, where nobody waits: a client that is refused at once may go to another node.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use poem::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// The most transfers that a server has under way at once. Those beyond are refused with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Parts that are received.
    pub uploads: usize,
    /// Bodies of blobs, and of what projections show, that are sent.
    pub downloads: usize,
}

impl Default for Limits {
    /// A thousand each: more than one machine moves at a useful pace, as many as have their least share of the default
    /// memory, and few enough that what they take beside it stays below 100 MiB and 4000 descriptors.
    fn default() -> Self {
        Self { uploads: 1000, downloads: 1000 }
    }
}

/// The places for transfers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    uploads: Places,
    downloads: Places,
}

#[derive(Clone, Debug)]
struct Places {
    free: Arc<Semaphore>,
    all: usize,
}

impl Capacity {
    pub(crate) fn new(limits: Limits) -> Self {
        let places = |all: usize| Places { free: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))), all };
        Self { uploads: places(limits.uploads), downloads: places(limits.downloads) }
    }

    /// A place for the body of this request.
    ///
    /// # Errors
    /// 503 when there is none.
    pub(crate) fn upload(request: &Request) -> Result<Place, Problem> {
        Self::of(request)?.uploads.take().map_err(|all| full(all, "uploads"))
    }

    /// A place for the body of the answer.
    ///
    /// # Errors
    /// 503 when there is none.
    pub(crate) fn download(request: &Request) -> Result<Place, Problem> {
        Self::of(request)?.downloads.take().map_err(|all| full(all, "downloads"))
    }

    fn of(request: &Request) -> Result<&Self, Problem> {
        request.data::<Self>().ok_or_else(|| {
            tracing::error!("the server was put together without a capacity");
            Problem::internal()
        })
    }
}

impl Places {
    /// A place, or how many there are of which none is free.
    fn take(&self) -> Result<Place, usize> {
        Arc::clone(&self.free).try_acquire_owned().map(Place).map_err(|_| self.all)
    }
}

fn full(all: usize, transfers: &str) -> Problem {
    Problem::unavailable(format!("this server has {all} {transfers} under way, which is as many as it takes at once"))
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place(#[expect(dead_code, reason = "what counts is when it is dropped")] OwnedSemaphorePermit);

impl Place {
    /// The same stream, which keeps the place until it is at its end or dropped.
    pub(crate) fn kept_by<S: Stream>(self, stream: S) -> impl Stream<Item = S::Item> + use<S> {
        stream.inspect(move |_| {
            let _kept = &self;
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use poem::http::{StatusCode, header};

    use super::*;

    fn request(uploads: usize, downloads: usize) -> Request {
        let mut request = Request::default();
        request.set_data(Capacity::new(Limits { uploads, downloads }));
        request
    }

    #[test]
    fn whoever_comes_when_all_places_are_taken_is_refused_at_once() {
        let request = request(2, 1);
        let first = Capacity::upload(&request).unwrap();
        let _second = Capacity::upload(&request).unwrap();
        let refused = Capacity::upload(&request).unwrap_err();
        assert!(refused.to_string().contains("2 uploads"), "{refused}");
        let response = refused.respond(None);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
        let _download = Capacity::download(&request).expect("a place of its own");
        drop(first);
        Capacity::upload(&request).map(drop).expect("a place is free again");
    }

    #[test]
    fn a_place_is_kept_until_the_body_is_at_its_end_or_dropped() {
        let request = request(0, 1);
        let mut body = Box::pin(Capacity::download(&request).unwrap().kept_by(stream::iter([1, 2])));
        assert_eq!(body.next().now_or_never(), Some(Some(1)));
        Capacity::download(&request).expect_err("it is under way");
        drop(body);
        let body = Capacity::download(&request).unwrap().kept_by(stream::iter([1, 2]));
        assert_eq!(body.collect::<Vec<_>>().now_or_never(), Some(vec![1, 2]));
        Capacity::download(&request).map(drop).expect("it has been sent");
    }
}
