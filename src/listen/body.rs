//! The bodies of a request and of its response, which hold what the request costs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};

use super::activity::Open;
use super::budget::Charge;

/// Why the body of a request was not read to its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The bytes were over the budget.
    #[error("too many bytes of requests are waiting")]
    Busy,
    /// The body was longer than any message of its method.
    #[error("the request is too long")]
    Long,
}

/// The body of a request. What arrives is charged before it is read on, and at its head what the message says that it will have:
/// the reader reserves that at once.
pub(super) struct Charged {
    incoming: Incoming,
    charge: Arc<Charge>,
    // Bytes that may still come.
    left: usize,
    // Bytes that were charged and have not arrived yet.
    ahead: usize,
    begun: bool,
}

impl Charged {
    /// A body of at most `most` bytes.
    pub(super) fn new(incoming: Incoming, charge: Arc<Charge>, most: usize) -> Charged {
        Charged { incoming, charge, left: most, ahead: 0, begun: false }
    }
}

impl hyper::body::Body for Charged {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.len()) else {
                self.charge.refuse(Refused::Long);
                return Poll::Ready(Some(Err(Refused::Long.into())));
            };
            let most = self.left;
            self.left = left;
            let mut expected = data.len();
            // The head of a gRPC message: a flag, and the length in four bytes. A client that splits it pays for what arrives.
            if let (false, Some((&[_, a, b, c, d], _))) = (self.begun, data.split_first_chunk::<5>()) {
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                // A message that is too long is refused by its reader.
                expected = length.saturating_add(5).min(most).max(expected);
            }
            self.begun = true;
            let more = expected.saturating_sub(self.ahead);
            self.ahead = (self.ahead + more).saturating_sub(data.len());
            if more > 0 && !self.charge.add(more) {
                return Poll::Ready(Some(Err(Refused::Busy.into())));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a stranger's response: until its last part has been taken, or the stream is reset, the request is open and pays.
pub(super) struct Held<T> {
    body: Body,
    open: Open,
    _held: T,
}

impl<T> Held<T> {
    /// `body` of a request that is `open`, with what else the request holds.
    pub(super) fn new(body: Body, open: Open, held: T) -> Held<T> {
        Held { body, open, _held: held }
    }
}

impl<T: Unpin> hyper::body::Body for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // hyper asks for the next part when the one before has left, as far as the reader's window allows.
        self.open.taken();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && frame.is_data()
        {
            self.open.told();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
