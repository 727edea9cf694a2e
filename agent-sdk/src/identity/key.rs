//! A key that is made in this process and signs in it. It cannot be copied, printed or serialized.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

use super::IdentityError;

/// An ECDSA P-256 key. The cryptographic library owns its memory, and clears it when the last user is dropped.
pub struct Key(Arc<EcdsaKeyPair>);

impl Key {
    /// Generates a key.
    pub fn new() -> Result<Key, IdentityError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| IdentityError::Key)?;
        Ok(Key(Arc::new(pair)))
    }

    /// A PKCS#10 request, DER, with the public key, an empty subject and no attributes: the issuer uses the key alone.
    pub fn csr(&self) -> Result<Vec<u8>, IdentityError> {
        // RFC 2986: version 0, an empty name, the key, no attributes.
        let info = der(0x30, &[&[0x02, 0x01, 0x00, 0x30, 0x00], &self.public()?, &[0xa0, 0x00]]);
        let signature = self.0.sign(&SystemRandom::new(), &info).map_err(|_| IdentityError::Key)?;
        // The first byte of a bit string is the number of unused bits in its last byte.
        let signature = der(0x03, &[&[0], signature.as_ref()]);
        Ok(der(0x30, &[&info, &ECDSA_WITH_SHA256, &signature]))
    }

    /// The key with its certificates, leaf first, for TLS. The key cannot be extracted from it.
    pub(super) fn certified(&self, chain: Vec<CertificateDer<'static>>) -> CertifiedKey {
        CertifiedKey::new(chain, Arc::new(ForTls(Arc::clone(&self.0))))
    }

    /// The key as PKCS#8, DER. Only for a program that hands it to the process that the identity belongs to, or stores it there.
    #[cfg(any(test, feature = "workload-api"))]
    pub fn expose_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        self.pkcs8()
    }

    /// The key as PKCS#8, DER, to be written into the folder that the identity is kept in.
    pub(super) fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let document = self.0.to_pkcs8v1().map_err(|_| IdentityError::Key)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    fn public(&self) -> Result<Vec<u8>, IdentityError> {
        spki(&self.0).ok_or(IdentityError::Key)
    }
}

fn spki(pair: &EcdsaKeyPair) -> Option<Vec<u8>> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    Some(der.as_ref().to_vec())
}

/// `AlgorithmIdentifier` of ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// An element of tag, length and content. Everything encoded here is shorter than 256 bytes.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![tag];
    if length >= 0x80 {
        bytes.push(0x81);
    }
    bytes.push(length);
    bytes.extend(content);
    bytes
}

struct ForTls(Arc<EcdsaKeyPair>);

impl fmt::Debug for ForTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a P-256 key")
    }
}

impl SigningKey for ForTls {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let fits = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        fits.then(|| Box::new(ForTls(Arc::clone(&self.0))) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        spki(&self.0).map(SubjectPublicKeyInfoDer::from)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for ForTls {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        signature.map(|s| s.as_ref().to_vec()).map_err(|_| rustls::Error::General("signing failed".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    #[test]
    fn a_certification_request_is_read_by_another_and_carries_the_key() {
        // The length of a signature varies: each must be encoded correctly.
        for _ in 0..200 {
            let key = Key::new().unwrap();
            let csr = rcgen::CertificateSigningRequestParams::from_der(&key.csr().unwrap().into()).unwrap();
            let params = rcgen::CertificateParams::default();
            let signer = rcgen::KeyPair::generate().unwrap();
            let leaf = csr.signed_by(&rcgen::Issuer::new(params, signer)).unwrap();
            assert!(key.certified(vec![leaf.der().clone()]).keys_match().is_ok());
        }
        let (a, b) = (Key::new().unwrap(), Key::new().unwrap());
        assert_ne!(a.public().unwrap(), b.public().unwrap());
    }

    #[test]
    fn wa8_the_exported_key_is_pkcs8_and_the_same_key() {
        let key = Key::new().unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.expose_pkcs8().unwrap().to_vec()));
        let loaded = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
        assert_eq!(loaded.public_key().unwrap().as_ref(), key.public().unwrap());
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::new().unwrap();
        let secret = key.expose_pkcs8().unwrap();
        let printed = format!("{:?}", key.certified(vec![]));
        assert!(printed.contains("a P-256 key") && !printed.contains(&format!("{:?}", &secret[36..40])), "{printed}");
    }
}
