//! One connection: TCP, then TLS, within one time limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::roots::issuer_verifier;
use super::{Address, ChannelSettings, ConnectError};
use crate::tls::CurrentIdentity;
use crate::validity;

const ALPN_H2: &[u8] = b"h2";

/// Makes connections, all verified by the same rules.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: Address,
    tls: TlsConnector,
    timeout: Duration,
    /// Our own certificate, whose validity is checked before each connection. `None` if there is none, or if the TLS settings check
    /// it.
    own: Option<CurrentIdentity>,
}

impl Dialer {
    /// `settings.address` has been parsed to `address`. `current` takes precedence over the identity of the settings.
    pub(crate) fn new(
        address: Address,
        settings: ChannelSettings,
        current: Option<CurrentIdentity>,
    ) -> Result<Self, ConnectError> {
        let verifier = issuer_verifier(&settings.trust_domain, settings.trust)?;
        let fixed = settings.identity.filter(|_| current.is_none()).map(CurrentIdentity::new).transpose();
        let own = fixed.map_err(|e| ConnectError::Identity(e.to_string()))?.or(current);
        let config = verifier.client_config_as(own.clone().map(|own| Arc::new(own) as Arc<dyn ResolvesClientCert>));
        let config = config.map_err(|e| ConnectError::Handshake(e.to_string()))?;
        Ok(Self { own, ..Self::with(address, config, settings.connect_timeout) })
    }

    /// A dialer by any TLS settings.
    pub(super) fn with(address: Address, mut config: ClientConfig, timeout: Duration) -> Self {
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        // T40: a resumed session would skip the verifier.
        config.resumption = Resumption::disabled();
        Self { address, tls: TlsConnector::from(Arc::new(config)), timeout, own: None }
    }

    pub(super) fn address(&self) -> &str {
        self.address.text()
    }

    /// Makes a connection and verifies the server.
    pub(crate) async fn connect_tls(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        if let Some(validity) = self.own.as_ref().and_then(CurrentIdentity::validity) {
            validity.check(validity::now())?;
        }
        let address = || self.address.text().to_owned();
        tokio::time::timeout(self.timeout, self.handshake())
            .await
            .map_err(|_| ConnectError::TimedOut { address: address(), after: self.timeout })?
    }

    async fn handshake(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let unreachable =
            |e: io::Error| ConnectError::Unreachable { address: self.address.text().to_owned(), cause: e.to_string() };
        let tcp = TcpStream::connect(self.address.text()).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let tls = self.tls.connect(self.address.host(), tcp).await.map_err(|e| refused(&e))?;
        if tls.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err(ConnectError::Handshake("the server does not offer HTTP/2".into()));
        }
        Ok(tls)
    }
}

/// Tells a refused server certificate from a handshake that failed for another reason.
fn refused(error: &io::Error) -> ConnectError {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) => ConnectError::Untrusted(why.0.to_string()),
        Some(rustls::Error::InvalidCertificate(why)) => ConnectError::Untrusted(why.to_string()),
        Some(e @ rustls::Error::NoCertificatesPresented) => ConnectError::Untrusted(e.to_string()),
        _ => ConnectError::Handshake(error.to_string()),
    }
}
