//! A JWT authority: a key that signs JWT-SVIDs and access tokens.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{BundleError, sha256};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use super::{AuthorityError, key_name};
use crate::denial::Fault;
use crate::keys::keystore::Keystore;
use crate::keys::{LocalKey, Signer};
use crate::state::authority::{Kind, Slot};
use crate::svid::jwt::{Claims, Typ};

/// A key with its encoded header.
pub struct JwtAuthority {
    id: Arc<str>,
    signer: Box<dyn Signer>,
    // The encoded headers: of JWT-SVIDs, and of access tokens.
    svid_header: String,
    access_header: String,
}

impl JwtAuthority {
    /// Makes a key, and stores it.
    pub(super) fn make(keystore: &Keystore) -> Result<JwtAuthority, AuthorityError> {
        let key = KeyPair::generate().map_err(|e| AuthorityError::unusable("a new key", e))?;
        let made = JwtAuthority::of("a new key", &key)?;
        keystore.write(&key_name(Kind::Jwt, &made.id), Zeroizing::new(key.serialize_pem()).as_bytes())?;
        Ok(made)
    }

    /// Loads the key of a recorded authority. Fails if it is missing or is not the recorded one.
    pub(super) fn load(keystore: &Keystore, slot: &Slot) -> Result<JwtAuthority, AuthorityError> {
        let name = key_name(Kind::Jwt, &slot.id);
        let text = keystore.read(&name)?.ok_or_else(|| AuthorityError::unusable(&name, "it is not in the keystore"))?;
        let key = KeyPair::from_pem(&text).map_err(|e| AuthorityError::unusable(&name, e))?;
        let loaded = JwtAuthority::of(&name, &key)?;
        // T46: the public key is derived from the private one, and must be the one that was recorded.
        if loaded.id != slot.id || loaded.signer.point() != slot.public {
            return Err(AuthorityError::unusable(&name, "it is not the key that was recorded"));
        }
        Ok(loaded)
    }

    fn of(name: &str, key: &KeyPair) -> Result<JwtAuthority, AuthorityError> {
        let signer = LocalKey::from_pkcs8(key.serialized_der()).map_err(|e| AuthorityError::unusable(name, e))?;
        let kid = URL_SAFE_NO_PAD.encode(sha256(signer.point()).get(..16).unwrap_or_default());
        // JW-2, JW-4, JW-5: the header has alg, kid and typ, and nothing else.
        let header =
            |typ: &str| URL_SAFE_NO_PAD.encode(serde_json::json!({ "alg": "ES256", "kid": kid, "typ": typ }).to_string());
        let (svid_header, access_header) = (header("JWT"), header("at+jwt"));
        Ok(JwtAuthority { id: kid.into(), signer: Box::new(signer), svid_header, access_header })
    }

    /// Its `kid`.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The slot to record. `ends_at` is in Unix seconds.
    pub(super) fn slot(&self, ends_at: u64) -> Slot {
        Slot::new(Kind::Jwt, Arc::clone(&self.id), self.signer.point().to_vec(), ends_at)
    }

    /// Encodes the claims, compares them with what was to be signed, and signs. Returns a compact JWS (JW-1). Fails if the claims
    /// differ.
    pub(super) fn sign<C: Claims>(&self, unsigned: &C) -> Result<String, Fault> {
        let fault = |what: &dyn std::fmt::Display| Fault::new("sign jwt", what);
        let claims = serde_json::to_vec(unsigned).map_err(|e| fault(&e))?;
        let said: C::Said = serde_json::from_slice(&claims).map_err(|e| fault(&e))?;
        if said != *unsigned.said() {
            return Err(fault(&"the claims are not what was to be signed"));
        }
        let header = match unsigned.typ() {
            Typ::Svid => &self.svid_header,
            Typ::AccessToken => &self.access_header,
        };
        let mut token = format!("{header}.");
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        let signature = self.signer.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The public key in the bundle, from its `kid` and its uncompressed P-256 point. Fails if the point is malformed.
pub(super) fn public(kid: &str, point: &[u8]) -> Result<mayfly_verify::JwtAuthority, BundleError> {
    let coordinate = |from: usize| point.get(from..from + 32).unwrap_or_default();
    mayfly_verify::JwtAuthority::es256(kid, coordinate(1), coordinate(33))
}
