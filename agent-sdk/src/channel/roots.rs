//! The roots by which an issuer's certificate is trusted: checked when they are given, not when they are first needed.

use mayfly_verify::{Bundle, TrustDomain, issuer_id, parse_spiffe_id, sha256};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{ConnectError, Trust};
use crate::tls::ServerVerifier;

/// The value for [`Trust::Pin`] and for a ticket: SHA-256 of the root's `SubjectPublicKeyInfo`, DER.
pub fn root_pin(root: &CertificateDer<'_>) -> Result<[u8; 32], ConnectError> {
    Ok(sha256(parse(root)?.public_key().raw))
}

/// Accepts the issuer of this trust domain, and no other server.
pub(super) fn issuer_verifier(trust_domain: &TrustDomain, trust: Trust) -> Result<ServerVerifier, ConnectError> {
    let id = parse_spiffe_id(&issuer_id(trust_domain)).map_err(|e| ConnectError::Roots(e.to_string()))?;
    let roots = match trust {
        Trust::Pin(pin) => return Ok(ServerVerifier::pinned(pin, id)),
        Trust::Roots(roots) if roots.is_empty() => return Err(ConnectError::Roots("there are none".into())),
        Trust::Roots(roots) => roots,
    };
    for root in &roots {
        parse(root)?;
        RootCertStore::empty().add(root.clone()).map_err(|e| ConnectError::Roots(e.to_string()))?;
    }
    let roots = roots.iter().map(|root| root.to_vec()).collect();
    Ok(ServerVerifier::new(Bundle::new(trust_domain.clone(), roots, vec![], 0, 0), id))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, ConnectError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(ConnectError::Roots("a certificate is malformed".into())),
    }
}
