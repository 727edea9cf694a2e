//! Verifies a server that must have one exact SPIFFE ID: an issuer, or the endpoint of a foreign bundle.

use std::sync::Arc;

use mayfly_verify::{BindingOid, Bundle, Reject, SpiffeId, inspect_x509, sha256, verify_x509};
use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WantsClientCert};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, ConfigBuilder, OtherError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::provider;
use super::signatures::handshake_signatures;

/// Accepts the server with one SPIFFE ID, verified by one bundle. The server's host name has no meaning.
///
/// This does not check revocation: use [`PeerVerifier`](super::PeerVerifier) where a feed is available.
#[derive(Debug)]
pub struct ServerVerifier {
    anchor: Anchor,
    id: SpiffeId,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The root that the server's chain must lead to.
enum Anchor {
    /// A root of this bundle.
    Bundle(Box<Bundle>),
    /// The root with this key: SHA-256 of its `SubjectPublicKeyInfo`. The server must present it as the last certificate.
    Pin([u8; 32]),
}

impl std::fmt::Debug for Anchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Anchor::Bundle(bundle) => write!(f, "Bundle({})", bundle.trust_domain()),
            Anchor::Pin(_) => f.write_str("Pin"),
        }
    }
}

/// Why a server is refused.
#[derive(thiserror::Error)]
enum Refusal {
    /// Its certificate is not valid.
    #[error("its certificate is not valid: {0}")]
    Svid(#[from] Reject),
    /// It has another SPIFFE ID.
    #[error("the server is `{found}`, expected `{expected}`")]
    OtherId { found: SpiffeId, expected: SpiffeId },
    /// With a pin: there are too few certificates to include a root.
    #[error("the server presents no root to compare with the pin")]
    NoRoot,
    /// With a pin: the last certificate has another key.
    #[error("the root that the server presents is not the pinned one")]
    OtherRoot,
    /// With a pin: the certificate is not signed by the pinned key.
    #[error("the pinned root is no self-signed CA")]
    NotARoot,
}

// TLS shows the debug form.
impl std::fmt::Debug for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

impl ServerVerifier {
    /// Accepts the server `id` if its chain leads to a root of `bundle`, which is the bundle of the id's trust domain.
    pub fn new(bundle: Bundle, id: SpiffeId) -> ServerVerifier {
        ServerVerifier::with(Anchor::Bundle(Box::new(bundle)), id)
    }

    /// Accepts the server `id` if the last certificate that it presents is the self-signed CA with the pinned key, and its chain
    /// leads there.
    pub(crate) fn pinned(pin: [u8; 32], id: SpiffeId) -> ServerVerifier {
        ServerVerifier::with(Anchor::Pin(pin), id)
    }

    fn with(anchor: Anchor, id: SpiffeId) -> ServerVerifier {
        ServerVerifier { anchor, id, algorithms: provider().signature_verification_algorithms }
    }

    /// TLS settings of a client that accepts this server alone and presents no certificate. No session is resumed.
    pub fn client_config(self, time: Arc<dyn TimeProvider>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_details(provider(), time);
        Ok(without_resumption(self.into_builder(builder)?.with_no_client_auth()))
    }

    /// The same with the system's clock, for a client that presents the certificate of `own`, if there is one.
    pub(crate) fn client_config_as(self, own: Option<Arc<dyn ResolvesClientCert>>) -> Result<ClientConfig, rustls::Error> {
        let builder = self.into_builder(ClientConfig::builder_with_provider(provider()))?;
        Ok(without_resumption(match own {
            Some(own) => builder.with_client_cert_resolver(own),
            None => builder.with_no_client_auth(),
        }))
    }

    fn into_builder(
        self,
        builder: ConfigBuilder<ClientConfig, rustls::WantsVersions>,
    ) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
        Ok(builder
            .with_safe_default_protocol_versions()?
            .dangerous() // It replaces the check of the name by the check of the SPIFFE ID.
            .with_custom_certificate_verifier(Arc::new(self)))
    }

    fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Refusal> {
        let verify = |chain: &[CertificateDer<'_>], bundle: &Bundle| verify_x509(chain, bundle, &BindingOid::default(), now);
        let verified = match &self.anchor {
            Anchor::Bundle(bundle) => verify(chain, bundle),
            Anchor::Pin(pin) => {
                let (root, below) = chain.split_last().filter(|(_, below)| !below.is_empty()).ok_or(Refusal::NoRoot)?;
                pinned_root(root, pin)?;
                verify(below, &Bundle::new(self.id.trust_domain().clone(), vec![root.to_vec()], vec![], 0, 0))
            }
        };
        let found = match (verified, chain.first()) {
            (Ok(svid), _) => svid.id,
            // Not verified, but only for an error message, where the whole id is more helpful than its trust domain.
            (Err(Reject::TrustDomain(..)), Some(leaf)) => inspect_x509(leaf, self.id.trust_domain(), &BindingOid::default())?.id,
            (Err(reject), _) => return Err(reject.into()),
        };
        if found == self.id { Ok(()) } else { Err(Refusal::OtherId { found, expected: self.id.clone() }) }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        self.verify(&chain, now.as_secs())?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    // T40: a resumed session would skip the verifier.
    config.resumption = Resumption::disabled();
    config
}

/// The pin identifies a key. That the certificate is signed by this key proves that the root itself wrote it.
fn pinned_root(root: &CertificateDer<'_>, pin: &[u8; 32]) -> Result<(), Refusal> {
    let Ok(([], root)) = X509Certificate::from_der(root) else { return Err(Refusal::NoRoot) };
    if sha256(root.public_key().raw) != *pin {
        return Err(Refusal::OtherRoot);
    }
    let self_signed = root.subject().as_raw() == root.issuer().as_raw() && root.verify_signature(None).is_ok();
    if self_signed && root.is_ca() { Ok(()) } else { Err(Refusal::NotARoot) }
}
