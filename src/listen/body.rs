//! The bodies of a request and of its response. They hold the memory that is charged for the request.

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

/// The body of a request. Bytes that arrive are charged before more is read. When the head of a message has arrived, the declared
/// length of the message is charged, because the reader allocates that at once.
pub(super) struct Charged {
    incoming: Incoming,
    charge: Arc<Charge>,
    // The longest body, in bytes, and the bytes that have arrived and that were charged so far.
    most: usize,
    arrived: usize,
    charged: usize,
    heads: Heads,
}

/// Bytes of a gRPC message's head: a flag, and the length in four bytes.
pub(super) const HEAD: usize = 5;

/// Follows the heads of gRPC messages, wherever a client splits them.
#[derive(Default)]
struct Heads {
    // The part of the next head that has arrived.
    head: Vec<u8>,
    // Bytes of the current message that have not arrived.
    rest: usize,
}

impl Heads {
    /// Takes bytes that have arrived. Returns how many bytes of the current message are missing.
    fn take(&mut self, mut data: &[u8]) -> usize {
        while !data.is_empty() {
            if self.rest > 0 {
                let (_, after) = data.split_at(self.rest.min(data.len()));
                self.rest -= data.len() - after.len();
                data = after;
                continue;
            }
            let (head, after) = data.split_at((HEAD - self.head.len()).min(data.len()));
            self.head.extend_from_slice(head);
            data = after;
            if let &[_, a, b, c, d] = self.head.as_slice() {
                self.rest = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                self.head.clear();
            }
        }
        self.rest
    }
}

impl Charged {
    /// A body of at most `most` bytes.
    pub(super) fn new(incoming: Incoming, charge: Arc<Charge>, most: usize) -> Charged {
        Charged { incoming, charge, most, arrived: 0, charged: 0, heads: Heads::default() }
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
            self.arrived = self.arrived.saturating_add(data.len());
            if self.arrived > self.most {
                self.charge.refuse(Refused::Long);
                return Poll::Ready(Some(Err(Refused::Long.into())));
            }
            // The reader refuses a message that is too long without allocating it, so it is not charged.
            let ahead = Some(self.heads.take(data)).filter(|rest| *rest <= self.most).unwrap_or(0);
            let more = (self.arrived + ahead).saturating_sub(self.charged);
            self.charged += more;
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

/// The body of a stranger's response. The request stays open and charged until the last part was read, or the stream is reset.
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
        // hyper polls for the next part when the previous one was sent, which the client's flow-control window must allow.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t94_a_head_counts_wherever_it_is_split_and_so_does_the_next_one() {
        let long = [&[0, 0, 16, 0, 0][..], &[7; 10]].concat();
        for at in 0..=HEAD {
            let (mut heads, (first, second)) = (Heads::default(), long.split_at(at));
            heads.take(first);
            assert_eq!(heads.take(second), (1 << 20) - 10, "split at {at}");
        }
        // An empty message followed by the head of another, in one piece and byte by byte.
        let two = [&[0; HEAD][..], &[1, 0, 0, 1, 0]].concat();
        assert_eq!(Heads::default().take(&two), 256);
        let mut heads = Heads::default();
        assert_eq!(two.iter().map(|byte| heads.take(&[*byte])).last(), Some(256));
        assert_eq!(heads.take(&[9; 256]), 0);
    }
}
