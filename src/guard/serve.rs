//! The connections of a guard: HTTP/1 and HTTP/2 on one socket, with a limit on their number and on their life.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use mayfly_agent::listen::{Accepted, accept_each};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::address::Socket;
use super::patient::Patient;
use crate::lenient::Lenient;
use crate::process::sparing::cannot_accept;

/// Most connections open at once: within the usual limit of 1,024 open files.
const CONNECTIONS: usize = 800;
/// Most streams of a connection at once.
const STREAMS: u32 = 256;
/// Most bytes of headers, in HTTP/1 and HTTP/2: a chain in a header is large.
const HEADERS: u32 = 64 * 1024;
/// Time limit for the headers of a request in HTTP/1, and so also for the pause between two requests. It is longer than proxies
/// keep an idle connection.
const BETWEEN: Duration = Duration::from_secs(75);
/// How long open requests may take at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `stop`.
pub async fn serve(socket: Socket, router: Router, stop: watch::Receiver<bool>) {
    let open = TaskTracker::new();
    let mut stopping = stop.clone();
    let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
    // The file of a Unix socket is removed when no more connections are accepted.
    match socket {
        Socket::Unix(listener, _place) => {
            let each = |accepted| each(accepted, &open, &router, &stop, Lenient::new);
            accept_each(&listener, CONNECTIONS, stopped, each).await;
        }
        Socket::Tcp(listener) => {
            let stream = |(stream, _): (TcpStream, _)| {
                let _ = stream.set_nodelay(true);
                stream
            };
            let each = |accepted| each(accepted, &open, &router, &stop, stream);
            accept_each(&listener, CONNECTIONS, stopped, each).await;
        }
    }
    open.close();
    open.wait().await;
}

fn each<A, S>(
    accepted: Accepted<A>,
    open: &TaskTracker,
    router: &Router,
    stop: &watch::Receiver<bool>,
    stream: impl FnOnce(A) -> S,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match accepted {
        Accepted::Connection(accepted, place) => {
            let (stream, router, stop) = (stream(accepted), router.clone(), stop.clone());
            metrics::gauge!("mayfly_guard_connections").increment(1);
            drop(open.spawn(async move {
                converse(stream, router, stop).await;
                metrics::gauge!("mayfly_guard_connections").decrement(1);
                drop(place);
            }));
        }
        Accepted::Full => metrics::counter!("mayfly_guard_refused_total", "reason" => "connections").increment(1),
        Accepted::Failed(error) => cannot_accept(&error),
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, mut stop: watch::Receiver<bool>) {
    let service = hyper_util::service::TowerToHyperService::new(router);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEADERS);
    let header_bytes = usize::try_from(HEADERS).unwrap_or(usize::MAX);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(BETWEEN).max_buf_size(header_bytes);
    let connection = builder.serve_connection(TokioIo::new(Patient::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(DRAIN, connection).await;
}
