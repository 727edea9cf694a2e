//! JSON Web Keys: the keys that an issuer publishes, and whether one of them made a signature. The key decides the algorithm; the
//! token does not.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

/// Most keys in one document.
pub(crate) const MAX_KEYS: usize = 100;
/// Most keys that are tried for one signature: an issuer that replaces a key under its name publishes two for a while.
const MAX_TRIES: usize = 2;
const RSA_ALGS: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// The usable keys of one issuer. A set never changes; a newer one replaces it whole.
pub(crate) struct KeySet {
    keys: Vec<Arc<Key>>,
}

/// A usable key.
pub(crate) struct Key {
    kid: Option<String>,
    algs: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why a key document is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeySetError {
    /// The document is not a JSON object with an array `keys`.
    #[error("the key document is not a JSON Web Key Set")]
    NoKeySet,
    /// The document has more than [`MAX_KEYS`] keys.
    #[error("the key document has {0} keys, and {MAX_KEYS} are allowed")]
    TooMany(usize),
}

/// Why no key of the set can have made a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// No key has the id.
    KeyUnknown,
    /// No key is for the algorithm.
    Algorithm,
    /// The signature names no key, and several could have made it.
    Unnamed,
}

impl KeySet {
    /// Reads a JWK Set. A key that cannot be used is left out, and the others are kept.
    pub(crate) fn parse(document: &[u8]) -> Result<KeySet, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let Document { keys } = serde_json::from_slice(document).map_err(|_| KeySetError::NoKeySet)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(keys.len()));
        }
        Ok(KeySet { keys: keys.into_iter().filter_map(usable).map(Arc::new).collect() })
    }

    /// Number of usable keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that may have made a signature: at least one, and at most [`MAX_TRIES`], because anybody can have them tried. With
    /// a `kid` they are the keys of that name. Without one it is the only key of the algorithm.
    pub(crate) fn candidates(&self, kid: Option<&str>, alg: Algorithm) -> Result<Vec<Arc<Key>>, Mismatch> {
        let named = |key: &&Arc<Key>| kid.is_none() || key.kid.as_deref() == kid;
        if kid.is_some() && !self.keys.iter().any(|key| named(&key)) {
            return Err(Mismatch::KeyUnknown);
        }
        let found = self.keys.iter().filter(named).filter(|key| key.algs.contains(&alg)).take(MAX_TRIES).cloned();
        match found.collect::<Vec<_>>() {
            none if none.is_empty() => Err(Mismatch::Algorithm),
            several if kid.is_none() && several.len() > 1 => Err(Mismatch::Unnamed),
            found => Ok(found),
        }
    }
}

impl Key {
    /// Whether this key made a signature, in base64url, over `signed`.
    pub(crate) fn made(&self, alg: Algorithm, signed: &str, signature: &str) -> bool {
        crypto::verify(signature, signed.as_bytes(), &self.key, alg).unwrap_or(false)
    }
}

/// Reads one JWK. Returns `None` unless it is a public key of sufficient size for signatures.
fn usable(value: Value) -> Option<Key> {
    // A symmetric key, or a private key that was published: every reader of the document could sign with it.
    if value.get("d").is_some() || value.get("k").is_some() {
        return None;
    }
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    if jwk.common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
        return None;
    }
    let mut algs = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(p) => match p.curve {
            EllipticCurve::P256 if octets(&p.x) == Some(32) && octets(&p.y) == Some(32) => vec![Algorithm::ES256],
            EllipticCurve::P384 if octets(&p.x) == Some(48) && octets(&p.y) == Some(48) => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::RSA(p) if (2048..=8192).contains(&bits(&p.n)?) => RSA_ALGS.to_vec(),
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 && octets(&p.x) == Some(32) => {
            vec![Algorithm::EdDSA]
        }
        _ => return None,
    };
    if let Some(only) = jwk.common.key_algorithm {
        let only = Algorithm::try_from(only).ok()?;
        algs.retain(|alg| *alg == only);
    }
    if algs.is_empty() {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { kid: jwk.common.key_id, algs, key })
}

/// Length in bytes of a base64url text.
fn octets(text: &str) -> Option<usize> {
    URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| bytes.len())
}

/// Length in bits of a base64url integer, without leading zeros.
fn bits(modulus: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    let first = bytes.get(zeros)?;
    let unused = usize::try_from(first.leading_zeros()).ok()?;
    Some((bytes.len() - zeros) * 8 - unused)
}
