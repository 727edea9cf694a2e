//! Accepts connections, with bounds: how many, how long a handshake takes, how long a stop waits.

mod life;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::BufWriter;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::peer::{Connection, Guard, Peer};
use super::{grpc, status};
use crate::clock::Clock;
use crate::ledger::Ledger;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For the TLS handshake (T39).
    pub handshake: Duration,
    /// Open at once.
    pub connections: usize,
    /// Of one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of a request's headers.
    pub headers: u32,
    /// From a request's headers to those of its answer: the answers of a stream may take longer.
    pub request: Duration,
    /// For open requests when the process stops, or when the certificate of their peer ends.
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

/// How long the open requests of a revoked peer have to end.
const CUT_DRAIN: Duration = Duration::from_millis(250);

/// Bytes of the largest TLS record. Answers fill records before they are written.
const RECORD: usize = 16 * 1024;

/// What a listener for certificates needs to know of the issuer behind it.
#[derive(Clone)]
pub struct Behind {
    /// The journal, whose head is remembered for each connection.
    pub ledger: Ledger,
    /// Ends the connections of revoked peers.
    pub guard: Guard,
}

/// A server's TLS settings. With `roots`, client certificates are asked for, and not required.
pub fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: &Zeroizing<Vec<u8>>,
    roots: Option<rustls::RootCertStore>,
    clock: Option<Clock>,
) -> Result<ServerConfig, rustls::Error> {
    tls_with(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec())), roots, clock)
}

/// A server's TLS settings, with a key of any form.
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
    // T40: a resumed session would skip the client verifier.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves HTTP over TLS until `stop`, then drains. The configuration may change between connections. `behind` is `None` for a
/// listener that asks for no client certificates.
pub async fn serve_tls(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    router: axum::Router,
    behind: Option<Behind>,
    clock: Clock,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    let open = TaskTracker::new();
    let gauge = metrics::gauge!("mayfly_connections");
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                pause(&e).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            metrics::counter!("mayfly_connections_refused_total", "reason" => "full").increment(1);
            continue;
        };
        let _ = stream.set_nodelay(true);
        // ORDER: before the handshake. A peer that renews while it runs is not a thief.
        let opened = behind.as_ref().map_or(0, |behind| behind.ledger.read(|state| state.revision));
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        let (router, gauge, clock, mut stop) = (router.clone(), gauge.clone(), clock.clone(), stop.clone());
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
            gauge.increment(1);
            let builder = builder(bounds);
            let connection = builder.serve_connection(TokioIo::new(BufWriter::with_capacity(RECORD, tls)), service);
            let over = async {
                tokio::select! {
                    () = life::expiry(&peer.chain, &clock) => bounds.drain,
                    // Just long enough for the peer to hear why.
                    () = peer.revoked() => CUT_DRAIN,
                }
            };
            life::stand(connection, over, stop, bounds.drain).await;
            gauge.decrement(1);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// Serves the operator socket: a peer whose uid is not listed is not served at all.
pub async fn serve_operators(
    listener: UnixListener,
    uids: Vec<u32>,
    router: axum::Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(64));
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                pause(&e).await;
                continue;
            }
        };
        let uid = match stream.peer_cred() {
            Ok(cred) if uids.contains(&cred.uid()) => cred.uid(),
            refused => {
                tracing::warn!(uid = ?refused.map(|c| c.uid()).ok(), "the operator socket refused a peer that is not listed");
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let service = with_peer(router.clone(), Peer::Operator(uid), bounds.request);
        let stop = stop.clone();
        open.spawn(async move {
            let _place = place;
            let builder = builder(bounds);
            let connection = builder.serve_connection(TokioIo::new(BufWriter::with_capacity(RECORD, stream)), service);
            life::stand(connection, std::future::pending::<Duration>(), stop, bounds.drain).await;
        });
    }
    open.close();
    open.wait().await;
}

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
        // T19: who calls comes from the connection; headers are never an identity.
        request.extensions_mut().insert(peer.clone());
        let (method, started) = (grpc::method(request.uri().path()), Instant::now());
        let answer = tower::ServiceExt::oneshot(router.clone(), request);
        // Around all of it: a body that never comes holds a stream no longer than any other request.
        async move { tokio::time::timeout(within, answer).await.unwrap_or_else(|_| Ok(status::late(method, started))) }
    })
}

// T63: an error of one connection, or too many open files, never ends the loop.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
