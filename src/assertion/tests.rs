//! Tests of the room: forged tokens, each refused for its own reason, and the cache of keys.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod cache;
mod forged;

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://login.example.org";

/// A provider that answers from memory, or is down.
pub(super) struct FakeSource {
    document: Mutex<Option<Vec<u8>>>,
    fetches: AtomicUsize,
    /// How many times an answer yields to other tasks.
    delay: AtomicUsize,
}

impl FakeSource {
    fn new(keys: &[Value]) -> Arc<FakeSource> {
        let fake = FakeSource { document: Mutex::default(), fetches: AtomicUsize::new(0), delay: AtomicUsize::new(0) };
        fake.publish(keys);
        Arc::new(fake)
    }

    fn publish(&self, keys: &[Value]) {
        *self.document.lock() = Some(json!({ "keys": keys }).to_string().into_bytes());
    }

    fn go_down(&self) {
        *self.document.lock() = None;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    pub(super) async fn fetch(&self) -> Option<Vec<u8>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        for _ in 0..self.delay.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        self.document.lock().clone()
    }
}

fn audience(name: &str) -> AudienceSettings {
    AudienceSettings {
        audience: name.into(),
        workloads: vec!["orchestrator".parse().unwrap()],
        scopes: Some(vec!["mail.read".into()]),
        max_lease: Some(Duration::from_secs(900)),
        revokes: false,
        user: false,
        sign_in: false,
        asks: None,
        operates: false,
        id_jag: false,
    }
}

fn settings() -> IssuerSettings {
    IssuerSettings { audiences: vec![audience("mayfly"), audience("mayfly-ci")], ..IssuerSettings::new("login", ISSUER) }
}

fn assertions(fake: &Arc<FakeSource>) -> Assertions {
    let settings = settings();
    let keys = Keys::fake(&settings.name, Arc::clone(fake));
    Assertions::with_keys(vec![(settings, keys)])
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs tokens.
enum Signer {
    Ec(EcdsaKeyPair, &'static str),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding, &'static str),
    Ed(Ed25519KeyPair),
    Hmac(Vec<u8>),
}

impl Signer {
    fn ec(algorithm: &'static EcdsaSigningAlgorithm, curve: &'static str) -> Signer {
        Signer::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve)
    }

    fn p256() -> Signer {
        Signer::ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    fn p384() -> Signer {
        Signer::ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    fn rs256() -> Signer {
        Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), &RSA_PKCS1_SHA256, "RS256")
    }

    fn ps256() -> Signer {
        Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), &RSA_PSS_SHA256, "PS256")
    }

    fn ed() -> Signer {
        Signer::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn alg(&self) -> &'static str {
        match self {
            Signer::Ec(_, "P-256") => "ES256",
            Signer::Ec(..) => "ES384",
            Signer::Rsa(_, _, alg) => alg,
            Signer::Ed(_) => "EdDSA",
            Signer::Hmac(_) => "HS256",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Signer::Ec(key, curve) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at((key.public_key().as_ref().len() - 1) / 2);
                json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y), "kid": kid })
            }
            Signer::Rsa(key, _, _) => {
                let n = key.public_key().modulus();
                let e = key.public_key().exponent();
                json!({ "kty": "RSA", "n": b64(n.big_endian_without_leading_zero()),
                        "e": b64(e.big_endian_without_leading_zero()), "kid": kid })
            }
            Signer::Ed(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key()), "kid": kid }),
            Signer::Hmac(secret) => json!({ "kty": "oct", "k": b64(secret), "kid": kid }),
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Signer::Ec(key, _) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Signer::Rsa(key, encoding, _) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Signer::Ed(key) => key.sign(message).as_ref().to_vec(),
            Signer::Hmac(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
        }
    }

    /// A compact JWS with exactly these texts.
    fn raw(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        format!("{signed}.{}", b64(self.signature(signed.as_bytes())))
    }

    /// A valid ID token, except that members of `header` and `claims` replace its own. A `null` removes a member.
    fn token(&self, header: &Value, claims: &Value) -> String {
        let header = with(json!({ "alg": self.alg(), "kid": "k", "typ": "JWT" }), header);
        self.raw(&header.to_string(), &with(id_claims(), claims).to_string())
    }
}

fn id_claims() -> Value {
    json!({ "iss": ISSUER, "sub": "alice", "aud": "mayfly", "iat": NOW - 10, "exp": NOW + 600 })
}

/// `base` with the members of `change`. A `null` removes a member; `{"literally": v}` inserts `v`, even if that is `null`.
fn with(mut base: Value, change: &Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        let members = base.as_object_mut().unwrap();
        match value {
            Value::Null => members.remove(name),
            Value::Object(o) if o.contains_key("literally") => members.insert(name.clone(), o["literally"].clone()),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    base
}
