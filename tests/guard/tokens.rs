//! Access tokens at a guard: each family by its own rule, bound tokens with what their holder proves, and metadata for clients of OAuth.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Certificate, Client};

use super::*;

const MAIL: &str = "https://mail.example";
const FILES: &str = "https://files.example";
const BANK: &str = "https://bank.example";
const CATALOGUE: &str = "[[audiences]]\nname = \"https://files.example\"\nowner = \"o\"\nbound = \"mtls\"\n";

fn exchanged(dev: &Dev, line: &str) -> String {
    dev.json(&format!("exchange --as a1 {line}"))["access_token"].as_str().unwrap().to_owned()
}

fn house() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), CATALOGUE).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    Guard::join(&dev);
    spawn(&dev, "a1");
    dev
}

#[test]
fn t249_a_guard_takes_each_family_of_tokens_by_its_own_rule_until_the_cut() {
    let dev = house();
    let a1 = dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    let guard = Guard::start(&dev, &["unix:g.sock", "--issuer", &dev.text("https_issuer")]);
    let token = exchanged(&dev, &format!("--audience {MAIL} --scope mail:send"));
    let svid = dev.json(&format!("mint --as a1 --audience {MAIL}"))["token"].as_str().unwrap().to_owned();
    let ask = |token: &str, audience: &str, scope: &str| {
        guard.verify(&json!({ "credential": token, "audience": audience, "scopes": [scope] }))
    };
    for _ in 0..2 {
        let (status, said) = ask(&token, MAIL, "mail:send");
        assert_eq!((status, &said["kind"], &said["agent_id"]), (200, &json!("access-token"), &json!(a1)), "{said}");
        assert_eq!((&said["subject"], &said["user"]["sub"]), (&json!("dev|demo"), &json!("demo")), "{said}");
        assert_eq!(said["chain"], json!(["spiffe://dev.mayfly.test/workload/orchestrator"]), "{said}");
        assert_eq!((&said["scopes"], &said["authorization_details"]), (&json!(["mail:send"]), &json!([])), "{said}");
    }
    assert_eq!(ask(&svid, MAIL, "mail:send").1["kind"], "jwt-svid");
    for (token, audience, scope, reason) in [
        (&token, MAIL, "files:read", "SCOPE_MISSING"),
        (&token, SEARCH, "mail:send", "TOKEN_AUDIENCE"),
        (&token, FILES, "mail:send", "TOKEN_AUDIENCE"),
    ] {
        let (status, said) = ask(token, audience, scope);
        let expected = if reason == "TOKEN_AUDIENCE" { mayfly_verify::Reject::Audience(String::new()).code() } else { reason };
        assert_eq!((status, &said["reason"]), (403, &json!(expected)), "{said}");
    }
    // With the header of the other family neither holds.
    let header = |typ: &str, token: &str| {
        let (header, rest) = token.split_once('.').unwrap();
        let mut header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        header["typ"] = json!(typ);
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    for posed in [header("JWT", &token), header("at+jwt", &svid)] {
        assert_eq!(ask(&posed, MAIL, "mail:send").0, 403);
    }
    // Of another issuer, and at a guard that knows of none but another.
    let other = Guard::start(&dev, &["unix:o.sock", "--issuer", "https://other.example"]);
    let question = json!({ "credential": token, "audience": MAIL });
    assert_eq!(other.verify(&question).0, 403);
    assert_eq!(other.verify(&json!({ "credential": svid, "audience": MAIL })).0, 200);
    let none = Guard::start(&dev, &["unix:n.sock"]);
    assert_eq!(none.verify(&question).1["reason"], "TOKEN_NOT_ACCEPTED");
    assert_eq!(none.get(&format!("/auth?audience={MAIL}")).header("www-authenticate"), Some("Bearer"));
    assert_eq!(none.get(&format!("/.well-known/oauth-protected-resource?audience={MAIL}")).status, 404);
    // By `/auth`, with what a client of OAuth needs to know.
    let path = format!("/auth?audience={MAIL}/mcp&scopes=mail:send%20files:read");
    let challenge = guard.get(&path);
    let pointer = "resource_metadata=\"https://mail.example/.well-known/oauth-protected-resource/mcp\"";
    let expected = format!("Bearer scope=\"mail:send files:read\", {pointer}");
    assert_eq!((challenge.status, challenge.header("www-authenticate")), (401, Some(expected.as_str())));
    let said = guard.get(&format!("/.well-known/oauth-protected-resource/mcp?audience={MAIL}/mcp&scopes=mail:send")).json();
    let issuer = dev.text("https_issuer");
    assert_eq!((&said["resource"], &said["authorization_servers"]), (&json!(format!("{MAIL}/mcp")), &json!([issuer])));
    assert_eq!((&said["scopes_supported"], &said["bearer_methods_supported"]), (&json!(["mail:send"]), &json!(["header"])));
    for bad in
        ["", "?audience=mail", "?audience=https://u@mail.example", "?audience=https://a.example&audience=https://b.example"]
    {
        assert_eq!(guard.get(&format!("/.well-known/oauth-protected-resource{bad}")).status, 400, "{bad}");
    }
    let bearer = format!("Bearer {token}");
    let passed = guard.send("GET", &format!("/auth?audience={MAIL}&scopes=mail:send"), &[("authorization", &bearer)], b"");
    assert_eq!((passed.status, passed.header("x-mayfly-scopes")), (200, Some("mail:send")));
    let refused = guard.send("GET", &format!("/auth?audience={MAIL}&scopes=admin"), &[("authorization", &bearer)], b"");
    let expected = "Bearer error=\"insufficient_scope\", scope=\"admin\", resource_metadata=\"https://mail.example/.well-known/oauth-protected-resource\"";
    assert_eq!((refused.status, refused.header("www-authenticate")), (403, Some(expected)));
    // It dies by the cut.
    dev.json(&format!("revoke --agent {a1}"));
    until("revoked", || guard.verify(&question).1["reason"] == "CREDENTIAL_REVOKED");
    let refused = guard.send("GET", &format!("/auth?audience={MAIL}"), &[("authorization", &bearer)], b"");
    assert!(
        refused.status == 401
            && refused.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\", resource_")
    );
}

#[test]
fn t249_a_token_for_one_action_is_none_for_a_service_that_does_not_read_actions() {
    let dev = house();
    let guard = Guard::start(&dev, &["unix:g.sock", "--issuer", &dev.text("https_issuer")]);
    std::fs::write(dev.path("me.jwt"), dev.run("token demo --audience mayfly-dev-user").stdout).unwrap();
    let action = "{\"type\":\"payment\",\"amount\":\"10.00\",\"currency\":\"EUR\"}";
    let id = dev.json(&format!("ask --as a1 --audience {BANK} --action {action} --reason invoice"))["approval_id"].clone();
    let id = id.as_str().unwrap();
    dev.json(&format!("approve {id} --user-token me.jwt"));
    let token = exchanged(&dev, &format!("--approval {id}"));
    let (status, said) = guard.verify(&json!({ "credential": token, "audience": BANK }));
    assert_eq!((status, &said["reason"]), (403, &json!("TOKEN_NOT_ACCEPTED")), "{said}");
    let bearer = format!("Bearer {token}");
    assert_ne!(guard.send("GET", &format!("/auth?audience={BANK}"), &[("authorization", &bearer)], b"").status, 200);
    let (status, said) = guard.verify(&json!({ "credential": token, "audience": BANK, "actions": true }));
    assert_eq!((status, &said["approval_id"], &said["approved_by"]["sub"]), (200, &json!(id), &json!("demo")), "{said}");
    assert_eq!(said["authorization_details"][0]["amount"], "10.00", "{said}");
    assert_eq!(said["scopes"], json!([]));
}

struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Key {
        Key(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// A proof for a request, with a nonce and for a token if there are any.
    fn proof(&self, method: &str, url: &str, nonce: Option<&str>, token: Option<&str>) -> String {
        let point = self.0.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({ "jti": uuid::Uuid::now_v7().to_string(), "htm": method, "htu": url, "iat": now });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        if let Some(token) = token {
            claims["ath"] = json!(URL_SAFE_NO_PAD.encode(mayfly_verify::sha256(token.as_bytes())));
        }
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": { "kty": "EC", "crv": "P-256", "x": x, "y": y } });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn t249_a_bound_token_needs_what_it_is_bound_to_in_each_request() {
    let dev = house();
    spawn(&dev, "a2");
    let guard = Guard::start(&dev, &["unix:g.sock", "--issuer", &dev.text("https_issuer")]);
    let reason = |question: &Value| guard.verify(question).1["reason"].clone();
    // To a certificate.
    let token = exchanged(&dev, &format!("--audience {FILES}"));
    let with = |dir: &str| json!({ "credential": token, "audience": FILES, "certificate": dev.file(&format!("{dir}/svid.pem")) });
    assert_eq!(reason(&json!({ "credential": token, "audience": FILES })), "CREDENTIAL_UNPROVED");
    assert_eq!(guard.verify(&with("a1")).0, 200);
    assert_eq!(reason(&json!({ "credential": token, "audience": FILES })), "CREDENTIAL_UNPROVED", "what was proved is forgotten");
    assert_eq!(reason(&with("a2")), "CREDENTIAL_UNPROVED");
    let bare = json!({ "credential": dev.file("a1/svid.pem"), "certificate": "x" });
    assert_eq!(guard.verify(&bare).0, 400, "a certificate stands beside a token");

    // To a key, as a client of OAuth gets it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = Certificate::from_pem(dev.file(".mayfly/https-ca.pem").as_bytes()).unwrap();
    let http = Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let (key, thief, issuer) = (Key::new(), Key::new(), dev.text("https_issuer"));
    let (url, mut nonce, mut token) = (format!("{issuer}/oauth/token"), None::<String>, None::<String>);
    for _ in 0..2 {
        let assertion = dev.json(&format!("mint --as a1 --audience {issuer}"))["token"].as_str().unwrap().to_owned();
        let form = [
            ("grant_type", "client_credentials"),
            ("resource", MAIL),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"),
            ("client_assertion", assertion.as_str()),
        ];
        let proof = key.proof("POST", &url, nonce.as_deref(), None);
        let response = http.post(&url).header("DPoP", proof).form(&form).send().await.unwrap();
        nonce = response.headers().get("dpop-nonce").map(|nonce| nonce.to_str().unwrap().to_owned());
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        token = body["access_token"].as_str().map(str::to_owned);
    }
    let token = token.unwrap();
    let here = "https://mail.example/send";
    let ask = |proof: String, method: &str, url: &str| {
        guard
            .verify(&json!({ "credential": token, "audience": MAIL, "dpop": { "proof": proof, "method": method, "url": url } }))
            .1
    };
    assert_eq!(reason(&json!({ "credential": token, "audience": MAIL })), "CREDENTIAL_UNPROVED");
    let first = ask(key.proof("GET", here, None, Some(&token)), "GET", here);
    assert_eq!(first["reason"], "DPOP_NONCE_NEEDED", "{first}");
    let nonce = first["dpop_nonce"].as_str();
    assert_eq!(ask(thief.proof("GET", here, nonce, Some(&token)), "GET", here)["reason"], "CREDENTIAL_UNPROVED");
    for (what, proof, method, url) in [
        ("for another method", key.proof("POST", here, nonce, Some(&token)), "GET", here),
        ("for another URL", key.proof("GET", here, nonce, Some(&token)), "GET", "https://mail.example/all"),
        ("for another token", key.proof("GET", here, nonce, Some("x")), "GET", here),
        ("for no token", key.proof("GET", here, nonce, None), "GET", here),
        ("no proof", "x".to_owned(), "GET", here),
    ] {
        assert_eq!(ask(proof, method, url)["reason"], "DPOP_PROOF_INVALID", "{what}");
    }
    let proof = key.proof("GET", here, nonce, Some(&token));
    let allowed = ask(proof.clone(), "GET", here);
    assert_eq!((&allowed["decision"], &allowed["kind"]), (&json!(true), &json!("access-token")), "{allowed}");
    assert_eq!(ask(proof, "GET", here)["reason"], "DPOP_PROOF_USED");
    // Proxies hand on no proof.
    let bearer = format!("Bearer {token}");
    assert_eq!(guard.send("GET", &format!("/auth?audience={MAIL}"), &[("authorization", &bearer)], b"").status, 401);
}
