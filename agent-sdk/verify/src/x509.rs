//! X.509-SVIDs: path, profile, binding.

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::SpiffeId;
use std::time::Duration;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, aws_lc_rs as algs};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Binding, BindingOid, Bundle, Principal, Reject, Subject, Target, parse_spiffe_id};

/// Longest chain that is accepted: leaf, intermediates, root.
pub(crate) const MAX_CERTIFICATES: usize = 6;
/// Largest certificate that is accepted, in bytes.
pub(crate) const MAX_CERTIFICATE: usize = 8192;

/// The contents of a verified certificate.
#[derive(Clone, Debug)]
pub struct X509Svid {
    /// The SPIFFE ID.
    pub id: SpiffeId,
    /// The agent, workload or issuer that the SPIFFE ID names.
    pub principal: Principal,
    /// Start of the validity, Unix seconds.
    pub not_before: u64,
    /// End of the validity, Unix seconds.
    pub not_after: u64,
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub key: [u8; 32],
    /// The Subject, a DER `Name`. It identifies nobody here: the SPIFFE ID does.
    pub subject: Vec<u8>,
    /// Key id of the authority that signed it. After verification it is taken from the authority's own certificate; before that,
    /// or if that certificate has no key id, from the leaf. Empty if neither has one.
    pub authority: Vec<u8>,
    /// The binding of an agent; `None` for everybody else.
    pub binding: Option<Binding>,
    /// Its key and every authority of its chain, as cuts would name them.
    pub(crate) subjects: Vec<Subject>,
}

/// Verifies a chain (leaf first, DER) against the bundle of its trust domain, at `now` (Unix seconds).
///
/// This does not check revocation: see [`crate::Live::check`].
pub fn verify_x509(chain: &[CertificateDer<'_>], bundle: &Bundle, oid: &BindingOid, now: u64) -> Result<X509Svid, Reject> {
    let (leaf_der, rest) = chain.split_first().ok_or_else(|| Reject::Malformed("no certificate".into()))?;
    if chain.len() > MAX_CERTIFICATES || chain.iter().any(|c| c.len() > MAX_CERTIFICATE) {
        return Err(Reject::Malformed("the chain is too long or a certificate too large".into()));
    }
    let mut svid = inspect_x509(leaf_der, bundle.trust_domain(), oid)?;
    if svid.id.trust_domain_name() != bundle.trust_domain().as_str() {
        // XV-1: a peer is verified by the bundle of its own trust domain and by no other.
        return Err(Reject::TrustDomain(svid.id.trust_domain_name().to_owned(), bundle.trust_domain().to_string()));
    }
    let roots: Vec<CertificateDer<'_>> = bundle.x509_authorities().iter().map(|d| CertificateDer::from(d.as_slice())).collect();
    let anchors: Vec<_> = roots
        .iter()
        .filter(|root| signing_certificate(root, now).is_ok())
        .filter_map(|root| webpki::anchor_from_trusted_cert(root).ok())
        .collect();
    let untrusted = |e: webpki::Error| match e {
        webpki::Error::CertExpired { .. } => Reject::Expired(svid.not_after),
        webpki::Error::CertNotValidYet { .. } => Reject::NotYetValid(svid.not_before),
        e => Reject::Untrusted(e.to_string()),
    };
    if now >= svid.not_after {
        return Err(Reject::Expired(svid.not_after));
    }
    if anchors.is_empty() {
        return Err(Reject::Untrusted("no root of the bundle is valid now".into()));
    }
    let leaf = EndEntityCert::try_from(leaf_der).map_err(untrusted)?;
    let intermediates: Vec<CertificateDer<'_>> = rest.to_vec();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let path = leaf.verify_for_usage(SIGNATURES, &anchors, &intermediates, time, AnyUsage, None, None).map_err(untrusted)?;
    let mut authorities = Vec::new();
    for intermediate in path.intermediate_certificates() {
        authorities.push(signing_certificate(&intermediate.der(), now)?);
    }
    let root = roots.iter().find(|root| webpki::anchor_from_trusted_cert(root).is_ok_and(|a| &a == path.anchor()));
    authorities.extend(root.map(|root| signing_certificate(root, now)).transpose()?);
    svid.signed_by(authorities);
    Ok(svid)
}

impl X509Svid {
    // T42: a thief of an issuing key can write any authority into a leaf, or none. The authority's own certificate names it
    // reliably, because the authority above signed that certificate.
    fn signed_by(&mut self, authorities: Vec<Vec<u8>>) {
        if let Some(issuing) = authorities.first().filter(|id| !id.is_empty()) {
            self.authority.clone_from(issuing);
        }
        for id in authorities.into_iter().filter(|id| !id.is_empty()) {
            let subject = Target::Authority(id).unsalted();
            if !self.subjects.contains(&subject) {
                self.subjects.push(subject);
            }
        }
    }
}

/// Reads a leaf and checks its profile. No signature is verified.
pub fn inspect_x509(leaf: &CertificateDer<'_>, own: &spiffe::TrustDomain, oid: &BindingOid) -> Result<X509Svid, Reject> {
    let (left, cert) = X509Certificate::from_der(leaf).map_err(|e| Reject::Malformed(e.to_string()))?;
    if !left.is_empty() {
        return Err(Reject::Malformed("bytes after the certificate".into()));
    }
    let profile = |what: &str| Err(Reject::Profile(what.to_owned()));
    let mut ids = Vec::new();
    let mut binding = None;
    let (mut usage_seen, mut authority) = (false, Vec::new());
    // With two extensions of one kind, two readers may see two different certificates.
    cert.extensions_map().map_err(|e| Reject::Malformed(e.to_string()))?;
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                if cert.subject().iter().next().is_none() && !extension.critical {
                    // XL-3.
                    return profile("with an empty subject, the subject alternative name must be critical");
                }
                for name in &san.general_names {
                    match name {
                        GeneralName::URI(uri) => ids.push((*uri).to_owned()),
                        GeneralName::Invalid(..) => return profile("a subject alternative name cannot be read"),
                        _ => {}
                    }
                }
            }
            // XL-4.
            ParsedExtension::BasicConstraints(bc) if bc.ca => return profile("a leaf must have cA=false"),
            ParsedExtension::KeyUsage(usage) => {
                usage_seen = true;
                if !extension.critical || !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
                    // XL-6, XL-7.
                    return profile("key usage must be critical, with digitalSignature and without keyCertSign and cRLSign");
                }
            }
            ParsedExtension::ExtendedKeyUsage(eku) if !(eku.any || eku.client_auth && eku.server_auth) => {
                // XL-9.
                return profile("extended key usage must hold both serverAuth and clientAuth");
            }
            ParsedExtension::AuthorityKeyIdentifier(aki) => {
                authority = aki.key_identifier.as_ref().map(|k| k.0.to_vec()).unwrap_or_default();
            }
            ParsedExtension::ParseError { .. } => return profile("an extension cannot be read"),
            _ => {}
        }
        if extension.oid.iter().is_some_and(|arcs| arcs.eq(oid.arcs().iter().copied())) {
            if extension.critical {
                // XL-10.
                return profile("the binding must not be critical");
            }
            binding = Some(Binding::from_der(extension.value)?);
        }
    }
    if !usage_seen {
        // XL-6.
        return profile("key usage is missing");
    }
    // XL-1.
    let [id] = ids.as_slice() else { return profile("the subject alternative name must have exactly one URI") };
    let id = parse_spiffe_id(id)?;
    if id.path().is_empty() {
        // XL-2.
        return profile("a leaf's SPIFFE ID must have a path");
    }
    let serial: Vec<u8> = cert.raw_serial().to_vec();
    // T32: by RFC 5280 4.1.2.2 a serial number is positive and has at most 20 octets.
    if serial.len() > 20 || serial.iter().all(|b| *b == 0) || serial.first().is_none_or(|b| *b > 0x7f) {
        return profile("the serial number must be positive and have at most 20 octets");
    }
    let validity = cert.validity();
    let (Ok(not_before), Ok(not_after)) =
        (u64::try_from(validity.not_before.timestamp()), u64::try_from(validity.not_after.timestamp()))
    else {
        return profile("the validity begins before 1970");
    };
    let principal = Principal::of(&id, own);
    let bound = check_binding(&principal, binding, oid)?;
    if bound.as_ref().is_some_and(|b| not_after > b.lease_expires_at) {
        // T16.
        return profile("the certificate expires after the lease of its agent");
    }
    let key = sha256(cert.public_key().raw);
    let subjects = vec![Target::Key(key).unsalted(), Target::Authority(authority.clone()).unsalted()];
    let subject = cert.subject().as_raw().to_vec();
    Ok(X509Svid { id, principal, not_before, not_after, serial, key, subject, authority, binding: bound, subjects })
}

/// Checks that an agent has a binding, and that no other principal has one.
pub(crate) fn check_binding(
    principal: &Principal,
    binding: Option<Binding>,
    oid: &BindingOid,
) -> Result<Option<Binding>, Reject> {
    match (principal, binding) {
        (Principal::Agent(agent), Some(binding)) => {
            let own = agent.to_string();
            if binding.chain.contains(&own) {
                return Err(Reject::Profile("an agent is among its own ancestors".into()));
            }
            Ok(Some(binding))
        }
        (Principal::Agent(_), None) => Err(Reject::Unbound(oid.to_string())),
        (Principal::Other, _) | (_, None) => Ok(None),
        (_, Some(_)) => Err(Reject::Profile("only agents may carry a binding".into())),
    }
}

/// Returns the SHA-256 of these bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

// T32: webpki checks neither keyCertSign nor the validity of an anchor. Returns the key id, or an empty one if there is none.
fn signing_certificate(der: &[u8], now: u64) -> Result<Vec<u8>, Reject> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| Reject::Malformed(e.to_string()))?;
    let signs = matches!(cert.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
    let not_after = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
    if !cert.is_ca() || !signs {
        Err(Reject::Untrusted("a signing certificate lacks cA or keyCertSign".into()))
    } else if now >= not_after {
        Err(Reject::Expired(not_after))
    } else {
        Ok(key_id(&cert))
    }
}

fn key_id(cert: &X509Certificate<'_>) -> Vec<u8> {
    let mut ids = cert.extensions().iter().filter_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    ids.next().unwrap_or_default()
}

/// Accepts every extended key usage. Only the leaf has a rule for it, which is checked separately; CA certificates may or may
/// not carry the extension.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

static SIGNATURES: &[&dyn rustls_pki_types::SignatureVerificationAlgorithm] = &[
    algs::ECDSA_P256_SHA256,
    algs::ECDSA_P256_SHA384,
    algs::ECDSA_P384_SHA256,
    algs::ECDSA_P384_SHA384,
    algs::RSA_PKCS1_2048_8192_SHA256,
    algs::RSA_PKCS1_2048_8192_SHA384,
    algs::RSA_PKCS1_2048_8192_SHA512,
    algs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    algs::ED25519,
];
