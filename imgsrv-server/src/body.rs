//! What happens to a request's body before any handler sees it.

use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use poem::http::{HeaderValue, header};
use poem::{Body, Request, Result};
use tokio::time::timeout;

/// The most that a body may hold, except where it is the bytes of a part.
pub(crate) const JSON_LIMIT: u64 = 1024 * 1024;

/// A client that sends nothing of such a body for so long is gone. The bytes of a part have a limit of their own.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
#[error("the body is too large")]
struct TooLarge;

/// Gives the bytes of a part without a type one, and limits every other body.
pub(crate) async fn prepare(mut request: Request) -> Result<Request> {
    if is_part(request.uri().path()) {
        // `curl -T` sends no type, and the framework refuses a body without one.
        let bytes = HeaderValue::from_static("application/octet-stream");
        request.headers_mut().entry(header::CONTENT_TYPE).or_insert(bytes);
    } else if !request.method().is_safe() {
        let declared = content_length(&request);
        let body = request.take_body();
        request.set_body(limited(body, declared));
    }
    Ok(request)
}

/// The length that the client declared.
pub(crate) fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_part(path: &str) -> bool {
    path.strip_prefix("/v1/uploads/").is_some_and(|rest| rest.contains("/parts/"))
}

/// The same body, failing when it is read past the limit: a request that is refused for another reason never gets
/// that far, so that 401 and 403 come first.
fn limited(body: Body, declared: Option<u64>) -> Body {
    let declared_too_large = declared.filter(|length| *length > JSON_LIMIT).map(|_| Err(io::Error::other(TooLarge)));
    let mut seen = 0;
    let counted = unbroken(body.into_bytes_stream()).map(move |chunk| {
        let chunk = chunk?;
        seen += chunk.len() as u64;
        if seen > JSON_LIMIT { Err(io::Error::other(TooLarge)) } else { Ok(chunk) }
    });
    Body::from_bytes_stream(stream::iter(declared_too_large).chain(counted))
}

/// The same stream, ended by an error when it falls silent.
fn unbroken<T>(chunks: impl Stream<Item = io::Result<T>> + Unpin) -> impl Stream<Item = io::Result<T>> {
    stream::try_unfold(chunks, |mut chunks| async {
        let chunk = timeout(SILENCE, chunks.next()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        Ok(chunk.transpose()?.map(|chunk| (chunk, chunks)))
    })
}

/// Whether reading failed because the body is too large. The framework wraps the error of a body in others.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    let mut inner = error.get_ref();
    while let Some(error) = inner {
        if error.is::<TooLarge>() {
            return true;
        }
        inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    }
    false
}

#[cfg(test)]
mod tests {
    use poem::error::ReadBodyError;

    use super::*;

    async fn read(body: &'static [u8], declared: Option<u64>) -> Result<usize, ReadBodyError> {
        limited(Body::from(body), declared).into_bytes().await.map(|bytes| bytes.len())
    }

    fn refused(outcome: Result<usize, ReadBodyError>) -> bool {
        matches!(outcome, Err(ReadBodyError::Io(error)) if is_too_large(&error))
    }

    #[tokio::test]
    async fn the_limit_is_inclusive() {
        const LIMIT: usize = 1024 * 1024;
        static EXACT: [u8; LIMIT] = [b' '; LIMIT];
        static MORE: [u8; LIMIT + 1] = [b' '; LIMIT + 1];
        assert_eq!(read(&EXACT, None).await.unwrap(), EXACT.len());
        assert!(refused(read(&MORE, None).await));
    }

    #[tokio::test]
    async fn a_declared_length_is_enough_to_refuse() {
        assert!(refused(read(b"", Some(JSON_LIMIT + 1)).await));
        assert_eq!(read(b"{}", Some(2)).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let stuck = stream::iter([Ok::<_, io::Error>(&b"{"[..])]).chain(stream::pending());
        let begun = tokio::time::Instant::now();
        let outcome = limited(Body::from_bytes_stream(stuck), None).into_bytes().await;
        assert!(matches!(outcome, Err(ReadBodyError::Io(error)) if !is_too_large(&error)));
        assert_eq!(begun.elapsed(), SILENCE);
    }

    #[test]
    fn only_the_bytes_of_parts_are_not_limited() {
        assert!(is_part("/v1/uploads/9f0c/parts/1"));
        assert!(!is_part("/v1/uploads/9f0c/complete"));
        assert!(!is_part("/v1/images/parts/1"));
    }
}
