//! Accepts connections within bounds: on their number, the time of a handshake and of a request, and the time that a stop waits.

mod life;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use mayfly_agent::listen::{Accepted, accept_each};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::BufWriter;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::counted::Counted;
use super::peer::{Connection, Guard, Peer};
use super::{grpc, status};
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::lenient::Lenient;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest TLS handshake (T39).
    pub handshake: Duration,
    /// Most open connections.
    pub connections: usize,
    /// Most concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// Most bytes of a request's headers.
    pub headers: u32,
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
            connections: 1024,
            streams: 256,
            headers: 16 * 1024,
            request: seconds(10),
            drain: seconds(10),
        }
    }
}

/// Longest time for open requests of a revoked peer to end.
const CUT_DRAIN: Duration = Duration::from_millis(250);

/// Connections to the operator socket that may be open at once.
const OPERATORS: usize = 64;

/// Bytes of the largest TLS record. Responses are buffered up to this size before they are written.
const RECORD: usize = 16 * 1024;

/// The parts of the issuer that a listener with client certificates needs.
#[derive(Clone)]
pub struct Behind {
    /// The ledger. Each connection remembers its head at the start.
    pub ledger: Ledger,
    /// Closes the connections of revoked peers.
    pub guard: Guard,
}

/// A server's TLS configuration. `chain` has the leaf first, `key` is PKCS#8 DER. With `roots`, client certificates are asked for
/// and not required; `None` means that they are not asked for. `clock` is the clock of verification; `None` means the machine's.
/// Fails if the key does not belong to the leaf, or if `roots` is empty.
pub fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: &Zeroizing<Vec<u8>>,
    roots: Option<rustls::RootCertStore>,
    clock: Option<Clock>,
) -> Result<ServerConfig, rustls::Error> {
    tls_with(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec())), roots, clock)
}

/// As [`tls`], with a key of any encoding.
pub fn tls_with(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Option<rustls::RootCertStore>,
    clock: Option<Clock>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = match clock {
        Some(clock) => ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(clock)),
        None => ServerConfig::builder_with_provider(Arc::clone(&provider)),
    };
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match roots {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    // T40: a resumed session would skip the verification of the client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves HTTP over TLS until `stop`, then waits until the open connections have ended. Each connection uses the newest
/// configuration. `behind` is `None` for a listener that asks for no client certificates.
pub async fn serve_tls(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    router: axum::Router,
    behind: Option<Behind>,
    clock: Clock,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let open = TaskTracker::new();
    let gauge = metrics::gauge!("mayfly_connections");
    let stopping = stop.clone();
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    let each = |accepted: Accepted<(TcpStream, SocketAddr)>| {
        let (stream, place) = match accepted {
            Accepted::Connection((stream, _), place) => (stream, place),
            Accepted::Full => return metrics::counter!("mayfly_connections_refused_total", "reason" => "full").increment(1),
            Accepted::Failed(error) => return tracing::warn!(%error, "cannot accept a connection"),
        };
        let _ = stream.set_nodelay(true);
        // ORDER: before the handshake. A peer that renews during the handshake must not look like one that uses a stolen key.
        let opened = behind.as_ref().map_or(0, |behind| behind.ledger.read(|state| state.revision));
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        let router = router.clone();
        let gauge = gauge.clone();
        let clock = clock.clone();
        let mut stop = stopping.clone();
        let behind = behind.clone();
        open.spawn(async move {
            let _place = place;
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(bounds.handshake, acceptor.accept(stream)) => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let tls = match accepted {
                Ok(Ok(tls)) => tls,
                Ok(Err(_)) => return metrics::counter!("mayfly_connections_refused_total", "reason" => "tls").increment(1),
                Err(_) => return metrics::counter!("mayfly_connections_refused_total", "reason" => "slow").increment(1),
            };
            let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let chain = chain.iter().map(|c| c.clone().into_owned()).collect();
            let peer = Arc::new(Connection::new(chain, opened));
            let _guarded = behind.as_ref().map(|behind| behind.guard.watch(&peer));
            let service = with_peer(router, Peer::Tls(Arc::clone(&peer)), bounds.request);
            let _counted = Counted::new(gauge);
            let builder = builder(bounds);
            let connection = builder.serve_connection(TokioIo::new(BufWriter::with_capacity(RECORD, tls)), service);
            let closes = async {
                tokio::select! {
                    () = life::expiry(&peer.chain, &clock) => bounds.drain,
                    // This is just enough for the peer to get the reason.
                    () = peer.revoked() => CUT_DRAIN,
                }
            };
            life::serve(connection, closes, stop, bounds.drain).await;
        });
    };
    accept_each(&listener, bounds.connections, stopped, each).await;
    drop(listener);
    open.close();
    open.wait().await;
}

/// Serves the operator socket until `stop`. A connection from a uid that is not in `uids` is closed at once.
pub async fn serve_operators(
    listener: UnixListener,
    uids: Vec<u32>,
    router: axum::Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let open = TaskTracker::new();
    let stopping = stop.clone();
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    let each = |accepted: Accepted<UnixStream>| {
        let (stream, place) = match accepted {
            Accepted::Connection(stream, place) => (stream, place),
            Accepted::Full => return,
            Accepted::Failed(error) => return tracing::warn!(%error, "cannot accept a connection"),
        };
        let uid = match stream.peer_cred() {
            Ok(cred) if uids.contains(&cred.uid()) => cred.uid(),
            refused => {
                tracing::warn!(uid = ?refused.map(|c| c.uid()).ok(), "the operator socket refused a peer that is not listed");
                return;
            }
        };
        let service = with_peer(router.clone(), Peer::Operator(uid), bounds.request);
        let stop = stopping.clone();
        open.spawn(async move {
            let _place = place;
            let builder = builder(bounds);
            let connection =
                builder.serve_connection(TokioIo::new(BufWriter::with_capacity(RECORD, Lenient::new(stream))), service);
            life::serve(connection, std::future::pending::<Duration>(), stop, bounds.drain).await;
        });
    };
    accept_each(&listener, OPERATORS, stopped, each).await;
    open.close();
    open.wait().await;
}

/// The HTTP settings of a connection.
fn builder(bounds: Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(bounds.headers)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    builder
}

type Incoming = http::Request<hyper::body::Incoming>;

/// The service of one connection: the router, with the peer as an extension of each request and a timeout of `within`.
fn with_peer(
    router: axum::Router,
    peer: Peer,
    within: Duration,
) -> impl hyper::service::Service<
    Incoming,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future = impl Future<Output = Result<axum::response::Response, std::convert::Infallible>> + Send,
> + Send {
    hyper::service::service_fn(move |mut request: Incoming| {
        // T19: the caller's identity comes from the connection, never from headers.
        request.extensions_mut().insert(peer.clone());
        let method = grpc::method(request.uri().path());
        let started = Instant::now();
        let answer = tower::ServiceExt::oneshot(router.clone(), request);
        // The timeout covers the request's body too: a body that never arrives holds a stream no longer than any other request.
        async move { tokio::time::timeout(within, answer).await.unwrap_or_else(|_| Ok(status::late(method, started))) }
    })
}
