//! Room 6: keys. The trait of a holder of a signing key, and keys in the memory of this process.

pub mod keystore;
pub mod rsa;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::denial::Fault;

/// Holds an ECDSA P-256 key and signs with it. All ECDSA signatures of this issuer are made through this trait.
pub trait Signer: Send + Sync {
    /// The public key: an uncompressed P-256 point, 65 bytes.
    fn point(&self) -> &[u8];

    /// The signature of a message: `r` and `s`, 32 bytes each.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Fault>;
}

/// A key in the memory of this process.
pub struct LocalKey {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl LocalKey {
    /// A key from PKCS#8 in DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<LocalKey, String> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|e| e.to_string())?;
        Ok(LocalKey { key, random: SystemRandom::new() })
    }
}

impl Signer for LocalKey {
    fn point(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Fault> {
        let signature = self.key.sign(&self.random, message).map_err(|e| Fault::new("sign", e))?;
        signature.as_ref().try_into().map_err(|e| Fault::new("sign", e))
    }
}
