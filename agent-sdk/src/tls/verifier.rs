//! Whether the other end of a handshake is who it may be: one rule for servers and clients.

use std::fmt;
use std::sync::Arc;

use mayfly_verify::Reject;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, OtherError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::provider;
use super::signatures::handshake_signatures;
use crate::peers::{Authorize, Verifier};

/// A credential that does not hold, where TLS has no word for why.
#[derive(thiserror::Error)]
#[error("{code}: {0}", code = .0.code())]
struct Refusal(Reject);

// TLS shows this in place of the text.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// What has an alert of its own is told by it.
fn refused(reject: Reject) -> rustls::Error {
    match reject {
        Reject::Cut => CertificateError::Revoked,
        Reject::Stale(_) => CertificateError::UnknownRevocationStatus,
        Reject::Expired(_) => CertificateError::Expired,
        Reject::NotYetValid(_) => CertificateError::NotValidYet,
        other => CertificateError::Other(OtherError(Arc::new(Refusal(other)))),
    }
    .into()
}

/// Accepts peers whose credentials hold and whom an [`Authorize`] allows; as the verifier of a server's clients and of a
/// client's servers. Use it where [`server_config`](super::server_config) and [`client_config`](super::client_config) do not
/// fit, and turn resumption and tickets off there (T40).
#[derive(Debug)]
pub struct PeerVerifier {
    verifier: Verifier,
    authorize: Authorize,
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl PeerVerifier {
    /// Clients must present a certificate.
    pub fn new(verifier: Verifier, authorize: Authorize) -> PeerVerifier {
        let algorithms = provider().signature_verification_algorithms;
        PeerVerifier { verifier, authorize, algorithms, mandatory: true }
    }

    /// Clients may present none, and have proved nothing then.
    #[must_use]
    pub fn optional(self) -> PeerVerifier {
        PeerVerifier { mandatory: false, ..self }
    }

    // The time is the verifier's own: rustls has whole seconds, and staleness is finer.
    fn verify(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf).chain(rest).cloned().collect();
        let svid = self.verifier.verify_x509(&chain).map_err(refused)?;
        let allowed = self.authorize.allows(&svid);
        if allowed { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    // Bundles change while running, and a client has one certificate: there is nothing to hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    handshake_signatures!();
}
