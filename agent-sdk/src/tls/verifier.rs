//! Verifies the other end of a handshake: one rule for servers and clients.

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

/// A refused credential, for reasons that TLS has no alert for.
#[derive(thiserror::Error)]
#[error("{code}: {0}", code = .0.code())]
struct Refusal(Reject);

// TLS shows the debug form.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Some reasons have a TLS alert of their own.
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

/// Accepts peers with valid credentials that an [`Authorize`] allows, for a server's clients and a client's servers. Use it where
/// [`server_config`](super::server_config) and [`client_config`](super::client_config) do not fit, and turn session resumption
/// and tickets off there (T40).
#[derive(Debug)]
pub struct PeerVerifier {
    verifier: Verifier,
    authorize: Authorize,
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl PeerVerifier {
    /// Requires clients to present a certificate.
    pub fn new(verifier: Verifier, authorize: Authorize) -> PeerVerifier {
        let algorithms = provider().signature_verification_algorithms;
        PeerVerifier { verifier, authorize, algorithms, mandatory: true }
    }

    /// Also accepts clients without a certificate. Such a client is not authenticated.
    #[must_use]
    pub fn optional(self) -> PeerVerifier {
        PeerVerifier { mandatory: false, ..self }
    }

    // Uses the verifier's own clock: rustls passes whole seconds, and staleness needs a finer time.
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

    // Bundles change at run time, and a client has only one certificate, so there is nothing to hint.
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
