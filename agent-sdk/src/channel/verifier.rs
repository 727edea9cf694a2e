//! Whether a server certificate is the issuer's: its chain, its profile, its SPIFFE ID.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use mayfly_verify::{TrustDomain, issuer_id};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage};
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::{ConnectError, Trust};
use crate::tls::signatures::handshake_signatures;

/// What [`Trust::Pin`] and a ticket hold of a root: SHA-256 of its `SubjectPublicKeyInfo`, DER.
pub fn root_pin(root: &CertificateDer<'_>) -> Result<[u8; 32], ConnectError> {
    pin_of(&parse(root).map_err(|e| ConnectError::Roots(e.to_string()))?).map_err(|e| ConnectError::Roots(e.to_string()))
}

/// Why a certificate is refused, where webpki has nothing against it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// Not DER, or with an extension that is malformed or there twice.
    #[error("a certificate is malformed")]
    Malformed,
    /// With a pin, too few certificates to hold a root.
    #[error("the server presents no root to compare with the pin")]
    NoRoot,
    /// With a pin, the last certificate has another key.
    #[error("the root that the server presents is not the pinned one")]
    OtherRoot,
    /// The pinned key is in a certificate that is no self-signed CA.
    #[error("the pinned root is no self-signed CA")]
    NotARoot,
    /// No root is valid now.
    #[error("every root has expired or is not valid yet")]
    RootExpired,
    /// An intermediate may not sign certificates.
    #[error("an intermediate certificate may not sign certificates")]
    Intermediate,
    /// X509-SVID 4.3: a leaf has digitalSignature, and may sign neither certificates nor CRLs.
    #[error("the key usage of the server's certificate is not that of an SVID")]
    KeyUsage,
    /// X509-SVID 2: exactly one URI SAN.
    #[error("the server's certificate has {0} SPIFFE IDs, and one is allowed")]
    NotOneId(usize),
    /// It is somebody else's.
    #[error("the server is `{found}`, expected `{expected}`")]
    OtherId { found: String, expected: String },
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

/// Accepts the issuer of one trust domain, and nobody else.
#[derive(Debug)]
pub(super) struct IssuerVerifier {
    expected: String,
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl IssuerVerifier {
    pub(super) fn new(
        trust_domain: &TrustDomain,
        trust: Trust,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, ConnectError> {
        if let Trust::Roots(roots) = &trust {
            if roots.is_empty() {
                return Err(ConnectError::Roots("there are none".into()));
            }
            // What cannot be read is told now, and not as an unknown issuer later.
            for root in roots {
                parse(root).map_err(|e| ConnectError::Roots(e.to_string()))?;
                RootCertStore::empty().add(root.clone()).map_err(|e| ConnectError::Roots(e.to_string()))?;
            }
        }
        Ok(Self { expected: issuer_id(trust_domain), trust, algorithms })
    }

    /// The roots to believe in this handshake, and the intermediates among what was presented after the leaf.
    fn anchors<'a>(
        &self,
        presented: &'a [CertificateDer<'a>],
        now: UnixTime,
    ) -> Result<(RootCertStore, &'a [CertificateDer<'a>]), rustls::Error> {
        let mut store = RootCertStore::empty();
        let intermediates = match &self.trust {
            Trust::Roots(roots) => {
                for root in roots {
                    // T32: webpki does not look at the validity of an anchor.
                    if valid_at(&parse(root)?, now) {
                        store.add(root.clone())?;
                    }
                }
                presented
            }
            Trust::Pin(pin) => {
                let (root, between) = presented.split_last().ok_or(Refusal::NoRoot)?;
                pinned_root(root, pin, now)?;
                store.add(root.clone())?;
                between
            }
        };
        if store.is_empty() { Err(Refusal::RootExpired.into()) } else { Ok((store, intermediates)) }
    }
}

impl ServerCertVerifier for IssuerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (roots, intermediates) = self.anchors(presented, now)?;
        for intermediate in intermediates {
            may_sign_certificates(&parse(intermediate)?)?;
        }
        let leaf = ParsedCertificate::try_from(end_entity)?;
        // It refuses a CA as leaf, what has expired, and a leaf that is for clients only.
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, self.algorithms.all)?;
        is_the_issuer(&parse(end_entity)?, &self.expected)?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

/// The pin is of a key. The signature by that key is what makes the rest of the certificate the root's own word.
fn pinned_root(root: &CertificateDer<'_>, pin: &[u8; 32], now: UnixTime) -> Result<(), Refusal> {
    let root = parse(root)?;
    if pin_of(&root)? != *pin {
        return Err(Refusal::OtherRoot);
    }
    let self_signed = root.subject().as_raw() == root.issuer().as_raw() && root.verify_signature(None).is_ok();
    if !self_signed || may_sign_certificates(&root).is_err() {
        return Err(Refusal::NotARoot);
    }
    if valid_at(&root, now) { Ok(()) } else { Err(Refusal::RootExpired) }
}

/// T32: webpki leaves key usage alone.
fn may_sign_certificates(ca: &X509Certificate<'_>) -> Result<(), Refusal> {
    let is_ca = ca.basic_constraints().map_err(|_| Refusal::Malformed)?.is_some_and(|ext| ext.value.ca);
    let signs = key_usage(ca)?.is_some_and(KeyUsage::key_cert_sign);
    if is_ca && signs { Ok(()) } else { Err(Refusal::Intermediate) }
}

fn is_the_issuer(leaf: &X509Certificate<'_>, expected: &str) -> Result<(), Refusal> {
    if !key_usage(leaf)?.is_some_and(|u| u.digital_signature() && !u.key_cert_sign() && !u.crl_sign()) {
        return Err(Refusal::KeyUsage);
    }
    let names = leaf.subject_alternative_name().map_err(|_| Refusal::Malformed)?;
    let names = names.map(|ext| ext.value.general_names.as_slice()).unwrap_or_default();
    let mut ids = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(id) => ids.push(*id),
            GeneralName::Invalid(..) => return Err(Refusal::Malformed),
            _ => {}
        }
    }
    match ids.as_slice() {
        [id] if *id == expected => Ok(()),
        [id] => Err(Refusal::OtherId {
            found: id.chars().take(256).flat_map(char::escape_default).collect(),
            expected: expected.to_owned(),
        }),
        ids => Err(Refusal::NotOneId(ids.len())),
    }
}

fn key_usage<'a>(cert: &'a X509Certificate<'_>) -> Result<Option<&'a KeyUsage>, Refusal> {
    Ok(cert.key_usage().map_err(|_| Refusal::Malformed)?.map(|ext| ext.value))
}

fn valid_at(cert: &X509Certificate<'_>, now: UnixTime) -> bool {
    i64::try_from(now.as_secs())
        .ok()
        .and_then(|secs| ASN1Time::from_timestamp(secs).ok())
        .is_some_and(|now| cert.validity().is_valid_at(now))
}

fn pin_of(cert: &X509Certificate<'_>) -> Result<[u8; 32], Refusal> {
    digest(&SHA256, cert.public_key().raw).as_ref().try_into().map_err(|_| Refusal::Malformed)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(Refusal::Malformed),
    }
}
