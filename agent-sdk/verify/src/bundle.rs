//! The trust bundle: the public keys of a trust domain's authorities, in the SPIFFE bundle format.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value, json};
use spiffe::TrustDomain;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Most keys a bundle may hold. A larger one is refused, because each verification searches them.
pub(crate) const MAX_KEYS: usize = 100;

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The text is not a JSON object with a `keys` array (Bundle 4.1.3).
    #[error("not a SPIFFE bundle: {0}")]
    Malformed(String),
    /// The bundle holds more than 100 keys.
    #[error("the bundle has {0} keys, and {MAX_KEYS} are allowed")]
    TooManyKeys(usize),
    /// A key cannot be expressed as a JWK.
    #[error("the key cannot be published: {0}")]
    Key(String),
}

/// A key that verifies JWT-SVIDs.
#[derive(Clone)]
pub struct JwtAuthority {
    kid: String,
    jwk: Map<String, Value>,
    key: Key,
    algorithms: Vec<Alg>,
}

#[derive(Clone)]
enum Key {
    /// For every algorithm but ES512.
    Jose(DecodingKey),
    /// An uncompressed point on P-521.
    P521(Vec<u8>),
}

/// An algorithm of a JWT-SVID (JWT-SVID 2.1), in the order of their preference for a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alg {
    /// One that `jsonwebtoken` knows.
    Jose(Algorithm),
    /// ECDSA on P-521 with SHA-512.
    Es512,
}

impl Alg {
    /// Reads the name of an algorithm that a JWT-SVID may have.
    pub(crate) fn of(name: &str) -> Option<Alg> {
        if name == "ES512" {
            return Some(Alg::Es512);
        }
        let alg: Algorithm = name.parse().ok()?;
        let symmetric_or_edwards = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512, Algorithm::EdDSA].contains(&alg);
        (!symmetric_or_edwards).then_some(Alg::Jose(alg))
    }

    fn name(self) -> String {
        match self {
            Alg::Jose(alg) => format!("{alg:?}"),
            Alg::Es512 => "ES512".into(),
        }
    }
}

impl JwtAuthority {
    /// Makes an ES256 key from the coordinates of its point, 32 bytes each.
    pub fn es256(kid: &str, x: &[u8], y: &[u8]) -> Result<JwtAuthority, BundleError> {
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            "kid": kid, "use": "jwt-svid" });
        match jwk {
            Value::Object(map) => JwtAuthority::from_jwk(map).ok_or_else(|| BundleError::Key("not a P-256 point".into())),
            _ => Err(BundleError::Key("not an object".into())),
        }
    }

    /// Makes a key for RS256 alone from a `SubjectPublicKeyInfo` in DER. Fails unless it is an RSA key of 2048 bits or more.
    pub fn rs256(kid: &str, spki: &[u8]) -> Result<JwtAuthority, BundleError> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| BundleError::Key("it cannot be read".into()))?;
        let mut jwk = jwk_of(&spki)?;
        for (name, value) in [("kid", kid), ("use", "jwt-svid"), ("alg", "RS256")] {
            jwk.insert(name.into(), value.into());
        }
        JwtAuthority::from_jwk(jwk).ok_or_else(|| BundleError::Key("no RSA key of 2048 bits or more".into()))
    }

    /// Returns `None` if the key cannot verify JWT-SVIDs. Such a key is left out, and the rest of the bundle is kept.
    fn from_jwk(map: Map<String, Value>) -> Option<JwtAuthority> {
        let kid = map.get("kid")?.as_str().filter(|k| !k.is_empty() && k.len() <= 256)?.to_owned();
        let mut plain = map.clone();
        // SPIFFE's values of `use` are unknown to RFC 7517. `alg` and `key_ops` are read below.
        for name in ["use", "alg", "key_ops"] {
            plain.remove(name);
        }
        // RFC 7517 4.3: a key with `key_ops` is used for those operations only.
        if map.get("key_ops").is_some_and(|ops| !ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"))) {
            return None;
        }
        let jwk: Jwk = serde_json::from_value(Value::Object(plain)).ok()?;
        let mut key = None;
        // T47: the algorithms follow from the key, never from a token's header.
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => vec![Alg::Jose(Algorithm::ES256)],
                EllipticCurve::P384 => vec![Alg::Jose(Algorithm::ES384)],
                EllipticCurve::P521 => {
                    key = Some(Key::P521(point_521(&ec.x, &ec.y)?));
                    vec![Alg::Es512]
                }
                _ => return None,
            },
            AlgorithmParameters::RSA(rsa) => {
                if URL_SAFE_NO_PAD.decode(&rsa.n).ok()?.len() < 256 {
                    return None;
                }
                [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]
                    .map(Alg::Jose)
                    .to_vec()
            }
            _ => return None,
        };
        // RFC 7517 4.4: a key with an `alg` verifies no signature of another algorithm.
        if let Some(only) = map.get("alg") {
            let only = Alg::of(only.as_str()?)?;
            algorithms.retain(|alg| *alg == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        let key = match key {
            Some(key) => key,
            None => Key::Jose(DecodingKey::from_jwk(&jwk).ok()?),
        };
        Some(JwtAuthority { kid, key, jwk: map, algorithms })
    }

    /// The key id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Whether this key made a signature, in base64url, over `signed`, with an algorithm that it is for.
    pub(crate) fn made(&self, alg: Alg, signed: &str, signature: &str) -> bool {
        if !self.algorithms.contains(&alg) {
            return false;
        }
        match (&self.key, alg) {
            (Key::Jose(key), Alg::Jose(alg)) => {
                jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, alg).unwrap_or(false)
            }
            (Key::P521(point), Alg::Es512) => URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
                UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(signed.as_bytes(), &signature).is_ok()
            }),
            _ => false,
        }
    }

    /// The key as RFC 7517 has it, with `alg` and `use: sig`, for OIDC relying parties.
    pub fn oidc_jwk(&self) -> Value {
        let mut jwk = self.jwk.clone();
        jwk.insert("use".into(), "sig".into());
        if let Some(alg) = self.algorithms.first() {
            jwk.insert("alg".into(), alg.name().into());
        }
        Value::Object(jwk)
    }
}

/// An uncompressed point of P-521 from its coordinates, 66 bytes each (RFC 7518 6.2.1.2).
fn point_521(x: &str, y: &str) -> Option<Vec<u8>> {
    let coordinate = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == 66);
    Some([vec![4], coordinate(x)?, coordinate(y)?].concat())
}

/// The bundle of one trust domain. Bundles of different trust domains are never merged.
#[derive(Clone)]
pub struct Bundle {
    trust_domain: TrustDomain,
    x509: Vec<Vec<u8>>,
    jwt: Vec<JwtAuthority>,
    sequence: u64,
    refresh_hint: u64,
}

impl Bundle {
    /// Makes a bundle of DER root certificates and JWT keys. `sequence` changes with the content; `refresh_hint` is in seconds.
    pub fn new(
        trust_domain: TrustDomain,
        x509: Vec<Vec<u8>>,
        jwt: Vec<JwtAuthority>,
        sequence: u64,
        refresh_hint: u64,
    ) -> Bundle {
        Bundle { trust_domain, x509, jwt, sequence, refresh_hint }
    }

    /// Reads a SPIFFE bundle document. Keys of an unknown use or type are left out, the rest is kept (Bundle 4.2, JWT-SVID 6.2).
    pub fn from_json(trust_domain: TrustDomain, text: &[u8]) -> Result<Bundle, BundleError> {
        let (doc, keys) = read(text)?;
        let number = |name| doc.get(name).and_then(Value::as_u64).unwrap_or(0);
        let mut bundle = Bundle::new(trust_domain, vec![], vec![], number("spiffe_sequence"), number("spiffe_refresh_hint"));
        for key in keys.iter().filter_map(Value::as_object) {
            match key.get("use").and_then(Value::as_str) {
                // X509-SVID 6.2: only the first entry of x5c counts; a key without x5c is ignored.
                Some("x509-svid") => {
                    let first = key.get("x5c").and_then(Value::as_array).and_then(|a| a.first()).and_then(Value::as_str);
                    bundle.x509.extend(first.and_then(|b64| STANDARD.decode(b64).ok()));
                }
                Some("jwt-svid") => bundle.jwt.extend(JwtAuthority::from_jwk(key.clone())),
                _ => {}
            }
        }
        Ok(bundle)
    }

    /// Reads a JWK set from a Workload API, which holds JWT keys only. `use` may be missing there (SPIRE omits it), but if it is
    /// present it must be `jwt-svid` (CL-7).
    pub fn from_jwk_set(trust_domain: TrustDomain, text: &[u8]) -> Result<Bundle, BundleError> {
        let (_, keys) = read(text)?;
        let mut bundle = Bundle::new(trust_domain, vec![], vec![], 0, 0);
        for key in keys.into_iter().filter_map(|key| if let Value::Object(key) = key { Some(key) } else { None }) {
            if key.get("use").is_none_or(|of| of == "jwt-svid") {
                bundle.jwt.extend(JwtAuthority::from_jwk(key));
            }
        }
        Ok(bundle)
    }

    /// Writes the SPIFFE bundle document with both kinds of keys (clauses BU-1 to BU-7).
    pub fn to_json(&self) -> Result<Value, BundleError> {
        let mut keys = Vec::new();
        for der in &self.x509 {
            let mut jwk = public_jwk(der)?;
            // X509-SVID 6.1: no kid, exactly one x5c, in standard base64.
            jwk.insert("use".into(), "x509-svid".into());
            jwk.insert("x5c".into(), json!([STANDARD.encode(der)]));
            keys.push(Value::Object(jwk));
        }
        keys.extend(self.jwt.iter().map(|a| Value::Object(a.jwk.clone())));
        Ok(json!({ "keys": keys, "spiffe_sequence": self.sequence, "spiffe_refresh_hint": self.refresh_hint }))
    }

    /// Writes a plain JWK set of the JWT keys, for OIDC relying parties.
    pub fn oidc_jwks(&self) -> Value {
        json!({ "keys": self.jwt.iter().map(JwtAuthority::oidc_jwk).collect::<Vec<_>>() })
    }

    /// The trust domain that the bundle belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificates, DER.
    pub fn x509_authorities(&self) -> &[Vec<u8>] {
        &self.x509
    }

    /// The keys that verify JWT-SVIDs.
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt
    }

    /// A number that changes with the content and never decreases; 0 if the publisher gives none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seconds after which the publisher wants to be asked again; 0 if it gives none.
    pub fn refresh_hint(&self) -> u64 {
        self.refresh_hint
    }
}

/// Splits a document into its other members and its keys, of which there are at most [`MAX_KEYS`].
fn read(text: &[u8]) -> Result<(Map<String, Value>, Vec<Value>), BundleError> {
    let mut doc: Map<String, Value> = serde_json::from_slice(text).map_err(|e| BundleError::Malformed(e.to_string()))?;
    match doc.remove("keys") {
        Some(Value::Array(keys)) if keys.len() > MAX_KEYS => Err(BundleError::TooManyKeys(keys.len())),
        Some(Value::Array(keys)) => Ok((doc, keys)),
        _ => Err(BundleError::Malformed("no `keys` array".into())),
    }
}

fn public_jwk(der: &[u8]) -> Result<Map<String, Value>, BundleError> {
    let key = |what: &str| BundleError::Key(what.to_owned());
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| key("it is not a certificate"))?;
    jwk_of(cert.public_key())
}

fn jwk_of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Map<String, Value>, BundleError> {
    let key = |what: &str| BundleError::Key(what.to_owned());
    let jwk = match spki.parsed().map_err(|_| key("it cannot be read"))? {
        PublicKey::EC(point) => {
            let (crv, size) = match point.key_size() {
                256 => ("P-256", 32),
                384 => ("P-384", 48),
                _ => return Err(key("it is neither P-256 nor P-384")),
            };
            let data = point.data();
            let coordinate = |from: usize| data.get(from..from + size).map(|c| URL_SAFE_NO_PAD.encode(c));
            let (x, y) = coordinate(1).zip(coordinate(1 + size)).ok_or_else(|| key("its point is compressed"))?;
            json!({ "kty": "EC", "crv": crv, "x": x, "y": y })
        }
        PublicKey::RSA(rsa) => {
            let trim = |b: &[u8]| URL_SAFE_NO_PAD.encode(b.iter().skip_while(|b| **b == 0).copied().collect::<Vec<u8>>());
            json!({ "kty": "RSA", "n": trim(rsa.modulus), "e": trim(rsa.exponent) })
        }
        _ => return Err(key("it is neither EC nor RSA")),
    };
    match jwk {
        Value::Object(map) => Ok(map),
        _ => Err(key("not an object")),
    }
}
