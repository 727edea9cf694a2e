//! The keys of a bundle, and the tokens that each may have signed.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_jwt};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;

struct Signer {
    key: EcdsaKeyPair,
    curve: &'static str,
    alg: &'static str,
}

impl Signer {
    fn new(kind: &'static EcdsaSigningAlgorithm, curve: &'static str, alg: &'static str) -> Signer {
        Signer { key: EcdsaKeyPair::generate(kind).unwrap(), curve, alg }
    }

    fn jwk(&self, changes: &Value) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at((point.len() - 1) / 2);
        let mut jwk = json!({ "kty": "EC", "crv": self.curve, "kid": "k", "use": "jwt-svid",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) });
        jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        jwk
    }

    fn token(&self, alg: &str) -> String {
        let header = json!({ "alg": alg, "kid": "k", "typ": "JWT" }).to_string();
        let claims = json!({ "sub": "spiffe://td/workload/w", "aud": "https://x", "iat": NOW, "exp": NOW + 300 }).to_string();
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn code(jwk: &Value, token: &str) -> &'static str {
    let td = TrustDomain::new("td").unwrap();
    let bundle = Bundle::from_json(td, json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    verify_jwt(token, "https://x", &bundle, &BindingOid::default(), NOW).map_or_else(|e| e.code(), |_| "ok")
}

fn signers() -> [Signer; 3] {
    [
        Signer::new(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", "ES256"),
        Signer::new(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", "ES384"),
        Signer::new(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521", "ES512"),
    ]
}

#[test]
fn jv1_each_curve_verifies_its_own_algorithm_and_no_other() {
    for signer in signers() {
        for alg in ["ES256", "ES384", "ES512", "RS256", "PS512"] {
            let expected = if alg == signer.alg { "ok" } else { "CREDENTIAL_UNTRUSTED" };
            assert_eq!(code(&signer.jwk(&json!({})), &signer.token(alg)), expected, "{} {alg}", signer.curve);
        }
        let mut token = signer.token(signer.alg).into_bytes();
        let last = token.len() - 20;
        token[last] = if token[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(code(&signer.jwk(&json!({})), &String::from_utf8(token).unwrap()), "CREDENTIAL_UNTRUSTED");
    }
}

#[test]
fn t49_a_key_is_for_what_it_says_and_for_nothing_else() {
    for signer in signers() {
        let token = signer.token(signer.alg);
        for good in [json!({ "alg": signer.alg }), json!({ "key_ops": ["verify"] }), json!({ "key_ops": ["sign", "verify"] })] {
            assert_eq!(code(&signer.jwk(&good), &token), "ok", "{good}");
        }
        for bad in [
            json!({ "alg": "RS256" }),
            json!({ "alg": "none" }),
            json!({ "alg": 1 }),
            json!({ "key_ops": [] }),
            json!({ "key_ops": ["sign"] }),
            json!({ "key_ops": "verify" }),
            json!({ "x": "AAAA" }),
        ] {
            assert_eq!(code(&signer.jwk(&bad), &token), "CREDENTIAL_UNTRUSTED", "{bad}");
        }
    }
}

#[test]
fn a_key_keeps_its_algorithm_as_a_relying_party_of_oidc_reads_it() {
    for signer in signers() {
        let td = TrustDomain::new("td").unwrap();
        let bundle = Bundle::from_json(td, json!({ "keys": [signer.jwk(&json!({}))] }).to_string().as_bytes()).unwrap();
        let jwks = bundle.oidc_jwks();
        assert_eq!((&jwks["keys"][0]["alg"], &jwks["keys"][0]["use"]), (&signer.alg.into(), &"sig".into()));
    }
}
