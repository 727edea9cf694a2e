//! Room 1: the key that is to be certified. A certification request proves that its sender holds the key; nothing else of it is
//! used.

use mayfly_verify::sha256;
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key::PublicKey as Parsed;

use crate::denial::{Denial, Fault};

/// A key that is to be certified.
#[derive(Clone, Debug)]
pub enum Key {
    /// As it came: a PKCS#10 request in DER, of which nothing is proved yet.
    Request(Vec<u8>),
    /// The holder has signed with it.
    Proved(PublicKey),
}

impl Key {
    /// Proves that the sender holds the key.
    pub fn prove(&mut self) -> Result<(), Denial> {
        if let Key::Request(der) = self {
            *self = Key::Proved(verify(der)?);
        }
        Ok(())
    }

    /// The key, once it is proved.
    pub fn proved(&self) -> Result<&PublicKey, Fault> {
        match self {
            Key::Proved(key) => Ok(key),
            Key::Request(_) => Err(Fault::new("certify", "a key that was not proved")),
        }
    }

    /// A key of which only the SHA-256 is known, for judging without a request. Nothing can be signed for it.
    pub fn known_by_digest(digest: [u8; 32]) -> Key {
        Key::Proved(PublicKey { spki: Vec::new(), digest })
    }
}

/// Largest request that is read, in bytes.
pub const MAX: usize = 4096;

/// A public key whose holder has signed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    digest: [u8; 32],
}

impl PublicKey {
    /// DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// Verifies a PKCS#10 request in DER (RFC 2986). T02: subject and requested extensions are ignored, whatever they say.
pub fn verify(der: &[u8]) -> Result<PublicKey, Denial> {
    let bad = |what: &str| Denial::malformed("CSR_MALFORMED", format!("the certification request {what}"));
    if der.is_empty() || der.len() > MAX {
        return Err(bad("is missing or over 4 KiB: send PKCS#10 in DER"));
    }
    let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| bad("is not PKCS#10 in DER"))?;
    if !rest.is_empty() {
        return Err(bad("is followed by other bytes"));
    }
    let spki = &csr.certification_request_info.subject_pki;
    match spki.parsed() {
        Ok(Parsed::EC(point)) if matches!(point.key_size(), 256 | 384) => {}
        Ok(Parsed::RSA(rsa)) if (2048..=4096).contains(&rsa.key_size()) => {}
        // Envoy refuses Ed25519 leaves; P-256 is what everybody takes.
        _ => return Err(bad("holds a key that is neither P-256, P-384 nor RSA of 2048 to 4096 bits")),
    }
    csr.verify_signature()
        .map_err(|_| Denial::malformed("CSR_SIGNATURE", "the certification request is not signed by its own key"))?;
    Ok(PublicKey { spki: spki.raw.to_vec(), digest: sha256(spki.raw) })
}
