//! A TLS server that speaks HTTP/2 and implements no method.

use std::path::Path;
use std::sync::{Arc, Mutex};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

use super::pki::Leaf;

pub(crate) struct Server {
    address: String,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

struct Seen {
    config: Arc<ServerConfig>,
    peers: Vec<Option<CertificateDer<'static>>>,
    resumed: usize,
    connections: Vec<AbortHandle>,
}

impl Server {
    /// With `client_root`, a client certificate below it is required.
    pub(crate) async fn start(
        chain: Vec<CertificateDer<'static>>,
        leaf: &Leaf,
        client_root: Option<CertificateDer<'static>>,
    ) -> Self {
        Self::serve(config(chain, leaf, client_root, true)).await
    }

    pub(crate) async fn without_alpn(chain: Vec<CertificateDer<'static>>, leaf: &Leaf) -> Self {
        Self::serve(config(chain, leaf, None, false)).await
    }

    async fn serve(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen =
            Arc::new(Mutex::new(Seen { config: Arc::new(config), peers: Vec::new(), resumed: 0, connections: Vec::new() }));
        let task = tokio::spawn(accept(listener, Arc::clone(&seen)));
        Self { address, seen, task }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// The client certificate of each finished handshake.
    pub(crate) fn peers(&self) -> Vec<Option<CertificateDer<'static>>> {
        self.seen.lock().unwrap().peers.clone()
    }

    pub(crate) fn resumed(&self) -> usize {
        self.seen.lock().unwrap().resumed
    }

    /// From the next connection on.
    pub(crate) fn present(&self, chain: Vec<CertificateDer<'static>>, leaf: &Leaf) {
        self.seen.lock().unwrap().config = Arc::new(config(chain, leaf, None, true));
    }

    pub(crate) fn drop_connections(&self) {
        self.seen.lock().unwrap().connections.drain(..).for_each(|c| c.abort());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        self.drop_connections();
    }
}

/// The same, on a local socket and without TLS.
pub(crate) fn unix(path: &Path) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(speak_h2(stream));
        }
    })
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Seen>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let acceptor = TlsAcceptor::from(Arc::clone(&seen.lock().unwrap().config));
        let connection = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                {
                    let state = tls.get_ref().1;
                    let peer = state.peer_certificates().and_then(|c| c.first().cloned().map(CertificateDer::into_owned));
                    let mut seen = seen.lock().unwrap();
                    seen.peers.push(peer);
                    seen.resumed += usize::from(state.handshake_kind() == Some(HandshakeKind::Resumed));
                }
                speak_h2(tls).await;
            }
        });
        seen.lock().unwrap().connections.push(connection.abort_handle());
    }
}

async fn speak_h2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = TowerToHyperService::new(Routes::default());
    let _ = Builder::new(TokioExecutor::new()).http2_only().serve_connection(TokioIo::new(stream), service).await;
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    leaf: &Leaf,
    client_root: Option<CertificateDer<'static>>,
    alpn: bool,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match client_root {
        None => builder.with_no_client_auth(),
        Some(root) => {
            let mut roots = RootCertStore::empty();
            roots.add(root).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
            )
        }
    };
    let mut config = builder.with_single_cert(chain, leaf.key()).unwrap();
    if alpn {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    config
}
