//! A JWT authority: a key that signs JWT-SVIDs and access tokens, with ES256 or with RS256.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{BundleError, sha256};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use super::{AuthorityError, key_name};
use crate::denial::Fault;
use crate::keys::keystore::Keystore;
use crate::keys::rsa::RsaKey;
use crate::keys::{LocalKey, Signer};
use crate::state::authority::{Kind, Slot};
use crate::svid::jwt::{Claims, Typ};

/// A key with its encoded header.
pub struct JwtAuthority {
    id: Arc<str>,
    key: Key,
    // The encoded headers: of JWT-SVIDs, of access tokens, of introspection responses, and of ID-JAGs.
    svid_header: String,
    access_header: String,
    introspection_header: String,
    id_jag_header: String,
}

/// What signs.
enum Key {
    Es256(Box<dyn Signer>),
    Rs256(RsaKey),
}

impl Key {
    fn generate(kind: Kind) -> Result<(Key, Zeroizing<String>), String> {
        if kind == Kind::Rs256 {
            let (key, der) = RsaKey::generate()?;
            return Ok((Key::Rs256(key), Zeroizing::new(super::pem("PRIVATE KEY", &der))));
        }
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        Ok((Key::es256(&key)?, Zeroizing::new(key.serialize_pem())))
    }

    fn read(kind: Kind, text: &str) -> Result<Key, String> {
        if kind == Kind::Rs256 {
            let der = pem::parse(text).map_err(|e| e.to_string())?;
            let der = Zeroizing::new(der.into_contents());
            return RsaKey::from_pkcs8(&der).map(Key::Rs256);
        }
        Key::es256(&KeyPair::from_pem(text).map_err(|e| e.to_string())?)
    }

    fn es256(key: &KeyPair) -> Result<Key, String> {
        Ok(Key::Es256(Box::new(LocalKey::from_pkcs8(key.serialized_der())?)))
    }

    fn kind(&self) -> Kind {
        match self {
            Key::Es256(_) => Kind::Jwt,
            Key::Rs256(_) => Kind::Rs256,
        }
    }

    /// As [`Slot::public`] has it.
    fn public(&self) -> &[u8] {
        match self {
            Key::Es256(key) => key.point(),
            Key::Rs256(key) => key.public(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        match self {
            Key::Es256(key) => key.sign(message).map(Vec::from),
            Key::Rs256(key) => key.sign(message),
        }
    }
}

impl JwtAuthority {
    /// Makes a key for this kind, and stores it.
    pub(super) fn make(keystore: &Keystore, kind: Kind) -> Result<JwtAuthority, AuthorityError> {
        let (key, pem) = Key::generate(kind).map_err(|e| AuthorityError::unusable("a new key", e))?;
        let made = JwtAuthority::of(key);
        keystore.write(&key_name(kind, &made.id), pem.as_bytes())?;
        Ok(made)
    }

    /// Loads the key of a recorded authority. Fails if it is missing or is not the recorded one.
    pub(super) fn load(keystore: &Keystore, slot: &Slot) -> Result<JwtAuthority, AuthorityError> {
        let name = key_name(slot.kind, &slot.id);
        let text = keystore.read(&name)?.ok_or_else(|| AuthorityError::unusable(&name, "it is not in the keystore"))?;
        let loaded = JwtAuthority::of(Key::read(slot.kind, &text).map_err(|e| AuthorityError::unusable(&name, e))?);
        // T46: the public key is derived from the private one, and must be the one that was recorded.
        if loaded.id != slot.id || loaded.key.public() != slot.public {
            return Err(AuthorityError::unusable(&name, "it is not the key that was recorded"));
        }
        Ok(loaded)
    }

    fn of(key: Key) -> JwtAuthority {
        let kid = URL_SAFE_NO_PAD.encode(sha256(key.public()).get(..16).unwrap_or_default());
        let alg = if key.kind() == Kind::Rs256 { "RS256" } else { "ES256" };
        // JW-2, JW-4, JW-5: the header has alg, kid and typ, and nothing else.
        let header = |typ: &str| URL_SAFE_NO_PAD.encode(serde_json::json!({ "alg": alg, "kid": kid, "typ": typ }).to_string());
        let (svid_header, access_header) = (header("JWT"), header("at+jwt"));
        let (introspection_header, id_jag_header) = (header("token-introspection+jwt"), header("oauth-id-jag+jwt"));
        JwtAuthority { id: kid.into(), key, svid_header, access_header, introspection_header, id_jag_header }
    }

    /// Its `kid`.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The slot to record. `ends_at` is in Unix seconds.
    pub(super) fn slot(&self, ends_at: u64) -> Slot {
        Slot::new(self.key.kind(), Arc::clone(&self.id), self.key.public().to_vec(), ends_at)
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
            Typ::Introspection => &self.introspection_header,
            Typ::IdJag => &self.id_jag_header,
        };
        let mut token = format!("{header}.");
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        let signature = self.key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The public key in the bundle. Fails if what is recorded is malformed.
pub(super) fn public(slot: &Slot) -> Result<mayfly_verify::JwtAuthority, BundleError> {
    if slot.kind == Kind::Rs256 {
        return mayfly_verify::JwtAuthority::rs256(&slot.id, &slot.public);
    }
    let coordinate = |from: usize| slot.public.get(from..from + 32).unwrap_or_default();
    mayfly_verify::JwtAuthority::es256(&slot.id, coordinate(1), coordinate(33))
}
