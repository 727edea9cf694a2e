//! A resource server of OAuth: what it accepts, and exactly what it answers otherwise.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../verify/tests/feed/issuer.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod issuer;
#[path = "support/world.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod world;

use std::convert::Infallible;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use mayfly_agent::delegation::{Delegation, DelegationBody, DelegationLayer, Tokens};
use mayfly_agent::peers::Peer;
use mayfly_agent::resource::Resource;
use mayfly_verify::{Target, sha256};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use world::{ISSUER, World};

const NAME: &str = "https://mail.example/mcp";
const POINTER: &str = "resource_metadata=\"https://mail.example/.well-known/oauth-protected-resource/mcp\"";
const ALGORITHMS: &str = "algs=\"ES256 ES384 EdDSA\"";

struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Key {
        Key(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({ "crv": "P-256", "kty": "EC", "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]) })
    }

    fn cnf(&self) -> String {
        json!({ "jkt": URL_SAFE_NO_PAD.encode(sha256(self.jwk().to_string().as_bytes())) }).to_string()
    }

    fn proof(&self, jti: &str, url: &str, token: &str, now: u64, nonce: Option<&str>) -> String {
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk() });
        let ath = URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()));
        let claims = json!({ "jti": jti, "htm": "POST", "htu": url, "iat": now, "ath": ath, "nonce": nonce.unwrap_or_default() });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn request(authorization: Option<&str>, proofs: &[&str]) -> Request<()> {
    let mut request = Request::post("/mcp?x=y").body(()).unwrap();
    if let Some(authorization) = authorization {
        request.headers_mut().insert("authorization", authorization.parse().unwrap());
    }
    for proof in proofs {
        request.headers_mut().append("dpop", proof.parse().unwrap());
    }
    request
}

async fn pass(layer: &DelegationLayer, request: Request<()>) -> Result<Delegation, Response<DelegationBody<Body>>> {
    let service = tower::service_fn(async |request: Request<()>| {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(Delegation::of(request.extensions()).unwrap().clone());
        Ok::<_, Infallible>(response)
    });
    let mut response = layer.layer(service).oneshot(request).await.unwrap();
    response.extensions_mut().remove::<Delegation>().ok_or(response)
}

/// The reason of a 401 and its challenge.
async fn refused(layer: &DelegationLayer, request: Request<()>) -> (String, String) {
    let response = pass(layer, request).await.map(drop).unwrap_err();
    assert_eq!(response.status(), 401);
    let text = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(response.headers().get_all("www-authenticate").iter().count(), 1);
    (text("mayfly-reason"), text("www-authenticate"))
}

fn layer(world: &World, resource: Resource) -> DelegationLayer {
    DelegationLayer::new(world.verifier()).with_tokens(Tokens::Resource(Arc::new(resource)))
}

#[tokio::test]
async fn a_resource_server_says_what_it_is_and_challenges_as_mcp_clients_expect() {
    let mut world = World::new();
    let agent = world.agent("worker", &["mail:send"]);
    let resource = Resource::new(NAME, ISSUER).unwrap().with_scopes(["mail:send", "mail:read"]).with_dpop().unwrap();
    let said: Value = serde_json::from_str(&resource.metadata()).unwrap();
    assert_eq!((&said["resource"], &said["authorization_servers"]), (&json!(NAME), &json!([ISSUER])));
    assert_eq!(
        (&said["scopes_supported"], &said["bearer_methods_supported"]),
        (&json!(["mail:send", "mail:read"]), &json!(["header"]))
    );
    let layer = layer(&world, resource);
    let missing = refused(&layer, request(None, &[])).await;
    assert_eq!(missing, ("CREDENTIAL_MISSING".into(), format!("Bearer {POINTER}, scope=\"mail:send mail:read\"")));
    let good = world.access_token(&agent, NAME, None);
    let got = pass(&layer, request(Some(&format!("Bearer {good}")), &[])).await.unwrap();
    assert_eq!((got.agent().to_string(), got.scopes()), (agent.id.clone(), ["mail:send".to_owned()].as_slice()));
    assert_eq!(got.access_token().map(|token| token.subject.as_str()), Some("idp|demo"));
    let invalid = format!("Bearer error=\"invalid_token\", {POINTER}");
    for (what, token, reason) in [
        ("another audience", world.access_token(&agent, "https://mail.example", None), "CREDENTIAL_AUDIENCE"),
        ("a JWT-SVID", world.token(&agent, NAME), "CREDENTIAL_PROFILE"),
        ("nonsense", "a.b.c".into(), "CREDENTIAL_MALFORMED"),
    ] {
        let got = refused(&layer, request(Some(&format!("Bearer {token}")), &[])).await;
        assert_eq!(got, (reason.to_owned(), invalid.clone()), "{what}");
    }
    for malformed in ["Basic x", "Bearer", "Bearer a b"] {
        assert_eq!(refused(&layer, request(Some(malformed), &[])).await, ("TOKEN_MALFORMED".into(), invalid.clone()));
    }
    // It dies by the cut, here for one token alone.
    world.cut(&Target::Token(format!("j{}", world.now())));
    assert_eq!(refused(&layer, request(Some(&format!("Bearer {good}")), &[])).await, ("CREDENTIAL_REVOKED".into(), invalid));
    assert!(got.check().is_err());
}

#[tokio::test]
async fn t188_a_bound_token_is_accepted_with_its_proof_and_in_no_other_way() {
    let mut world = World::new();
    let agent = world.agent("worker", &["mail:send"]);
    let (key, thief) = (Key::new(), Key::new());
    let layer = layer(&world, Resource::new(NAME, ISSUER).unwrap().with_dpop().unwrap());
    let token = world.access_token(&agent, NAME, Some(&key.cnf()));
    let (dpop, now) = (format!("DPoP {token}"), world.now());
    let first = pass(&layer, request(Some(&dpop), &[&key.proof("1", NAME, &token, now, None)])).await.map(drop).unwrap_err();
    assert_eq!(first.headers()["www-authenticate"], format!("DPoP error=\"use_dpop_nonce\", {ALGORITHMS}, {POINTER}"));
    let nonce = first.headers()["dpop-nonce"].to_str().unwrap().to_owned();
    let proof = |jti: &str| key.proof(jti, NAME, &token, now, Some(&nonce));
    assert_eq!(pass(&layer, request(Some(&dpop), &[&proof("1")])).await.unwrap().agent().to_string(), agent.id);
    let bad_proof = format!("DPoP error=\"invalid_dpop_proof\", {ALGORITHMS}, {POINTER}");
    let bad_token = format!("DPoP error=\"invalid_token\", {ALGORITHMS}, {POINTER}");
    let bearer = world.access_token(&agent, NAME, None);
    let with = |url: &str, token: &str, by: &Key| by.proof("2", url, token, now, Some(&nonce));
    let unbound = format!("DPoP {bearer}");
    for (what, authorization, proofs, reason, challenge) in [
        ("the same proof again", dpop.clone(), vec![proof("1")], "DPOP_PROOF_USED", &bad_proof),
        ("as a bearer token", format!("Bearer {token}"), vec![proof("2")], "CREDENTIAL_UNPROVED", &bad_token),
        ("without a proof", dpop.clone(), vec![], "DPOP_PROOF_INVALID", &bad_proof),
        ("two proofs", dpop.clone(), vec![proof("2"), proof("3")], "DPOP_PROOF_INVALID", &bad_proof),
        ("for another URL", dpop.clone(), vec![with("https://mail.example/x", &token, &key)], "DPOP_PROOF_INVALID", &bad_proof),
        ("for another token", dpop.clone(), vec![with(NAME, &bearer, &key)], "DPOP_PROOF_INVALID", &bad_proof),
        ("of another key", dpop.clone(), vec![with(NAME, &token, &thief)], "CREDENTIAL_UNPROVED", &bad_token),
        ("a token that is not bound", unbound, vec![with(NAME, &bearer, &key)], "DPOP_PROOF_INVALID", &bad_proof),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        assert_eq!(refused(&layer, request(Some(&authorization), &proofs)).await, (reason.into(), challenge.clone()), "{what}");
    }
    assert!(pass(&layer, request(Some(&dpop), &[&proof("2")])).await.is_ok(), "none of these used up the proof");

    // Bound to a certificate: the one of this connection.
    let other = world.agent("worker", &["mail:send"]);
    let peer = |of: &world::Somebody| Peer::prove(&world.verifier(), &of.chain, "127.0.0.1:1".parse().unwrap()).unwrap();
    let cnf = json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(sha256(&agent.chain[0])) }).to_string();
    let bound = format!("Bearer {}", world.access_token(&agent, NAME, Some(&cnf)));
    let from = |of: Option<Peer>| {
        let mut request = request(Some(&bound), &[]);
        of.map(|peer| request.extensions_mut().insert(peer));
        request
    };
    assert!(pass(&layer, from(Some(peer(&agent)))).await.is_ok());
    for of in [None, Some(peer(&other))] {
        assert_eq!(refused(&layer, from(of)).await.0, "CREDENTIAL_UNPROVED");
    }
    // A bearer token of one agent on the connection of another.
    let mut mixed = request(Some(&format!("Bearer {bearer}")), &[]);
    mixed.extensions_mut().insert(peer(&other));
    assert_eq!(refused(&layer, mixed).await.0, "CREDENTIALS_DIFFER");
}
