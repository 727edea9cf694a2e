//! An RSA key in the memory of this process, for relying parties that verify only RS256.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use zeroize::Zeroizing;

use crate::denial::Fault;

/// An RSA key that signs with RS256 (RSASSA-PKCS1-v1_5 with SHA-256).
pub struct RsaKey {
    key: KeyPair,
    random: SystemRandom,
    public: Vec<u8>,
}

impl RsaKey {
    /// Makes a key of 2048 bits. Returns it with its PKCS#8 in DER. Takes up to a second: not for async code.
    pub fn generate() -> Result<(RsaKey, Zeroizing<Vec<u8>>), String> {
        let key = KeyPair::generate(KeySize::Rsa2048).map_err(|e| e.to_string())?;
        let der: Pkcs8V1Der<'_> = key.as_der().map_err(|e| e.to_string())?;
        let der = Zeroizing::new(der.as_ref().to_vec());
        Ok((RsaKey::of(key)?, der))
    }

    /// A key from PKCS#8 in DER. Fails if it has fewer than 2048 bits.
    pub fn from_pkcs8(der: &[u8]) -> Result<RsaKey, String> {
        RsaKey::of(KeyPair::from_pkcs8(der).map_err(|e| e.to_string())?)
    }

    fn of(key: KeyPair) -> Result<RsaKey, String> {
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|e| e.to_string())?;
        let public = public.as_ref().to_vec();
        Ok(RsaKey { key, random: SystemRandom::new(), public })
    }

    /// The public key: a `SubjectPublicKeyInfo` in DER.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The signature of a message, as long as the modulus.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature).map_err(|e| Fault::new("sign", e))?;
        Ok(signature)
    }
}
