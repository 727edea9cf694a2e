//! Accepts connections within limits: on their number, the time of a handshake and of a request, and the time that a shutdown
//! waits.

mod activity;
mod apart;
mod body;
mod budget;
mod connection;
mod frames;
mod gate;
mod life;
mod places;
mod settings;
mod tls;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mayfly_agent::listen::{Accepted, accept_each};
use rustls::ServerConfig;
use tokio::io::BufWriter;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::acts::Issuer;
use crate::clock::Clock;
use crate::doors::counted::Counted;
use crate::doors::peer::{Guard, Peer, network};
use crate::lenient::Lenient;
use crate::process::sparing::cannot_accept;
use activity::Times;
pub use apart::Apart;
use budget::Payer;
use connection::{Incoming, Listening};
use gate::Gate;
use life::Closing;
pub use places::Shares;
use places::{MONITORS, OPERATORS, Places};
pub use tls::{tls, tls_with};
use turns::Turns;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest TLS handshake (T39).
    pub handshake: Duration,
    /// Most open connections, without those in their handshake. Strangers have a quarter of them together.
    pub connections: usize,
    /// Most open connections of strangers from one address; by default half of those of strangers.
    pub per_address: Option<usize>,
    /// Most open connections of one identity; by default an eighth of all.
    pub per_identity: Option<usize>,
    /// Longest time from the accept to the first byte after the handshake, and for a stranger to the headers of its first request.
    pub first: Duration,
    /// How long a stranger's connection may be without a request.
    pub idle: Duration,
    /// How long a stranger may take to read a part of its response.
    pub unread: Duration,
    /// Longest life of a stranger's connection.
    pub age: Duration,
    /// Most concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// Most bytes of a request's headers.
    pub headers: u32,
    /// Longest message of most methods, in bytes.
    pub message: usize,
    /// Most bytes of all requests that are being read. Strangers have a quarter of them together.
    pub bodies: usize,
    /// Longest time from a request's headers to those of its response. The messages of a stream may take longer.
    pub request: Duration,
    /// Longest time for open requests to end when the process stops, or when their peer's certificate expires.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        let seconds = Duration::from_secs;
        Bounds {
            handshake: seconds(5),
            connections: 16_384,
            per_address: None,
            per_identity: None,
            unread: seconds(30),
            first: seconds(10),
            idle: seconds(60),
            age: seconds(600),
            streams: 256,
            headers: 16 * 1024,
            message: 64 * 1024,
            bodies: 32 << 20,
            request: seconds(10),
            drain: seconds(10),
        }
    }
}

/// Longest time for open requests of a revoked peer to end.
const CUT_DRAIN: Duration = Duration::from_millis(250);

/// Why a peer with an identity gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// As many connections as allowed are open.
    All,
    /// As many as one identity may have are open.
    Identity,
}

/// The parts of the issuer that a listener with client certificates needs.
#[derive(Clone)]
pub struct Behind {
    /// Decides which requests may begin. Each connection notes the head of the journal when it is accepted.
    pub issuer: Arc<Issuer>,
    /// Closes the connections of revoked peers.
    pub guard: Guard,
}

/// The kinds of clients of a listener with TLS.
#[derive(Clone)]
pub enum Serves {
    /// Peers with client certificates, and strangers.
    Peers(Behind),
    /// Strangers only. The value is the name of the listener in metrics.
    Strangers(&'static str),
}

/// Serves HTTP over TLS until `stop`, then waits until the open connections have ended. Each connection uses the newest
/// configuration. After their handshakes, strangers are served on the separate runtime `apart`.
pub async fn serve_tls(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    router: axum::Router,
    serves: Serves,
    clock: Clock,
    (bounds, shares, apart): (Bounds, Shares, Apart),
    mut stop: watch::Receiver<bool>,
) {
    let open = TaskTracker::new();
    let stopping = stop.clone();
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    let (behind, name) = match serves {
        Serves::Peers(behind) => (Some(behind), None),
        Serves::Strangers(name) => (None, Some(name)),
    };
    let issuer = behind.as_ref().map(|behind| Arc::clone(&behind.issuer));
    let places = Places::new(shares, name);
    let gate = Gate::new(router, issuer, bounds, shares.streams());
    let listening = Listening { gate, behind, places, turns: Turns::new(), apart, clock, bounds };
    let each = |accepted: Accepted<(TcpStream, SocketAddr)>| {
        let (stream, address, file) = match accepted {
            Accepted::Connection((stream, address), file) => (stream, address, file),
            Accepted::Full => return connection::refused("full"),
            Accepted::Failed(error) => return cannot_accept(&error),
        };
        let _ = stream.set_nodelay(true);
        let network = network(address.ip());
        // ORDER: the revision is read before the handshake. A peer that renews during the handshake must not look like a thief of
        // its old certificate.
        let opened = listening.behind.as_ref().map_or(0, |behind| behind.issuer.ledger.read(|state| state.revision));
        let seat = listening.places.begin(network);
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        let incoming = Incoming { stream, network, address: address.ip(), opened, seat, acceptor };
        let (listening, stop) = (listening.clone(), stopping.clone());
        open.spawn(async move {
            let _file = file;
            listening.serve(incoming, stop).await;
        });
    };
    accept_each(&listener, shares.files(), stopped, each).await;
    drop(listener);
    open.close();
    open.wait().await;
}

/// Serves HTTP without TLS to this machine until `stop`: metrics and health.
pub async fn serve_local(listener: TcpListener, router: axum::Router, bounds: Bounds, mut stop: watch::Receiver<bool>) {
    let open = TaskTracker::new();
    let stopping = stop.clone();
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    let shares = Shares::strangers(MONITORS);
    let places = Places::new(shares, Some("http"));
    let each = |accepted: Accepted<(TcpStream, SocketAddr)>| {
        let (stream, address, file) = match accepted {
            Accepted::Connection((stream, address), file) => (stream, address, file),
            Accepted::Full => return connection::refused("full"),
            Accepted::Failed(error) => return cannot_accept(&error),
        };
        let seat = places.begin(network(address.ip()));
        // All places of this listener are for strangers, so there is always a connection that can be ended for this one.
        let _ = seat.stranger();
        let (router, stop) = (router.clone(), stopping.clone());
        open.spawn(async move {
            let _file = file;
            let activity = Arc::clone(&seat.activity);
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                let (router, open) = (router.clone(), activity.begin(false));
                async move {
                    let _open = open;
                    tower::ServiceExt::oneshot(router, request).await
                }
            });
            let builder = settings::http(bounds, true);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let times = Times { first: bounds.first, idle: bounds.idle, unread: bounds.unread, life: bounds.age };
            let closes = async {
                tokio::select! {
                    why = activity.ended() => Closing::Ended(CUT_DRAIN, why),
                    why = activity.over(true, times) => Closing::Ended(CUT_DRAIN, why),
                }
            };
            life::serve(connection, closes, stop, bounds.drain).await;
        });
    };
    accept_each(&listener, shares.files(), stopped, each).await;
    open.close();
    open.wait().await;
}

/// The uids that may use the operator socket.
#[derive(Clone, Debug)]
pub struct Uids {
    /// Uids of operators.
    pub operators: Vec<u32>,
    /// Uids of auditors, who are no operators.
    pub auditors: Vec<u32>,
}

/// Serves the operator socket until `stop`. A connection from a uid that is not in `uids` is closed at once.
pub async fn serve_operators(
    listener: UnixListener,
    uids: Uids,
    router: axum::Router,
    issuer: Arc<Issuer>,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let open = TaskTracker::new();
    let stopping = stop.clone();
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    // Operators have a budget of their own, which no other caller can use up.
    let gate = Gate::new(router, Some(issuer), bounds, 0);
    let each = |accepted: Accepted<UnixStream>| {
        let (stream, place) = match accepted {
            Accepted::Connection(stream, place) => (stream, place),
            Accepted::Full => return connection::refused("full"),
            Accepted::Failed(error) => return cannot_accept(&error),
        };
        let peer = match stream.peer_cred() {
            Ok(cred) if uids.operators.contains(&cred.uid()) => Peer::Operator(cred.uid()),
            Ok(cred) if uids.auditors.contains(&cred.uid()) => Peer::Auditor(cred.uid()),
            refused => {
                tracing::warn!(uid = ?refused.map(|c| c.uid()).ok(), "the operator socket refused a peer that is not listed");
                return;
            }
        };
        let (Peer::Operator(uid) | Peer::Auditor(uid)) = peer else { return };
        let service = gate.clone().service(peer, Payer::Known(format!("uid:{uid}").into()), None);
        let stop = stopping.clone();
        open.spawn(async move {
            let _place = place;
            let _open = Counted::new(metrics::gauge!("mayfly_connections", "kind" => "operator"));
            let builder = settings::http(bounds, false);
            let stream = BufWriter::with_capacity(settings::written(false), Lenient::new(stream));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            life::serve(connection, std::future::pending::<Closing>(), stop, bounds.drain).await;
        });
    };
    accept_each(&listener, OPERATORS, stopped, each).await;
    open.close();
    open.wait().await;
}
