//! User tokens: the true ones count, each forged one is refused for its own reason (T05, T08, T47 to T53, T58).
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::needless_pass_by_value, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly::assertion::{Assertions, AudienceSettings, IssuerSettings};
use mayfly::clock::Clock;
use mayfly::dev::provider;
use mayfly::doors::listen::{self, Bounds};
use mayfly_verify::sha256;
use serde_json::{Value, json};
use tokio::sync::watch;

struct World {
    dir: tempfile::TempDir,
    issuer: String,
    assertions: Assertions,
    now: u64,
    kid: String,
    key: EcdsaKeyPair,
    _stop: watch::Sender<bool>,
}

fn settings(issuer: &str, ca: Option<&Path>) -> IssuerSettings {
    IssuerSettings {
        name: "dev".into(),
        issuer: issuer.into(),
        jwks_url: None,
        ca_file: ca.map(Path::to_owned),
        audiences: vec![AudienceSettings {
            audience: provider::AUDIENCE.into(),
            workloads: vec!["orchestrator".parse().unwrap()],
            scopes: None,
            max_lease: None,
        }],
        max_age: Duration::from_secs(3600),
    }
}

async fn world() -> World {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let made = provider::prepare(&dir.path().join("p"), port, Clock::system()).unwrap();
    let (stop, stopped) = watch::channel(false);
    let (_, tls) = watch::channel(Arc::new(made.tls));
    tokio::spawn(listen::serve_tls(listener, tls, made.router, Bounds::default(), stopped));
    let assertions = Assertions::new(vec![settings(&made.issuer, Some(&made.ca_file))]).unwrap();
    let pem = std::fs::read_to_string(dir.path().join("p/oidc.key")).unwrap();
    let der = pem::parse(pem).unwrap().into_contents();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
    let kid = URL_SAFE_NO_PAD.encode(sha256(key.public_key().as_ref()).get(..8).unwrap());
    World { dir, issuer: made.issuer, assertions, now: Clock::system().seconds(), kid, key, _stop: stop }
}

impl World {
    fn claims(&self) -> Value {
        json!({ "iss": self.issuer, "sub": "demo", "aud": "mayfly-dev", "iat": self.now, "exp": self.now + 60 })
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.kid, "typ": "JWT" })
    }

    fn sign(&self, header: &Value, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// The claims with some of them changed; null takes one away.
    fn with(&self, changes: Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.sign(&self.header(), &claims.to_string())
    }

    async fn code(&self, token: &str) -> &'static str {
        self.assertions.verify(token, self.now).await.map_or_else(|refusal| refusal.code(), |_| "ok")
    }
}

#[tokio::test]
async fn the_users_own_tokens_count() {
    let w = world().await;
    let token = provider::fetch_token(&w.issuer, &w.dir.path().join("p/oidc-ca.pem"), "demo").await.unwrap();
    let delegator = w.assertions.verify(&token, w.now).await.unwrap();
    assert_eq!((delegator.user().sub.as_str(), &delegator.user().iss), ("demo", &w.issuer));
    assert_eq!(w.code(&w.with(json!({}))).await, "ok");
    let access = w.sign(&json!({ "alg": "ES256", "kid": w.kid, "typ": "at+jwt" }), &{
        let mut claims = w.claims();
        claims["client_id"] = "app".into();
        claims["jti"] = "1".into();
        claims.to_string()
    });
    assert_eq!(w.code(&access).await, "ok", "RFC 9068");
    assert_eq!(
        w.code(&w.sign(&json!({ "alg": "ES256" }), &w.claims().to_string())).await,
        "ok",
        "without a kid the keys are tried"
    );
    assert!(provider::fetch_token(&w.issuer, &w.dir.path().join("p/oidc-ca.pem"), "root").await.is_err());
}

#[tokio::test]
async fn t47_to_t53_every_forged_token_is_refused_for_its_own_reason() {
    let w = world().await;
    let header = |changes: Value| {
        let mut header = w.header();
        header.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        w.sign(&header, &w.claims().to_string())
    };
    let good = w.with(json!({}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let other_claims = format!(
        "{}.{}",
        message.split('.').next().unwrap(),
        URL_SAFE_NO_PAD.encode(w.claims().to_string().replace("demo", "root"))
    );
    let zero = URL_SAFE_NO_PAD.encode([0u8; 64]);
    let cases: Vec<(&str, String, &str)> = vec![
        ("not a token", "a.b.c".into(), "USER_TOKEN_MALFORMED"),
        ("empty", String::new(), "USER_TOKEN_MALFORMED"),
        ("T58 five parts", format!("{good}.x.y"), "USER_TOKEN_MALFORMED"),
        ("too large", "a".repeat(17_000), "USER_TOKEN_TOO_LARGE"),
        ("T47 none", header(json!({ "alg": "none" })), "USER_TOKEN_ALGORITHM"),
        ("T47 nOnE", header(json!({ "alg": "nOnE" })), "USER_TOKEN_ALGORITHM"),
        ("T47 HS256", header(json!({ "alg": "HS256" })), "USER_TOKEN_ALGORITHM"),
        ("T47 RS256 under an EC key", header(json!({ "alg": "RS256" })), "USER_TOKEN_ALGORITHM"),
        ("T47 ES384 under a P-256 key", header(json!({ "alg": "ES384" })), "USER_TOKEN_ALGORITHM"),
        ("T48 jwk", header(json!({ "jwk": { "kty": "EC" } })), "USER_TOKEN_HEADER"),
        ("T48 jku", header(json!({ "jku": "https://evil.example" })), "USER_TOKEN_HEADER"),
        ("T48 x5c", header(json!({ "x5c": [] })), "USER_TOKEN_HEADER"),
        ("T51 crit", header(json!({ "crit": ["x"] })), "USER_TOKEN_HEADER"),
        ("T51 b64", header(json!({ "b64": false })), "USER_TOKEN_HEADER"),
        ("T49 kid traversal", header(json!({ "kid": "../../dev/null" })), "USER_TOKEN_KEY_UNKNOWN"),
        ("T49 kid of a wrong type", header(json!({ "kid": 1 })), "USER_TOKEN_MALFORMED"),
        ("typ of a JWT-SVID thief", header(json!({ "typ": "wit+jwt" })), "USER_TOKEN_TYPE"),
        ("T55 zero signature", format!("{message}.{zero}"), "USER_TOKEN_SIGNATURE"),
        ("changed claims", format!("{other_claims}.{signature}"), "USER_TOKEN_SIGNATURE"),
        ("T08 issuer with a slash", w.with(json!({ "iss": format!("{}/", w.issuer) })), "USER_TOKEN_ISSUER_UNKNOWN"),
        ("T09 issuer with another dot", w.with(json!({ "iss": w.issuer.replace('.', "x") })), "USER_TOKEN_ISSUER_UNKNOWN"),
        ("T08 issuer with a newline", w.with(json!({ "iss": format!("{}\n", w.issuer) })), "USER_TOKEN_CLAIM"),
        ("T52 no exp", w.with(json!({ "exp": null })), "USER_TOKEN_CLAIM"),
        ("T50 exp as text", w.with(json!({ "exp": "9999999999" })), "USER_TOKEN_CLAIM"),
        ("T50 exp as a list", w.with(json!({ "exp": [] })), "USER_TOKEN_CLAIM"),
        ("T50 exp with a fraction", w.with(json!({ "exp": 9_999_999_999.5 })), "USER_TOKEN_CLAIM"),
        ("T50 exp below zero", w.with(json!({ "exp": -1 })), "USER_TOKEN_CLAIM"),
        (
            "T50 exp beyond 2^63",
            w.sign(&w.header(), &w.claims().to_string().replace(&(w.now + 60).to_string(), "1e400")),
            "USER_TOKEN_MALFORMED",
        ),
        ("T50 nbf as text", w.with(json!({ "nbf": "0" })), "USER_TOKEN_CLAIM"),
        ("T50 iat missing", w.with(json!({ "iat": null })), "USER_TOKEN_CLAIM"),
        ("T50 aud empty", w.with(json!({ "aud": "" })), "USER_TOKEN_CLAIM"),
        ("T50 aud of numbers", w.with(json!({ "aud": [1] })), "USER_TOKEN_CLAIM"),
        ("T50 aud nested", w.with(json!({ "aud": [["mayfly-dev"]] })), "USER_TOKEN_CLAIM"),
        ("T51 expired a second ago", w.with(json!({ "exp": w.now - 1 })), "USER_TOKEN_EXPIRED"),
        ("expires now", w.with(json!({ "exp": w.now })), "USER_TOKEN_EXPIRED"),
        ("nbf in the future", w.with(json!({ "nbf": w.now + 60 })), "USER_TOKEN_NOT_YET_VALID"),
        ("iat in the future", w.with(json!({ "iat": w.now + 60 })), "USER_TOKEN_NOT_YET_VALID"),
        ("too old", w.with(json!({ "iat": w.now - 3601 })), "USER_TOKEN_TOO_OLD"),
        ("T53 another audience", w.with(json!({ "aud": "other" })), "USER_TOKEN_AUDIENCE"),
        ("T53 a prefix", w.with(json!({ "aud": "mayfly-de" })), "USER_TOKEN_AUDIENCE"),
        ("T53 another case", w.with(json!({ "aud": "Mayfly-dev" })), "USER_TOKEN_AUDIENCE"),
        (
            "T53 ours second, of another party",
            w.with(json!({ "aud": ["other", "mayfly-dev"], "azp": "other" })),
            "USER_TOKEN_AUDIENCE",
        ),
        ("sub empty", w.with(json!({ "sub": "" })), "USER_TOKEN_CLAIM"),
        ("sub with NUL", w.with(json!({ "sub": "de\u{0}mo" })), "USER_TOKEN_CLAIM"),
        ("somebody acts in it", w.with(json!({ "act": { "sub": "agent" } })), "USER_TOKEN_ACTOR"),
        (
            "an access token without its claims",
            w.sign(&json!({ "alg": "ES256", "kid": w.kid, "typ": "at+jwt" }), &w.claims().to_string()),
            "USER_TOKEN_CLAIM",
        ),
    ];
    for (what, token, expected) in cases {
        assert_eq!(w.code(&token).await, expected, "{what}");
    }
    assert_eq!(w.code(&good).await, "ok", "and the true one still counts");
}

#[tokio::test]
async fn t08_keys_come_only_from_the_configured_issuer() {
    let w = world().await;
    // Another CA than the one configured: nobody is believed.
    let strangers = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = w.dir.path().join("other-ca.pem");
    std::fs::write(&path, strangers.cert.pem()).unwrap();
    let wrong = Assertions::new(vec![settings(&w.issuer, Some(&path))]).unwrap();
    assert_eq!(wrong.verify(&w.with(json!({})), w.now).await.unwrap_err().code(), "USER_ISSUER_UNAVAILABLE");

    // A provider that redirects, and one whose document names another issuer or keys elsewhere.
    let cases = [
        ("redirects", None),
        ("names another issuer", Some(json!({ "issuer": "https://evil.example", "jwks_uri": "ORIGIN/jwks" }))),
        ("has its keys elsewhere", Some(json!({ "issuer": "ORIGIN", "jwks_uri": "https://127.0.0.1:1/jwks" }))),
        ("has its keys in the clear", Some(json!({ "issuer": "ORIGIN", "jwks_uri": "http://127.0.0.1:1/jwks" }))),
    ];
    for (what, document) in cases {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = w.dir.path().join(format!("p{port}"));
        let made = provider::prepare(&dir, port, Clock::system()).unwrap();
        let (origin, target) = (made.issuer.clone(), w.issuer.clone());
        let document = document.map(|d| d.to_string().replace("ORIGIN", &origin));
        let router = axum::Router::new().fallback(move || {
            let (document, target) = (document.clone(), target.clone());
            async move {
                use axum::response::IntoResponse;
                match document {
                    Some(document) => document.into_response(),
                    None => {
                        axum::response::Redirect::temporary(&format!("{target}/.well-known/openid-configuration")).into_response()
                    }
                }
            }
        });
        let (_stop, stopped) = watch::channel(false);
        let (_, tls) = watch::channel(Arc::new(made.tls));
        tokio::spawn(listen::serve_tls(listener, tls, router, Bounds::default(), stopped));
        let assertions = Assertions::new(vec![settings(&made.issuer, Some(&made.ca_file))]).unwrap();
        let mut claims = w.claims();
        claims["iss"] = made.issuer.clone().into();
        let token = w.sign(&w.header(), &claims.to_string());
        match assertions.verify(&token, w.now).await {
            Err(refusal) => assert_eq!(refusal.code(), "USER_ISSUER_UNAVAILABLE", "{what}"),
            Ok(_) => panic!("{what}"),
        }
    }
}
