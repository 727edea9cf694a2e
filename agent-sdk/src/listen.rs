//! Accepting connections whose peers are verified, and ending them when their peers are nobody any more.
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
//! tonic puts a [`Peer`] into each request's extensions. Another server takes the connections from the stream one by one, and
//! puts [`Connection::peer`] there itself.
//!
//! # When a connection ends
//!
//! | what happens | when it ends |
//! |---|---|
//! | a cut hits its peer, its root leaves the bundle | as soon as that is known, and [`Bounds::drain`] later |
//! | the peer's certificate ends | at that second, and [`Bounds::drain`] later |
//! | nothing is heard of revocations | after [`Bounds::stale`]; each request is refused meanwhile (T41) |
//! | it has shown no certificate | after [`Bounds::stranger`] |
//!
//! To the server that reads from it the connection is broken; its open streams end with an error on both sides. The peer of a
//! connection without a certificate has nothing to cut: what its bearer tokens rely on is looked at for each request.

mod connection;
mod guard;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

pub use connection::Connection;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use crate::peers::{Peer, Verifier};

/// Connections that have been verified and wait to be taken.
const READY: usize = 64;
/// After an error of accepting, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Bounds of a listener. What a connection may do, its streams and headers, is bounded where it is served.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For the TLS handshake (T39).
    pub handshake: Duration,
    /// Open at once, handshakes among them. What comes beyond is closed.
    pub connections: usize,
    /// How long a connection stands while it is not known whether its peer is cut.
    pub stale: Duration,
    /// How long one stands whose peer has shown no certificate: it has no end of its own.
    pub stranger: Duration,
    /// How long one still stands after that, for its open requests to be told why. Nothing new begins on it: see
    /// [`delegation`](crate::delegation).
    pub drain: Duration,
}

impl Default for Bounds {
    /// 5 seconds, 1024 connections, 30 seconds, 10 minutes, 100 milliseconds.
    fn default() -> Bounds {
        let (seconds, drain) = (Duration::from_secs, Duration::from_millis(100));
        Bounds { handshake: seconds(5), connections: 1024, stale: seconds(30), stranger: seconds(600), drain }
    }
}

/// What a listener did since it began, for metrics. Clones share it.
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

    /// Closed unseen: [`Bounds::connections`] were open.
    pub fn full(&self) -> u64 {
        self.0.full.load(Ordering::Relaxed)
    }

    /// Not through the handshake within [`Bounds::handshake`].
    pub fn slow(&self) -> u64 {
        self.0.slow.load(Ordering::Relaxed)
    }

    /// Handshakes that failed: no TLS, or a peer that may not be one.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Connections ended because their peer is nobody any more, or has been nobody for too long.
    pub fn ended(&self) -> u64 {
        self.0.ended.load(Ordering::Relaxed)
    }
}

/// Verified connections, as `tonic`'s `serve_with_incoming` takes them. Dropped, it accepts no more; what it gave out stands,
/// and is still ended when its time has come.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
    accepting: AbortHandle,
    counts: Counts,
}

impl Incoming {
    /// The next one; none when it is over.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.ready.recv().await
    }

    /// What happened so far, and goes on to.
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

/// Accepts connections with these settings, which are to be of [`tls`](crate::tls): they say who may be a peer. `verifier`
/// then says for how long it is one. It spawns tasks on the runtime that calls it.
pub fn accept(listener: TcpListener, config: ServerConfig, verifier: Verifier, bounds: Bounds) -> Incoming {
    let (give, ready) = mpsc::channel(READY);
    let counts = Counts::default();
    let guard = guard::start(verifier.clone(), bounds, counts.clone());
    let desk = Desk { acceptor: Arc::new(config).into(), verifier, bounds, guard, give, counts: counts.clone() };
    let accepting = tokio::spawn(run(listener, Arc::new(desk))).abort_handle();
    Incoming { ready, accepting, counts }
}

struct Desk {
    acceptor: TlsAcceptor,
    verifier: Verifier,
    bounds: Bounds,
    guard: mpsc::Sender<guard::Watched>,
    give: mpsc::Sender<Connection>,
    counts: Counts,
}

async fn run(listener: TcpListener, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(desk.bounds.connections));
    loop {
        // T63: an error of one connection, or too many open files, never ends the loop.
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            count(&desk.counts.0.full);
            continue;
        };
        tokio::spawn(admit(Arc::clone(&desk), stream, address, place));
    }
}

/// One connection: handshake, proof, guard; and then it is given out.
async fn admit(desk: Arc<Desk>, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
    let counts = &desk.counts.0;
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(desk.bounds.handshake, desk.acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(_)) => return count(&counts.refused),
        Err(_) => return count(&counts.slow),
    };
    let peer = match tls.get_ref().1.peer_certificates() {
        // Proved once more: the verifier in the settings cannot hand over what it found, and may be another's.
        Some(chain) => match Peer::prove(&desk.verifier, chain, address) {
            Ok(peer) => peer,
            Err(_) => return count(&counts.refused),
        },
        None => Peer::stranger(address),
    };
    let (watched, over) = guard::watch(peer.clone());
    // Where nobody guards, nobody is let in.
    if desk.guard.send(watched).await.is_ok() {
        count(&counts.accepted);
        let _ = desk.give.send(Connection::new(tls, peer, over, place)).await;
    }
}

fn count(one: &AtomicU64) {
    one.fetch_add(1, Ordering::Relaxed);
}
