//! The HTTPS listener: found and read by relying parties that know the issuer's URL and nothing else.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::{Certificate, Client, Response};
use serde_json::Value;
use support::Dev;

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --audience https://search.example --out a1";

fn client(dev: &Dev) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = Certificate::from_pem(dev.file(".mayfly/https-ca.pem").as_bytes()).unwrap();
    Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap()
}

async fn get(client: &Client, url: &str) -> Response {
    client.get(url).send().await.unwrap()
}

async fn json(client: &Client, url: &str) -> Value {
    let got = get(client, url).await;
    assert_eq!(got.status(), 200, "{url}");
    assert_eq!(got.headers()["content-type"], "application/json", "{url}");
    assert_eq!(got.headers()["access-control-allow-origin"], "*", "{url}");
    assert!(got.headers()["cache-control"].to_str().unwrap().starts_with("public, max-age="), "{url}");
    serde_json::from_slice(&got.bytes().await.unwrap()).unwrap()
}

/// Verifies a token by the issuer's URL alone, and returns its claims.
async fn verified(client: &Client, issuer: &str, token: &str) -> Value {
    let found = json(client, &format!("{issuer}/.well-known/openid-configuration")).await;
    assert_eq!(found["issuer"], issuer, "OpenID Connect Discovery 4.3");
    assert_eq!(found["id_token_signing_alg_values_supported"], serde_json::json!(["ES256"]));
    let keys = json(client, found["jwks_uri"].as_str().unwrap()).await;
    for key in keys["keys"].as_array().unwrap() {
        assert!(key["use"] == "sig" && key["alg"] == "ES256" && key["kid"].is_string());
        assert!(key.get("x5c").is_none() && key.get("x5t").is_none(), "GCP refuses them");
    }
    let keys: JwkSet = serde_json::from_value(keys).unwrap();
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let mut checks = Validation::new(Algorithm::ES256);
    checks.set_issuer(&[issuer]);
    checks.set_audience(&["https://search.example"]);
    checks.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap(), &checks).unwrap().claims
}

#[tokio::test]
async fn a_token_is_verified_by_the_issuers_url_alone_also_after_a_restart() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev.json(SPAWN);
    let (issuer, token) = (dev.text("https_issuer"), dev.file("a1/svid.jwt"));
    assert_eq!(dev.json("status")["https_issuer"], issuer.as_str());
    let http = client(&dev);
    let claims = verified(&http, &issuer, &token).await;
    assert!(claims["sub"].as_str().unwrap().starts_with("spiffe://dev.mayfly.test/agent/researcher/"));
    // RFC 8414 section 3: the same document at its own address.
    let (openid, oauth) =
        (format!("{issuer}/.well-known/openid-configuration"), format!("{issuer}/.well-known/oauth-authorization-server"));
    assert_eq!(json(&http, &openid).await, json(&http, &oauth).await);
    assert_eq!(json(&http, &format!("{issuer}/bundle")).await, dev.json("bundle"));
    // Nothing else is there, and nothing is changed.
    assert_eq!(get(&http, &format!("{issuer}/")).await.status(), 404);
    assert_eq!(http.post(&openid).body("{}").send().await.unwrap().status(), 405);
    assert_eq!(http.head(&openid).send().await.unwrap().status(), 200);

    // Relying parties are configured with the address, so it stays.
    let dev = Dev::start_in(dev.kill());
    assert_eq!(dev.text("https_issuer"), issuer);
    verified(&client(&dev), &issuer, &token).await;
}

#[test]
fn t158_a_provider_cannot_have_our_own_url() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = "https://127.0.0.1:9/p";
    let provider = format!(
        "[[issuers]]\nname = \"x\"\nissuer = \"{issuer}\"\n[[issuers.audiences]]\naudience = \"a\"\nworkloads = [\"orchestrator\"]\n"
    );
    std::fs::write(dir.path().join("more.toml"), format!("[https]\nissuer = \"{issuer}\"\n{provider}")).unwrap();
    let out = support::run_in(dir.path(), "dev --config more.toml");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("cannot be ours"), "{said}");
}

#[tokio::test]
async fn an_issuer_with_a_path_is_found_at_every_address_that_a_client_may_build() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let issuer = format!("https://127.0.0.1:{port}/agents/prod");
    let text = format!("[https]\nlisten = \"127.0.0.1:{port}\"\nissuer = \"{issuer}\"\n");
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json(SPAWN);
    let http = client(&dev);
    verified(&http, &issuer, &dev.file("a1/svid.jwt")).await;
    let host = format!("https://127.0.0.1:{port}");
    let found = json(&http, &format!("{issuer}/.well-known/openid-configuration")).await;
    for inserted in ["openid-configuration", "oauth-authorization-server"] {
        assert_eq!(json(&http, &format!("{host}/.well-known/{inserted}/agents/prod")).await, found);
    }
    assert_eq!(get(&http, &format!("{host}/.well-known/openid-configuration")).await.status(), 404, "another issuer");
}
