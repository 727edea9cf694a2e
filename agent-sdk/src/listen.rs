//! Accepts connections with verified peers, and closes them when their peers are revoked or expire.
//!
//! ```no_run
//! # use mayfly_agent::{peers::Verifier, tls::CurrentIdentity};
//! # async fn example(own: &CurrentIdentity, verifier: Verifier, routes: tonic::service::Routes)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use mayfly_agent::delegation::DelegationLayer;
//! use mayfly_agent::listen::{Bounds, accept};
//! use mayfly_agent::peers::Authorize;
//! use mayfly_agent::tls::server_config;
//!
//! let config = server_config(own, &verifier, Authorize::agents(verifier.own().clone()))?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8500").await?;
//! let incoming = accept(listener, config, verifier.clone(), Bounds::default());
//! let mut server = tonic::transport::Server::builder().layer(DelegationLayer::new(verifier));
//! server.add_routes(routes).serve_with_incoming(incoming).await?;
//! # Ok(())
//! # }
//! ```
//!
//! tonic puts a [`Peer`] into each request's extensions. Any other server takes the connections from the stream one by one, and
//! puts [`Connection::peer`] there itself.
//!
//! # When a connection ends
//!
//! | event | when the connection is closed |
//! |---|---|
//! | the peer is revoked, or its root leaves the bundle | as soon as that is known, plus [`Bounds::drain`] |
//! | the peer's certificate expires | at that second, plus [`Bounds::drain`] |
//! | no heartbeats arrive from the feed of revocations | after [`Bounds::stale`]; until then each request is refused (T41) |
//! | the peer has presented no certificate | after [`Bounds::stranger`] |
//!
//! To the server the connection then looks broken, and its open streams end with an error on both sides. A peer without a
//! certificate cannot be revoked; the layer verifies its bearer tokens for each request.
//!
//! A server with rules of its own for its peers takes the accept loop alone: [`accept_each`].

mod accept;
mod connection;
mod guard;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

pub use accept::{Accepted, Listener, accept_each};
pub use connection::Connection;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use crate::peers::{Peer, Verifier};

/// Verified connections that wait for the server to take them.
const READY: usize = 64;

/// Limits of a listener. The server that uses the connections limits their streams and headers.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time limit for the TLS handshake (T39).
    pub handshake: Duration,
    /// Most connections open at once, including those in their handshake. Further ones are closed.
    pub connections: usize,
    /// How long a connection stays open while it is unknown whether its peer is revoked.
    pub stale: Duration,
    /// How long a connection without a client certificate stays open; such a connection has no expiry.
    pub stranger: Duration,
    /// How much longer a connection stays open after one of these events, so that its open requests get their reason. New
    /// requests are refused: see [`delegation`](crate::delegation).
    pub drain: Duration,
}

impl Default for Bounds {
    /// 5 seconds, 1024 connections, 30 seconds, 10 minutes, 100 milliseconds.
    fn default() -> Bounds {
        let (seconds, drain) = (Duration::from_secs, Duration::from_millis(100));
        Bounds { handshake: seconds(5), connections: 1024, stale: seconds(30), stranger: seconds(600), drain }
    }
}

/// Counters of a listener since it began, for metrics. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    full: AtomicU64,
    slow: AtomicU64,
    refused: AtomicU64,
    ended: AtomicU64,
}

impl Counts {
    /// Connections whose peer was verified.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once, because [`Bounds::connections`] were open.
    pub fn full(&self) -> u64 {
        self.0.full.load(Ordering::Relaxed)
    }

    /// Connections that did not finish the handshake within [`Bounds::handshake`].
    pub fn slow(&self) -> u64 {
        self.0.slow.load(Ordering::Relaxed)
    }

    /// Failed handshakes: no TLS, or a peer that is not allowed.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Connections closed because the peer was revoked or expired, or because that was unknown for too long.
    pub fn ended(&self) -> u64 {
        self.0.ended.load(Ordering::Relaxed)
    }
}

/// A stream of verified connections for `tonic`'s `serve_with_incoming`. When it is dropped, no more connections are accepted;
/// those that it gave out stay open, and are still closed by the rules above.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
    accepting: AbortHandle,
    counts: Counts,
}

impl Incoming {
    /// The next connection; `None` when the listener has ended.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.ready.recv().await
    }

    /// The counters of this listener.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// Accepts connections with TLS settings from [`tls`](crate::tls), which decide who may be a peer. `verifier` decides how long a
/// connection stays open. This spawns tasks on the current runtime.
pub fn accept(listener: TcpListener, config: ServerConfig, verifier: Verifier, bounds: Bounds) -> Incoming {
    let (give, ready) = mpsc::channel(READY);
    let counts = Counts::default();
    let guard = guard::start(verifier.clone(), bounds, counts.clone());
    let listening = Listening { acceptor: Arc::new(config).into(), verifier, bounds, guard, give, counts: counts.clone() };
    let accepting = tokio::spawn(run(listener, Arc::new(listening))).abort_handle();
    Incoming { ready, accepting, counts }
}

struct Listening {
    acceptor: TlsAcceptor,
    verifier: Verifier,
    bounds: Bounds,
    guard: mpsc::Sender<guard::Watched>,
    give: mpsc::Sender<Connection>,
    counts: Counts,
}

async fn run(listener: TcpListener, listening: Arc<Listening>) {
    let each = |accepted| match accepted {
        Accepted::Connection((stream, address), place) => {
            tokio::spawn(admit(Arc::clone(&listening), stream, address, place));
        }
        Accepted::Full => count(&listening.counts.0.full),
        Accepted::Failed(_) => {}
    };
    accept_each(&listener, listening.bounds.connections, std::future::pending(), each).await;
}

/// Takes one connection through the handshake, verifies its peer, and gives it to the guard and the server.
async fn admit(listening: Arc<Listening>, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
    let counts = &listening.counts.0;
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(listening.bounds.handshake, listening.acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(_)) => return count(&counts.refused),
        Err(_) => return count(&counts.slow),
    };
    let peer = match tls.get_ref().1.peer_certificates() {
        // Verified again, because the TLS settings do not return what they verified, and may belong to another verifier.
        Some(chain) => match Peer::prove(&listening.verifier, chain, address) {
            Ok(peer) => peer,
            Err(_) => return count(&counts.refused),
        },
        None => Peer::stranger(address),
    };
    let (watched, over) = guard::watch(peer.clone());
    // Without a guard, no connection is given out.
    if listening.guard.send(watched).await.is_ok() {
        count(&counts.accepted);
        let _ = listening.give.send(Connection::new(tls, peer, over, place)).await;
    }
}

fn count(one: &AtomicU64) {
    one.fetch_add(1, Ordering::Relaxed);
}
