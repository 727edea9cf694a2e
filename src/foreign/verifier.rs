//! Whether a bundle endpoint is the configured one: an X.509-SVID of its trust domain, with its exact SPIFFE ID (FC-3).

use std::fmt;
use std::sync::Arc;

use mayfly_verify::{BindingOid, SpiffeId, verify_x509};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::newest::Newest;
use crate::assertion::ClientError;
use crate::clock::Clock;

/// Why an endpoint is refused.
#[derive(thiserror::Error)]
enum Refusal {
    /// Its certificate does not hold under the bundle.
    #[error("the endpoint's SVID does not hold: {0}")]
    Svid(#[from] mayfly_verify::Reject),
    /// It is somebody else's.
    #[error("the endpoint is `{found}`, expected `{expected}`")]
    OtherId { found: SpiffeId, expected: SpiffeId },
}

// TLS shows this in place of the text.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

/// TLS settings that accept this endpoint and no other.
pub(super) fn tls(by: Arc<Newest>, id: SpiffeId, clock: &Clock) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = EndpointVerifier { by, id, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::Tls(e.to_string()))?
        .dangerous() // It replaces the check of the name by the check of the SPIFFE ID.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // T40: a resumed session would skip the verifier.
    config.resumption = Resumption::disabled();
    Ok(config)
}

struct EndpointVerifier {
    by: Arc<Newest>,
    id: SpiffeId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for EndpointVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointVerifier({})", self.id)
    }
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let svid = verify_x509(&chain, self.by.bundle(), &BindingOid::default(), now.as_secs()).map_err(Refusal::from)?;
        if svid.id != self.id {
            return Err(Refusal::OtherId { found: svid.id, expected: self.id.clone() }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
