//! Channels to the issuer that verify both ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mayfly_verify::{BindingOid, Bundle, Principal, TrustDomain, sha256, verify_x509};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How the issuer is known.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By the root certificates of its bundle, DER.
    Roots(Vec<Vec<u8>>),
    /// By SHA-256 of its root's `SubjectPublicKeyInfo`, as a ticket has it: the server sends the root along.
    Pin([u8; 32]),
}

/// What the caller proves itself with. Has no `Debug`.
pub struct Identity {
    /// Leaf, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Where to connect to, and whom to expect there.
pub struct ChannelSettings {
    /// `host:port`.
    pub address: String,
    /// The issuer's.
    pub trust_domain: TrustDomain,
    /// How the issuer is known.
    pub trust: Trust,
    /// Who calls; none: a stranger, for what needs no certificate.
    pub identity: Option<Identity>,
    /// For connection and handshake.
    pub timeout: Duration,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("cannot reach the issuer at `{0}`: {1}")]
    Unreachable(String, String),
    /// Somebody answers who is not the issuer, or who does not want us.
    #[error("the server at `{0}` is not the issuer that was expected: {1}")]
    Untrusted(String, String),
    /// The settings cannot be used.
    #[error("cannot connect with these credentials: {0}")]
    Settings(String),
}

/// Connects over TLS. The first connection is made before this returns, so that what is wrong is told at once.
pub async fn connect(settings: ChannelSettings) -> Result<Channel, ConnectError> {
    let config = Arc::new(client_config(&settings.trust_domain, settings.trust, settings.identity)?);
    let (address, timeout) = (settings.address, settings.timeout);
    let first = Mutex::new(Some(handshake(&address, Arc::clone(&config), timeout).await?));
    let first = Arc::new(first);
    let uri = format!("http://{address}");
    let endpoint = Endpoint::from_shared(uri).map_err(|e| ConnectError::Settings(e.to_string()))?.connect_timeout(timeout);
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let ready = first.lock().ok().and_then(|mut first| first.take());
        let (address, config) = (address.clone(), Arc::clone(&config));
        async move {
            let stream = match ready {
                Some(stream) => stream,
                None => handshake(&address, config, timeout).await.map_err(io::Error::other)?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(|e| ConnectError::Settings(chain_of(&e)))
}

/// Connects to the operator socket.
pub async fn connect_unix(path: &Path) -> Result<Channel, ConnectError> {
    let shown = path.display().to_string();
    let path: PathBuf = path.to_owned();
    let endpoint = Endpoint::from_static("http://operator.socket");
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|e| ConnectError::Unreachable(shown, chain_of(&e)))
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

async fn handshake(address: &str, config: Arc<ClientConfig>, timeout: Duration) -> Result<Tls, ConnectError> {
    let unreachable = |e: String| ConnectError::Unreachable(address.to_owned(), e);
    let done = tokio::time::timeout(timeout, async {
        let stream = TcpStream::connect(address).await.map_err(|e| unreachable(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
        // The name is for SNI alone: who the server is stands in its SPIFFE ID.
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|e| ConnectError::Settings(e.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(|e| ConnectError::Untrusted(address.to_owned(), e.to_string()))
    });
    done.await.map_err(|_| unreachable("no answer in time".into()))?
}

fn client_config(td: &TrustDomain, trust: Trust, identity: Option<Identity>) -> Result<ClientConfig, ConnectError> {
    let bad = |e: rustls::Error| ConnectError::Settings(e.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(IssuerVerifier { trust_domain: td.clone(), trust, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key).map_err(bad)?,
        None => builder.with_no_client_auth(),
    };
    // T40: a resumed session would skip the verifier.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts exactly one server: the issuer of the trust domain.
#[derive(Debug)]
struct IssuerVerifier {
    trust_domain: TrustDomain,
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for IssuerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refuse = |text: String| rustls::Error::General(text);
        let roots = match &self.trust {
            Trust::Roots(roots) => roots.clone(),
            Trust::Pin(pin) => {
                let last = intermediates.last().ok_or(CertificateError::UnknownIssuer)?;
                let (_, root) = X509Certificate::from_der(last).map_err(|_| CertificateError::BadEncoding)?;
                if sha256(root.public_key().raw) != *pin {
                    return Err(refuse("its root is not the one that the ticket names".into()));
                }
                vec![last.to_vec()]
            }
        };
        let bundle = Bundle::new(self.trust_domain.clone(), roots, vec![], 0, 0);
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf).chain(intermediates).cloned().collect();
        let svid = verify_x509(&chain, &bundle, &BindingOid::default(), now.as_secs()).map_err(|e| refuse(e.to_string()))?;
        if svid.principal == Principal::Issuer {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refuse(format!("it presents `{}`", svid.id)))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
