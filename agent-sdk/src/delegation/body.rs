//! A response body that ends when the credential of its request is revoked or expires.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::Delegation;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Over = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The body of a response. Its first frame is sent without a check, because the request was just verified. Before each later
/// frame, and while it waits for one, it checks the credential. If that is no longer valid, the body ends: in gRPC with the
/// status, otherwise with an error, so that the receiver does not take a part for the whole.
pub struct DelegationBody<B> {
    inner: B,
    relies_on: Option<Delegation>,
    grpc: bool,
    begun: bool,
    ended: bool,
    over: Option<Over>,
}

impl<B> DelegationBody<B> {
    pub(super) fn new(inner: B, relies_on: Option<Delegation>, grpc: bool) -> DelegationBody<B> {
        DelegationBody { inner, relies_on, grpc, begun: false, ended: false, over: None }
    }

    fn end<D>(&mut self, status: Status) -> Result<Frame<D>, BoxError> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        if self.grpc && status.add_header(&mut trailers).is_ok() {
            return Ok(Frame::trailers(trailers));
        }
        Err(status.into())
    }
}

impl<B> Body for DelegationBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = Pin::new(&mut this.inner).poll_frame(cx).map_err(Into::into);
        let Some(delegation) = &this.relies_on else { return next };
        match next {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                let ended = if this.begun { delegation.ended() } else { None };
                this.begun = true;
                Poll::Ready(Some(ended.map_or(Ok(frame), |status| this.end(status))))
            }
            Poll::Pending => {
                let over = this.over.get_or_insert_with(|| {
                    let delegation = delegation.clone();
                    Box::pin(async move { delegation.over().await })
                });
                let status = ready!(over.as_mut().poll(cx));
                Poll::Ready(Some(this.end(status)))
            }
            rest => rest,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> fmt::Debug for DelegationBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelegationBody").field("ended", &self.ended).finish_non_exhaustive()
    }
}
