//! Channels to an issuer that verify both ends.

mod address;
mod dial;
mod error;
mod verifier;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mayfly_verify::TrustDomain;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

pub(crate) use address::Address;
pub(crate) use dial::Dialer;
pub use error::ConnectError;
pub use verifier::root_pin;

use crate::tls::CurrentIdentity;

/// How long a local socket may take to answer.
const UNIX_TIMEOUT: Duration = Duration::from_secs(5);

/// How long nothing may be heard before a followed connection is tried, and then given up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// By what an issuer's certificate is believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The roots of a bundle, as DER certificates.
    Roots(Vec<CertificateDer<'static>>),
    /// SHA-256 of the root's `SubjectPublicKeyInfo` (DER), as in a ticket; see [`root_pin`].
    ///
    /// The last certificate the issuer presents must be the self-signed CA with this key. It is then the only root.
    Pin([u8; 32]),
}

/// What we show the issuer: an SVID and its key. It has no `Debug`, because of the key.
pub struct Identity {
    /// The leaf, then its issuing CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Where the issuer is, and what either end must prove.
pub struct ChannelSettings {
    /// `host:port`; an IPv6 address stands in brackets. The name is looked up and never trusted: the SPIFFE ID is.
    pub address: String,
    /// The issuer must be `spiffe://<trust domain>/issuer`.
    pub trust_domain: TrustDomain,
    /// By what its certificate is believed.
    pub trust: Trust,
    /// Our own certificate; none where the method needs none.
    pub identity: Option<Identity>,
    /// For the TCP connection and the TLS handshake together, at every attempt.
    pub connect_timeout: Duration,
}

/// Connects, verifies the issuer, and reconnects by the same rules whenever the connection is lost.
///
/// An issuer that refuses *our* certificate is noticed at the first call only: in TLS 1.3 the client is done first.
/// When a call fails because a reconnect did, [`ConnectError::behind`] finds out why.
pub async fn connect(settings: ChannelSettings) -> Result<Channel, ConnectError> {
    dial(settings, None).await
}

/// The same for a channel that outlives a certificate: each connection shows what `identity` is then, in place of the one in
/// the settings. The issuer ends a connection with the certificate it was opened with; the next call opens another.
pub async fn connect_as(settings: ChannelSettings, identity: CurrentIdentity) -> Result<Channel, ConnectError> {
    dial(settings, Some(identity)).await
}

/// Connects to another than the issuer, by TLS settings such as those of [`client_config`](crate::tls::client_config), and
/// reconnects by the same whenever the connection is lost. `connect_timeout` is for TCP and TLS together.
pub async fn connect_peer(address: &str, tls: ClientConfig, connect_timeout: Duration) -> Result<Channel, ConnectError> {
    let address = Address::parse(address)?;
    reach(Dialer::with(address, tls, connect_timeout)).await
}

async fn dial(settings: ChannelSettings, identity: Option<CurrentIdentity>) -> Result<Channel, ConnectError> {
    let address = Address::parse(&settings.address)?;
    reach(Dialer::new(address, settings, identity)?).await
}

async fn reach(dialer: Dialer) -> Result<Channel, ConnectError> {
    let endpoint = endpoint(dialer.address())?;
    let connector = service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move { dialer.connect_tls().await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(ConnectError::of)
}

/// A channel that connects when it is first used, and every time with the dialer that stands at that moment.
///
/// A dialer that is to be replaced waits until a connection in the making is made: so none is made with one from before
/// after one was made with its successor.
pub(crate) fn following(address: &str, dialer: Arc<Mutex<Dialer>>) -> Result<Channel, ConnectError> {
    let connector = service_fn(move |_: Uri| {
        let dialer = Arc::clone(&dialer);
        async move { dialer.lock().await.connect_tls().await.map(TokioIo::new) }
    });
    // A machine that is gone says nothing: without this, calls would wait for it as long as TCP does.
    let endpoint = endpoint(address)?.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    Ok(endpoint.keep_alive_while_idle(true).connect_with_connector_lazy(connector))
}

/// Connects to an operator socket. Whoever may open the socket is known to the issuer by its uid.
pub async fn connect_unix(path: &Path) -> Result<Channel, ConnectError> {
    let path = path.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let shown = path.display().to_string();
            match tokio::time::timeout(UNIX_TIMEOUT, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => Ok(TokioIo::new(stream)),
                Ok(Err(e)) => Err(ConnectError::Unreachable { address: shown, cause: e.to_string() }),
                Err(_) => Err(ConnectError::TimedOut { address: shown, after: UNIX_TIMEOUT }),
            }
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.map_err(ConnectError::of)
}

/// `http` towards tonic, which would otherwise look for a TLS of its own; `https` on the wire, which is what it is.
fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let uri = |scheme: &str| format!("{scheme}://{address}").parse::<Uri>();
    match (uri("http"), uri("https")) {
        (Ok(http), Ok(https)) => Ok(Endpoint::from(http).origin(https)),
        _ => Err(ConnectError::Address(address.to_owned())),
    }
}
