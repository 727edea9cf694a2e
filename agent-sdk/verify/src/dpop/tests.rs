#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;
const URL: &str = "https://issuer.example/oauth/token";

struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Key {
        Key(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]) })
    }

    fn proof(&self, header: &Value, claims: &Value) -> String {
        let signed = signed(header, claims);
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn signed(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn header(key: &Key) -> Value {
    json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk() })
}

fn claims() -> Value {
    json!({ "jti": "one", "htm": "POST", "htu": URL, "iat": NOW })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
        value => object[name] = value,
    }
    object
}

fn verify(proof: &str, token: Option<&str>) -> Result<DpopProof, Reject> {
    verify_dpop(proof, &DpopRequest { method: "POST", urls: &["https://other.example/t", URL], token, now: NOW })
}

#[test]
fn the_thumbprint_and_the_hash_of_the_token_are_those_of_the_standard() {
    // RFC 9449, sections 6.1 and 7.1.
    let mut jwk = json!({ "kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA" });
    jwk.sort_all_objects();
    let thumbprint = sha256(jwk.to_string().as_bytes());
    assert_eq!(URL_SAFE_NO_PAD.encode(thumbprint), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    let key = Key::new();
    let claims = with(claims(), "ath", json!("fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"));
    let proof = key.proof(&header(&key), &claims);
    assert!(verify(&proof, Some(token)).is_ok());
    assert!(verify(&proof, Some("another")).is_err(), "a proof is for its token");
    // The example of section 4.2. Its signature is not checked here.
    let example = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let request = DpopRequest { method: "POST", urls: &["https://server.example.com/token"], token: None, now: 1_562_262_616 };
    let proof = verify_dpop(example, &request).unwrap();
    assert_eq!((proof.jkt().as_str(), proof.jti.as_str()), ("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", "-BwC3ESc6acc2lTc"));
}

#[test]
fn a_proof_of_each_kind_of_key_is_accepted() {
    let key = Key::new();
    let proof = verify(&key.proof(&header(&key), &with(claims(), "nonce", json!("n"))), None).unwrap();
    assert_eq!((proof.jti.as_str(), proof.issued_at, proof.nonce.as_deref()), ("one", NOW, Some("n")));
    let ed = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(ed.public_key().as_ref()) });
    for alg in ["EdDSA", "Ed25519"] {
        let signed = signed(&json!({ "typ": "dpop+jwt", "alg": alg, "jwk": jwk }), &claims());
        let signature = URL_SAFE_NO_PAD.encode(ed.sign(signed.as_bytes()));
        assert!(verify(&format!("{signed}.{signature}"), None).is_ok(), "{alg}");
    }
    // What a JWK says beside its key does not change which key it is.
    let more = with(header(&key), "jwk", with(key.jwk(), "kid", json!("x")));
    assert_eq!(verify(&key.proof(&more, &claims()), None).unwrap().thumbprint, proof.thumbprint);
}

#[test]
fn t187_a_proof_is_for_one_request_one_key_and_one_moment() {
    let (key, other) = (Key::new(), Key::new());
    let good = header(&key);
    for (what, header, claims) in [
        ("an ID token's type", with(good.clone(), "typ", json!("JWT")), claims()),
        ("no type", with(good.clone(), "typ", Value::Null), claims()),
        ("a symmetric algorithm", with(good.clone(), "alg", json!("HS256")), claims()),
        ("no algorithm", with(good.clone(), "alg", json!("none")), claims()),
        ("an algorithm of another key", with(good.clone(), "alg", json!("ES384")), claims()),
        ("no key", with(good.clone(), "jwk", Value::Null), claims()),
        ("another's key", with(good.clone(), "jwk", other.jwk()), claims()),
        ("a private key", with(good.clone(), "jwk", with(key.jwk(), "d", json!("AA"))), claims()),
        ("a symmetric key", with(good.clone(), "jwk", json!({ "kty": "oct", "k": "AA" })), claims()),
        ("a short coordinate", with(good.clone(), "jwk", with(key.jwk(), "x", json!("AA"))), claims()),
        ("a key on another curve", with(good.clone(), "jwk", with(key.jwk(), "crv", json!("P-384"))), claims()),
        ("a condition", with(good.clone(), "crit", json!(["x"])), claims()),
        ("another method", good.clone(), with(claims(), "htm", json!("GET"))),
        ("a method in lower case", good.clone(), with(claims(), "htm", json!("post"))),
        ("another path", good.clone(), with(claims(), "htu", json!("https://issuer.example/oauth/revoke"))),
        ("another host", good.clone(), with(claims(), "htu", json!("https://issuer.example.evil/oauth/token"))),
        ("a user in the URL", good.clone(), with(claims(), "htu", json!("https://x@issuer.example/oauth/token"))),
        ("another scheme", good.clone(), with(claims(), "htu", json!("http://issuer.example/oauth/token"))),
        ("no URL", good.clone(), with(claims(), "htu", json!("/oauth/token"))),
        ("no time", good.clone(), with(claims(), "iat", Value::Null)),
        ("a time that is a text", good.clone(), with(claims(), "iat", json!(NOW.to_string()))),
        ("the future", good.clone(), with(claims(), "iat", json!(NOW + DPOP_WINDOW + 1))),
        ("the past", good.clone(), with(claims(), "iat", json!(NOW - DPOP_WINDOW - 1))),
        ("no id", good.clone(), with(claims(), "jti", Value::Null)),
        ("an empty id", good.clone(), with(claims(), "jti", json!(""))),
        ("a long id", good.clone(), with(claims(), "jti", json!("x".repeat(257)))),
        ("a nonce that is no text", good.clone(), with(claims(), "nonce", json!(1))),
    ] {
        let refused = verify(&key.proof(&header, &claims), None).unwrap_err();
        assert_eq!(refused.code(), "DPOP_PROOF_INVALID", "{what}");
    }
    let proof = key.proof(&good, &claims());
    assert!(verify(&proof, None).is_ok());
    assert!(verify(&proof, Some("token")).is_err(), "with a token it must say which");
    let forged = key.proof(&good, &with(claims(), "jti", json!("two")));
    let mixed = format!("{}.{}", forged.rsplit_once('.').unwrap().0, proof.rsplit_once('.').unwrap().1);
    let long = format!("{proof}{}", "A".repeat(MAX_PROOF));
    for text in ["", "a.b", "a.b.c", "a.b.c.d", &mixed, &long] {
        assert_eq!(verify(text, None).unwrap_err().code(), "DPOP_PROOF_INVALID");
    }
}

#[test]
fn urls_are_compared_in_one_form() {
    let one = Some("https://issuer.example/oauth/token".to_owned());
    for same in [
        "https://issuer.example/oauth/token?a=b",
        "https://issuer.example/oauth/token#a",
        "HTTPS://Issuer.Example:443/oauth/token",
        "https://issuer.example/oauth/x/../token",
        "https://issuer.example/./oauth/%74oken",
    ] {
        assert_eq!(normalized(same), one, "{same}");
    }
    assert_eq!(normalized("https://a"), normalized("https://a/"));
    assert_eq!(normalized("https://a?x=/y"), Some("https://a/".into()));
    assert_eq!(normalized("https://a/%2f"), Some("https://a/%2F".into()), "a slash that is escaped separates nothing");
    for other in
        ["https://issuer.example/oauth/Token", "https://issuer.example:444/oauth/token", "https://issuer.example/oauth/token/"]
    {
        assert_ne!(normalized(other), one, "{other}");
    }
    for bad in ["", "https://", "ftp://a/", "//a", "https://a/%zz", "https://a/%f", "https://a/é", "https://a/%+1"] {
        assert_eq!(normalized(bad), None, "{bad}");
    }
}
