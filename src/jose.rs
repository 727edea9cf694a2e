//! JSON Web Keys: the keys that an issuer publishes, and whether one of them made a signature. The key decides the algorithm; the
//! token does not.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, Jwk, KeyOperations, PublicKeyUse};
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
    /// The keys that cannot be used, each with its reason.
    left_out: Vec<String>,
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
        let mut set = KeySet { keys: Vec::new(), left_out: Vec::new() };
        for (at, value) in keys.into_iter().enumerate() {
            let kid: Option<String> = value.get("kid").and_then(Value::as_str).map(|kid| kid.chars().take(64).collect());
            match usable(value) {
                Ok(key) => set.keys.push(Arc::new(key)),
                Err(why) => set.left_out.push(format!("`{}` {why}", kid.unwrap_or_else(|| format!("keys[{at}]")))),
            }
        }
        Ok(set)
    }

    /// The keys that cannot be used: the `kid` or the position of each, and why.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
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

/// Reads one JWK. Fails unless it is a public key of sufficient size for signatures; the text says why, as the rest of a sentence.
fn usable(mut value: Value) -> Result<Key, String> {
    // A symmetric key, or a private key that was published: every reader of the document could sign with it.
    if value.get("d").is_some() || value.get("k").is_some() {
        return Err("is a secret that was published".into());
    }
    // RFC 9864 names the curve of EdDSA.
    if let Some(alg) = value.get_mut("alg").filter(|alg| *alg == "Ed25519") {
        *alg = "EdDSA".into();
    }
    for integer in ["n", "e"] {
        without_zeros(&mut value, integer);
    }
    let jwk: Jwk = serde_json::from_value(value).map_err(|e| format!("cannot be read: {e}"))?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("is not for signatures (`use`)".into());
    }
    if jwk.common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
        return Err("does not verify (`key_ops`)".into());
    }
    let coordinates = |p: &EllipticCurveKeyParameters, length| match (octets(&p.x), octets(&p.y)) {
        (Some(x), Some(y)) if x == length && y == length => Ok(()),
        _ => Err(format!("has coordinates that are not {length} bytes in base64url")),
    };
    let mut algs = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(p) => match p.curve {
            EllipticCurve::P256 => coordinates(p, 32).map(|()| vec![Algorithm::ES256])?,
            EllipticCurve::P384 => coordinates(p, 48).map(|()| vec![Algorithm::ES384])?,
            _ => return Err("is on a curve that is not supported".into()),
        },
        AlgorithmParameters::RSA(p) => match bits(&p.n) {
            Some(2048..=8192) => RSA_ALGS.to_vec(),
            Some(bits) => return Err(format!("has {bits} bits, and 2048 to 8192 are allowed")),
            None => return Err("has a modulus that is not base64url".into()),
        },
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 && octets(&p.x) == Some(32) => {
            vec![Algorithm::EdDSA]
        }
        _ => return Err("is of a type that is not supported".into()),
    };
    if let Some(only) = jwk.common.key_algorithm {
        let only = Algorithm::try_from(only).map_err(|_| "is for an algorithm that is not supported (`alg`)")?;
        algs.retain(|alg| *alg == only);
    }
    if algs.is_empty() {
        return Err("is of another type than its `alg`".into());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|e| format!("cannot be used: {e}"))?;
    Ok(Key { kid: jwk.common.key_id, algs, key })
}

/// Removes the leading zeros of an integer, which RFC 7518 forbids and some providers publish.
fn without_zeros(jwk: &mut Value, name: &str) {
    let Some(bytes) = jwk.get(name).and_then(Value::as_str).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()) else { return };
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    if let (Some(rest), Some(value)) = (bytes.get(zeros..).filter(|_| zeros > 0), jwk.get_mut(name)) {
        *value = URL_SAFE_NO_PAD.encode(rest).into();
    }
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
