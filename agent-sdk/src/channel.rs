//! Connections to an issuer on which both ends are verified.

mod address;
mod dial;
mod error;
mod roots;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mayfly_verify::TrustDomain;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

pub(crate) use address::Address;
pub(crate) use dial::Dialer;
pub use error::ConnectError;
pub use roots::root_pin;
pub use token::{Authorized, USER_TOKEN, UserToken, with_user_token, without_user_token};

use crate::tls::CurrentIdentity;
pub use crate::tls::Identity;

/// Longest wait for a local socket to accept a connection.
const UNIX_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that has been silent for this long is probed, and given up after the same time without an answer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The same while one of our calls waits for its answer. An issuer that works on a long call still answers probes; one that hangs
/// does not.
const PROBE: Duration = Duration::from_secs(10);

/// The roots that an issuer's certificate must lead to.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The roots of a bundle, as DER certificates.
    Roots(Vec<CertificateDer<'static>>),
    /// SHA-256 of the root's `SubjectPublicKeyInfo` (DER), as in a ticket; see [`root_pin`].
    ///
    /// The last certificate that the issuer presents must be the self-signed CA with this key. It is then the only root.
    Pin([u8; 32]),
}

/// The issuer's address, and what each end must prove.
pub struct ChannelSettings {
    /// `host:port`, with an IPv6 address in brackets. Only the issuer's SPIFFE ID is trusted, never the host name.
    pub address: String,
    /// The issuer must be `spiffe://<trust domain>/issuer`.
    pub trust_domain: TrustDomain,
    /// The roots that its certificate must lead to.
    pub trust: Trust,
    /// Our own certificate. `None` for methods that need none.
    pub identity: Option<Identity>,
    /// Time limit for the TCP connection and the TLS handshake together, at every attempt.
    pub connect_timeout: Duration,
}

/// Connects, verifies the issuer, and reconnects by the same rules whenever the connection is lost.
///
/// If the issuer refuses *our* certificate, only the first call shows it, because in TLS 1.3 the client finishes first. When a
/// call fails because a reconnect failed, [`ConnectError::behind`] finds the reason.
pub async fn connect(settings: ChannelSettings) -> Result<Channel, ConnectError> {
    dial(settings, None).await
}

/// The same for a channel that is used for longer than one certificate is valid: each new connection presents the current
/// certificate of `identity`, and the identity in the settings is ignored. The issuer closes a connection when the certificate
/// that it was opened with expires; the next call opens another.
pub async fn connect_as(settings: ChannelSettings, identity: CurrentIdentity) -> Result<Channel, ConnectError> {
    dial(settings, Some(identity)).await
}

/// Connects to a server other than the issuer, by TLS settings such as those of [`client_config`](crate::tls::client_config),
/// and reconnects by the same settings. `connect_timeout` is the limit for TCP and TLS together.
pub async fn connect_peer(address: &str, tls: ClientConfig, connect_timeout: Duration) -> Result<Channel, ConnectError> {
    let address = Address::parse(address)?;
    reach(Dialer::with(address, tls, connect_timeout)).await
}

async fn dial(settings: ChannelSettings, identity: Option<CurrentIdentity>) -> Result<Channel, ConnectError> {
    let address = Address::parse(&settings.address)?;
    reach(Dialer::new(address, settings, identity)?).await
}

async fn reach(dialer: Dialer) -> Result<Channel, ConnectError> {
    let endpoint = probing(endpoint(dialer.address())?);
    let connector = service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move { dialer.connect_tls().await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(ConnectError::of)
}

/// A channel that connects at its first use, and each time with the current dialer.
///
/// Replacing the dialer waits for a connection that is being made. So no connection is made with an earlier dialer once one
/// has been made with its successor.
pub(crate) fn following(address: &str, dialer: Arc<Mutex<Dialer>>) -> Result<Channel, ConnectError> {
    let connector = service_fn(move |_: Uri| {
        let dialer = Arc::clone(&dialer);
        async move { dialer.lock().await.connect_tls().await.map(TokioIo::new) }
    });
    // A machine that disappears sends nothing. Without the keep-alive, calls would wait for as long as TCP does.
    let endpoint = endpoint(address)?.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    Ok(endpoint.keep_alive_while_idle(true).connect_with_connector_lazy(connector))
}

/// Connects to an operator socket. The issuer identifies the caller by its uid.
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
    let endpoint = probing(Endpoint::from_static("http://localhost"));
    endpoint.connect_with_connector(connector).await.map_err(ConnectError::of)
}

/// Closes a connection whose other end answers no probe while a call waits.
fn probing(endpoint: Endpoint) -> Endpoint {
    endpoint.http2_keep_alive_interval(PROBE).keep_alive_timeout(PROBE)
}

/// `http` for tonic, which would otherwise set up TLS itself; `https` as the origin of requests, because TLS is used.
fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let uri = |scheme: &str| format!("{scheme}://{address}").parse::<Uri>();
    match (uri("http"), uri("https")) {
        (Ok(http), Ok(https)) => Ok(Endpoint::from(http).origin(https)),
        _ => Err(ConnectError::Address(address.to_owned())),
    }
}
