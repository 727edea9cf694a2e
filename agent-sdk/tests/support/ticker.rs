//! A service of tonic that answers every call with a stream: a message each ten milliseconds, without end.

use std::convert::Infallible;
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::delegation::Delegation;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::IntervalStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone)]
pub(crate) struct Ticker;

impl NamedService for Ticker {
    const NAME: &'static str = "mayfly.v1.Revocations";
}

type Boxed<T, E> = std::pin::Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
type Ticks = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::WatchCutsResponse, Status>> + Send>>;

impl tower::Service<http::Request<Body>> for Ticker {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Grpc::new(ProstCodec::default()).server_streaming(Tick, request).await) })
    }
}

struct Tick;

impl ServerStreamingService<v1::WatchCutsRequest> for Tick {
    type Response = v1::WatchCutsResponse;
    type ResponseStream = Ticks;
    type Future = Boxed<Response<Ticks>, Status>;

    fn call(&mut self, request: Request<v1::WatchCutsRequest>) -> Self::Future {
        Box::pin(async move {
            Delegation::of(request.extensions())?;
            let every = IntervalStream::new(tokio::time::interval(Duration::from_millis(10)));
            Ok(Response::new(Box::pin(every.map(|_| Ok(v1::WatchCutsResponse::default()))) as Ticks))
        })
    }
}
