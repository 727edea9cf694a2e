//! X.509-SVIDs: path, profile, binding.

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::SpiffeId;
use std::time::Duration;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, aws_lc_rs as algs};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Binding, BindingOid, Bundle, Principal, Reject, Subject, Target, parse_spiffe_id};

/// Longest chain that is looked at: leaf, intermediates, root.
pub(crate) const MAX_CERTIFICATES: usize = 6;
/// Largest certificate that is looked at, in bytes.
pub(crate) const MAX_CERTIFICATE: usize = 8192;

/// What a certificate proved.
#[derive(Clone, Debug)]
pub struct X509Svid {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Whom that stands for.
    pub principal: Principal,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub key: [u8; 32],
    /// Key id of the authority that signed it: once verified, as that authority's certificate has it, and only before, or
    /// where that has none, as the leaf itself claims. Empty where neither says.
    pub authority: Vec<u8>,
    /// Whom the agent acts for; agents have one and nobody else does.
    pub binding: Option<Binding>,
    /// Its key and every authority of its chain, as subjects of cuts.
    pub(crate) subjects: Vec<Subject>,
}

/// Verifies a chain (leaf first, DER) against the bundle of its trust domain, at `now` (unix seconds).
///
/// Cuts are not looked at: see [`crate::Live::check`].
pub fn verify_x509(chain: &[CertificateDer<'_>], bundle: &Bundle, oid: &BindingOid, now: u64) -> Result<X509Svid, Reject> {
    let (leaf_der, rest) = chain.split_first().ok_or_else(|| Reject::Malformed("no certificate".into()))?;
    if chain.len() > MAX_CERTIFICATES || chain.iter().any(|c| c.len() > MAX_CERTIFICATE) {
        return Err(Reject::Malformed("the chain is too long or a certificate too large".into()));
    }
    let mut svid = inspect_x509(leaf_der, bundle.trust_domain(), oid)?;
    if svid.id.trust_domain_name() != bundle.trust_domain().as_str() {
        // XV-1: only the bundle of the peer's own trust domain.
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
    // T42: whoever stole an issuing key writes any authority into a leaf, or none. What signs is told by its own certificate,
    // which the authority above it vouches for.
    fn signed_by(&mut self, authorities: Vec<Vec<u8>>) {
        if let Some(issuing) = authorities.first().filter(|id| !id.is_empty()) {
            self.authority.clone_from(issuing);
        }
        for id in authorities.into_iter().filter(|id| !id.is_empty()) {
            let subject = Target::Authority(id).subject();
            if !self.subjects.contains(&subject) {
                self.subjects.push(subject);
            }
        }
    }
}

/// Reads a leaf and checks its profile. Proves nothing: no signature is looked at.
pub fn inspect_x509(leaf: &CertificateDer<'_>, own: &spiffe::TrustDomain, oid: &BindingOid) -> Result<X509Svid, Reject> {
    let (left, cert) = X509Certificate::from_der(leaf).map_err(|e| Reject::Malformed(e.to_string()))?;
    if !left.is_empty() {
        return Err(Reject::Malformed("bytes after the certificate".into()));
    }
    let profile = |what: &str| Err(Reject::Profile(what.to_owned()));
    let mut ids = Vec::new();
    let mut binding = None;
    let (mut usage_seen, mut authority) = (false, Vec::new());
    // Duplicate extensions make the certificate mean two things.
    cert.extensions_map().map_err(|e| Reject::Malformed(e.to_string()))?;
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                if cert.subject().iter().next().is_none() && !extension.critical {
                    return profile("XL-3: an empty subject needs a critical subject alternative name");
                }
                for name in &san.general_names {
                    match name {
                        GeneralName::URI(uri) => ids.push((*uri).to_owned()),
                        GeneralName::Invalid(..) => return profile("a subject alternative name is unreadable"),
                        _ => {}
                    }
                }
            }
            ParsedExtension::BasicConstraints(bc) if bc.ca => return profile("XL-4: a leaf has cA=false"),
            ParsedExtension::KeyUsage(usage) => {
                usage_seen = true;
                if !extension.critical || !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
                    return profile("XL-6, XL-7: key usage is critical, digitalSignature, neither keyCertSign nor cRLSign");
                }
            }
            ParsedExtension::ExtendedKeyUsage(eku) if !(eku.any || eku.client_auth && eku.server_auth) => {
                return profile("XL-9: extended key usage holds both serverAuth and clientAuth");
            }
            ParsedExtension::AuthorityKeyIdentifier(aki) => {
                authority = aki.key_identifier.as_ref().map(|k| k.0.to_vec()).unwrap_or_default();
            }
            ParsedExtension::ParseError { .. } => return profile("an extension is unreadable"),
            _ => {}
        }
        if extension.oid.iter().is_some_and(|arcs| arcs.eq(oid.arcs().iter().copied())) {
            if extension.critical {
                return profile("XL-10: the binding is not critical");
            }
            binding = Some(Binding::from_der(extension.value)?);
        }
    }
    if !usage_seen {
        return profile("XL-6: key usage is missing");
    }
    let [id] = ids.as_slice() else { return profile("XL-1: exactly one URI in the subject alternative name") };
    let id = parse_spiffe_id(id)?;
    if id.path().is_empty() {
        return profile("XL-2: a leaf's SPIFFE ID has a path");
    }
    let serial: Vec<u8> = cert.raw_serial().to_vec();
    // T32: RFC 5280 4.1.2.2, positive and at most 20 octets.
    if serial.len() > 20 || serial.iter().all(|b| *b == 0) || serial.first().is_none_or(|b| *b > 0x7f) {
        return profile("XL-11: the serial number is positive and has at most 20 octets");
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
        return profile("T16: the certificate outlives its lease");
    }
    let key = sha256(cert.public_key().raw);
    let subjects = vec![Target::Key(key).subject(), Target::Authority(authority.clone()).subject()];
    Ok(X509Svid { id, principal, not_before, not_after, serial, key, authority, binding: bound, subjects })
}

/// An agent has a binding, and nobody else does.
pub(crate) fn check_binding(
    principal: &Principal,
    binding: Option<Binding>,
    oid: &BindingOid,
) -> Result<Option<Binding>, Reject> {
    match (principal, binding) {
        (Principal::Agent(agent), Some(binding)) => {
            let own = agent.to_string();
            if binding.chain.contains(&own) {
                return Err(Reject::Profile("an agent stands in its own chain".into()));
            }
            Ok(Some(binding))
        }
        (Principal::Agent(_), None) => Err(Reject::Unbound(oid.to_string())),
        (Principal::Other, _) | (_, None) => Ok(None),
        (_, Some(_)) => Err(Reject::Profile("only agents carry a binding".into())),
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

// T32: webpki asks neither for keyCertSign nor for an anchor's own dates. Gives the key id, empty where there is none.
fn signing_certificate(der: &[u8], now: u64) -> Result<Vec<u8>, Reject> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| Reject::Malformed(e.to_string()))?;
    let signs = matches!(cert.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
    let not_after = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
    match () {
        () if !cert.is_ca() || !signs => Err(Reject::Untrusted("a signing certificate lacks cA or keyCertSign".into())),
        () if now >= not_after => Err(Reject::Expired(not_after)),
        () => Ok(key_id(&cert)),
    }
}

fn key_id(cert: &X509Certificate<'_>) -> Vec<u8> {
    let mut ids = cert.extensions().iter().filter_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    ids.next().unwrap_or_default()
}

/// The profile's rule on extended key usage is checked on the leaf; CA certificates may restrict it or not.
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
