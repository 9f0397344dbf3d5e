//! Reading a body: in time, up to a size, and within what all bodies together may hold.
//!
//! Whether a body is worth anything is only known once it is there, so strangers could make us hold
//! as many mebibytes as there are connections. The first kibibytes of each body are its own, which
//! the number of connections bounds; what is beyond them comes out of one budget. A body pays as
//! it grows, for what came and not for what it announces: nobody takes the budget with a head
//! alone, and while large bodies have taken all of it, small ones are still read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::{ApiError, Code};
use crate::limits::BODY_OWN_BYTES;

/// Reads bodies, all of them out of one budget; clones share it.
#[derive(Clone, Debug)]
pub struct BodyReader {
    timeout: Duration,
    /// A permit is a byte.
    budget: Arc<Semaphore>,
}

/// What came of a body so far. Its bytes are given back to the budget when it is dropped, which is
/// when the last handle on them is: after the handler, or when the client has gone.
struct Held {
    bytes: Vec<u8>,
    paid: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyReader {
    /// A reader that waits so long for a whole body, and has so many bytes for all together.
    pub fn new(timeout: Duration, budget_bytes: usize) -> Self {
        Self { timeout, budget: Arc::new(Semaphore::new(budget_bytes)) }
    }

    /// Reads a body of at most so many bytes.
    ///
    /// # Errors
    /// `unsupported_encoding`, `payload_too_large` and `overloaded`, where the head tells, before
    /// any of the body is read; the latter two, `body_timed_out` and `invalid_request` on the way.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
    ) -> Result<Bytes, ApiError> {
        // A few kilobytes that unfold into gigabytes are not unfolded.
        if headers.get_all(CONTENT_ENCODING).iter().any(|encoding| encoding != "identity") {
            return Err(ApiError::plain(Code::UnsupportedEncoding));
        }
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        check_size(announced, bytes_max)?;
        if announced.saturating_sub(BODY_OWN_BYTES) > self.budget.available_permits() {
            return Err(ApiError::plain(Code::Overloaded));
        }
        let read = tokio::time::timeout(self.timeout, self.collect(body, bytes_max)).await;
        read.unwrap_or_else(|_| Err(ApiError::plain(Code::BodyTimedOut)))
    }

    async fn collect(&self, mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
        let mut held = Held { bytes: Vec::new(), paid: None };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                ApiError::new(Code::InvalidRequest, "the body could not be read to its end")
            })?;
            // What is not data is a trailer, which nobody asked for.
            let Ok(data) = frame.into_data() else { continue };
            check_size(held.bytes.len() + data.len(), bytes_max)?;
            self.pay(&mut held, data.len())?;
            held.bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from_owner(held))
    }

    /// Takes from the budget what the next bytes need beyond the body's own share.
    fn pay(&self, held: &mut Held, next_bytes: usize) -> Result<(), ApiError> {
        let due = |bytes: usize| bytes.saturating_sub(BODY_OWN_BYTES);
        let bytes = due(held.bytes.len() + next_bytes) - due(held.bytes.len());
        let taken = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.budget.clone().try_acquire_many_owned(bytes).ok())
            .ok_or_else(|| ApiError::plain(Code::Overloaded))?;
        match &mut held.paid {
            Some(paid) => paid.merge(taken),
            paid => *paid = Some(taken),
        }
        Ok(())
    }
}

fn check_size(bytes: usize, bytes_max: usize) -> Result<(), ApiError> {
    if bytes > bytes_max {
        let detail = format!("the body is over {bytes_max} bytes");
        return Err(ApiError::new(Code::PayloadTooLarge, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BODY_TIMEOUT;
    use axum::http::HeaderValue;
    use futures_util::stream::{self, StreamExt};
    use hyper::body::{Frame, SizeHint};
    use std::convert::Infallible;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    const MAX: usize = 4 * BODY_OWN_BYTES;
    /// Enough for one of the largest bodies and half of another.
    const BUDGET: usize = 5 * BODY_OWN_BYTES;

    fn reader() -> BodyReader {
        BodyReader::new(BODY_TIMEOUT, BUDGET)
    }

    async fn read(reader: &BodyReader, body: Body) -> Result<Bytes, Code> {
        let read = reader.read(&HeaderMap::new(), body, MAX).await;
        read.map_err(|error| error.code())
    }

    /// A body that does not announce its length.
    fn chunked(chunks: &[usize]) -> Body {
        let chunks = chunks.iter().map(|bytes| Ok::<_, Infallible>(vec![b'x'; *bytes]));
        Body::from_stream(stream::iter(chunks.collect::<Vec<_>>()))
    }

    /// A body of which so much comes, and then an error or nothing more.
    fn then(bytes: usize, end: Option<io::ErrorKind>) -> Body {
        let end = stream::iter(end.map(|kind| Err(kind.into()))).chain(stream::pending());
        Body::from_stream(stream::iter([Ok::<_, io::Error>(vec![b'x'; bytes])]).chain(end))
    }

    /// A body that announces a length, whatever comes.
    struct Announcing(Body, usize);

    impl HttpBody for Announcing {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Pin::new(&mut self.0).poll_frame(context)
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1 as u64)
        }
    }

    #[tokio::test]
    async fn a_body_comes_through_whole_and_gives_its_bytes_back_when_it_is_dropped() {
        let reader = reader();
        for body in [Body::from(vec![b'x'; MAX]), chunked(&[1, MAX - 2, 1]), chunked(&[MAX])] {
            let bytes = read(&reader, body).await.unwrap();
            assert!(bytes.len() == MAX && bytes.iter().all(|byte| *byte == b'x'));
            let handle = bytes.slice(5..);
            drop(bytes);
            let taken = BUDGET - reader.budget.available_permits();
            assert_eq!(taken, MAX - BODY_OWN_BYTES, "while one handle is left");
            drop(handle);
            assert_eq!(reader.budget.available_permits(), BUDGET);
        }
    }

    #[tokio::test]
    async fn a_large_body_is_refused_while_others_hold_the_budget_and_a_small_one_is_not() {
        let reader = reader();
        let first = read(&reader, Body::from(vec![0; MAX])).await.unwrap();
        for large in [Body::from(vec![0; MAX]), chunked(&[BODY_OWN_BYTES; 4]), chunked(&[MAX])] {
            assert_eq!(read(&reader, large).await, Err(Code::Overloaded));
        }
        let mut small = Vec::new();
        for body in [Body::from(vec![0; BODY_OWN_BYTES]), chunked(&[BODY_OWN_BYTES])] {
            small.push(read(&reader, body).await.unwrap());
        }
        drop(first);
        read(&reader, Body::from(vec![0; MAX])).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_announces_more_than_is_left_is_refused_before_it_is_read() {
        let reader = reader();
        let _first = read(&reader, Body::from(vec![0; MAX])).await.unwrap();
        let announced = |bytes| Body::new(Announcing(then(0, None), bytes));
        assert_eq!(read(&reader, announced(MAX)).await, Err(Code::Overloaded));
        assert_eq!(read(&reader, announced(MAX + 1)).await, Err(Code::PayloadTooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_fails_on_its_way_gives_back_what_it_took() {
        let reader = reader();
        for (body, code) in [
            (then(MAX, None), Code::BodyTimedOut),
            (then(MAX, Some(io::ErrorKind::ConnectionReset)), Code::InvalidRequest),
            (chunked(&[MAX, 1]), Code::PayloadTooLarge),
        ] {
            assert_eq!(read(&reader, body).await, Err(code));
            assert_eq!(reader.budget.available_permits(), BUDGET, "{code:?}");
        }
        // The client goes away: its request is dropped where it waits.
        let waiting = BODY_TIMEOUT / 2;
        let gone = tokio::time::timeout(waiting, read(&reader, then(MAX, None)));
        assert!(gone.await.is_err());
        assert_eq!(reader.budget.available_permits(), BUDGET);
    }

    #[tokio::test]
    async fn an_announced_length_takes_nothing_until_bytes_come() {
        let reader = reader();
        let body = Body::new(Announcing(then(BODY_OWN_BYTES, None), MAX));
        let reading = read(&reader, body);
        tokio::pin!(reading);
        assert!(futures_util::poll!(&mut reading).is_pending());
        assert_eq!(reader.budget.available_permits(), BUDGET);
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused() {
        for (encoding, fine) in
            [("identity", true), ("gzip", false), ("br", false), ("identity, gzip", false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            let read = reader().read(&headers, Body::from("{}"), MAX).await;
            match read {
                Ok(_) => assert!(fine, "{encoding}"),
                Err(error) => {
                    assert_eq!((error.code(), fine), (Code::UnsupportedEncoding, false));
                }
            }
        }
    }
}
