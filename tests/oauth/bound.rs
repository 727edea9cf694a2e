//! Tokens that are bound to a key (DPoP) or to a certificate: who gets one, and that it proves nothing without that key.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{DpopRequest, Possession, verify_dpop};
use reqwest::Method;

use super::*;

const CATALOGUE: &str = "[[audiences]]\nname = \"https://mail.example\"\nowner = \"o\"\nbound = \"dpop\"\n\
                         [[audiences]]\nname = \"https://files.example\"\nowner = \"o\"\nbound = \"mtls\"\n\
                         [[audiences]]\nname = \"https://search.example\"\nowner = \"o\"\nbound = \"any\"\n";
const SEARCH: &str = "https://search.example";

/// A key that makes proofs.
pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Key {
        Key(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]) })
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Its thumbprint (RFC 7638) in base64url.
    pub(crate) fn proved(&self) -> String {
        let jwk = self.jwk();
        let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
        let canonical = format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"{x}\",\"y\":\"{y}\"}}");
        URL_SAFE_NO_PAD.encode(mayfly_verify::sha256(canonical.as_bytes()))
    }

    /// A proof for a request, with `more` over its claims.
    pub(crate) fn proof(&self, method: &str, url: &str, more: &[(&str, Value)]) -> String {
        let mut claims = json!({ "jti": uuid::Uuid::now_v7().to_string(), "htm": method, "htu": url, "iat": seconds() });
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.sign(&json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk() }), &claims)
    }
}

pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), CATALOGUE).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    House::of(dev)
}

/// A request for a token of `a1`, with these proofs. The answer, and the nonce that came with it.
async fn ask(house: &House, form: &[(&str, &str)], proofs: &[&str]) -> ((u16, Value), Option<String>) {
    let assertion = house.assertion("a1");
    let mut all = vec![("client_assertion_type", BEARER), ("client_assertion", assertion.as_str())];
    all.extend(form);
    let mut request = house.http.request(Method::POST, format!("{}/oauth/token", house.issuer)).form(&all);
    for proof in proofs {
        request = request.header("DPoP", *proof);
    }
    let response = request.send().await.unwrap();
    let nonce = response.headers().get("dpop-nonce").map(|nonce| nonce.to_str().unwrap().to_owned());
    (read(response).await, nonce)
}

#[tokio::test]
async fn t188_a_token_is_bound_to_the_key_of_the_proof_and_is_worth_nothing_without_it() {
    let house = house();
    let url = format!("{}/oauth/token", house.issuer);
    let (key, thief) = (Key::new(), Key::new());
    let grant = [("grant_type", "client_credentials"), ("resource", MAIL)];
    // This audience takes no bearer tokens.
    let (answer, nonce) = ask(&house, &grant, &[]).await;
    assert_eq!((error(&answer), nonce), ((400, "invalid_request"), None));
    assert!(answer.1["error_description"].as_str().unwrap().starts_with("TOKEN_BINDING_NEEDED"), "{answer:?}");
    assert!(house.dev.fails("exchange --as a1 --audience https://mail.example", 3).contains("TOKEN_BINDING_NEEDED"));
    // The nonce comes with the first refusal.
    let (answer, nonce) = ask(&house, &grant, &[&key.proof("POST", &url, &[])]).await;
    assert_eq!(error(&answer), (400, "use_dpop_nonce"));
    let nonce = nonce.unwrap();
    let with = |key: &Key, url: &str| key.proof("POST", url, &[("nonce", json!(nonce))]);
    let (answer, next) = ask(&house, &grant, &[&with(&key, &url)]).await;
    assert_eq!((answer.0, &answer.1["token_type"]), (200, &json!("DPoP")), "{answer:?}");
    assert_eq!(next.as_ref(), Some(&nonce));
    let token = answer.1["access_token"].as_str().unwrap().to_owned();
    let request = DpopRequest { method: "POST", urls: &[&url], token: None, now: seconds() };
    let jkt = verify_dpop(&with(&key, &url), &request).unwrap();
    let (claims, _) = house.verified(&token, MAIL).await;
    assert_eq!(claims["cnf"], json!({ "jkt": jkt.jkt() }));
    let said = house.introspect("mail-service", &token);
    assert_eq!((&said["token_type"], &said["cnf"]), (&json!("DPoP"), &json!({ "jkt": jkt.jkt() })));

    // By our verifier: with the key and in no other way.
    let verify = |proved: &Possession| verifier(&house)(&token, MAIL, proved).map(drop).map_err(|e| e.code());
    let of = |key| Possession { key, certificate: None };
    assert_eq!(verify(&of(Some(jkt.thumbprint))), Ok(()));
    assert_eq!(verify(&of(None)), Err("CREDENTIAL_UNPROVED"));
    assert_eq!(verify(&of(Some([7; 32]))), Err("CREDENTIAL_UNPROVED"));
    let mistaken = Possession { key: None, certificate: Some(jkt.thumbprint) };
    assert_eq!(verify(&mistaken), Err("CREDENTIAL_UNPROVED"), "a certificate is not a key");

    // As a subject token it is of use to whoever holds the key.
    let again = [("grant_type", EXCHANGE), ("subject_token", token.as_str()), ("subject_token_type", ACCESS), ("resource", MAIL)];
    assert_eq!(error(&ask(&house, &again, &[&with(&thief, &url)]).await.0), (400, "invalid_request"));
    assert_eq!(ask(&house, &again, &[&with(&key, &url)]).await.0.0, 200);
}

#[tokio::test]
async fn t187_a_proof_for_anything_else_is_refused_and_none_is_used_twice() {
    let house = house();
    let url = format!("{}/oauth/token", house.issuer);
    let key = Key::new();
    let grant = [("grant_type", "client_credentials"), ("resource", SEARCH)];
    let (_, nonce) = ask(&house, &grant, &[&key.proof("POST", &url, &[])]).await;
    let nonce = json!(nonce.unwrap());
    let good = || key.proof("POST", &url, &[("nonce", nonce.clone())]);
    let mut header = json!({ "typ": "dpop+jwt", "alg": "HS256", "jwk": key.jwk() });
    let claims = json!({ "jti": "x", "htm": "POST", "htu": url, "iat": seconds(), "nonce": nonce });
    let symmetric = key.sign(&header, &claims);
    (header["alg"], header["typ"]) = (json!("ES256"), json!("JWT"));
    let typ = key.sign(&header, &claims);
    let (first, second) = (good(), good());
    let revoke = format!("{}/oauth/revoke", house.issuer);
    let proof = |method, url: &str, more: (&str, Value)| key.proof(method, url, &[("nonce", nonce.clone()), more]);
    let forged = format!("{}.{}", first.rsplit_once('.').unwrap().0, second.rsplit_once('.').unwrap().1);
    for (what, proofs, expected) in [
        ("another URL", vec![proof("POST", &revoke, ("x", json!(1)))], "invalid_dpop_proof"),
        ("another method", vec![proof("GET", &url, ("x", json!(1)))], "invalid_dpop_proof"),
        ("another key's signature", vec![forged], "invalid_dpop_proof"),
        ("the future", vec![proof("POST", &url, ("iat", json!(seconds() + 600)))], "invalid_dpop_proof"),
        ("the past", vec![proof("POST", &url, ("iat", json!(seconds() - 600)))], "invalid_dpop_proof"),
        ("a symmetric algorithm", vec![symmetric], "invalid_dpop_proof"),
        ("another type", vec![typ], "invalid_dpop_proof"),
        ("two proofs", vec![first.clone(), second.clone()], "invalid_dpop_proof"),
        ("no proof", vec!["a.b.c".into()], "invalid_dpop_proof"),
        ("an empty one", vec![String::new()], "invalid_dpop_proof"),
        ("a long one", vec!["a".repeat(6_000)], "invalid_dpop_proof"),
        ("a nonce of somebody else", vec![proof("POST", &url, ("nonce", json!("x")))], "use_dpop_nonce"),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        assert_eq!(error(&ask(&house, &grant, &proofs).await.0), (400, expected), "{what}");
    }
    // None of these used up what was good in them.
    for proof in [&first, &second] {
        assert_eq!(ask(&house, &grant, &[proof]).await.0.0, 200);
        assert_eq!(error(&ask(&house, &grant, &[proof]).await.0), (400, "invalid_dpop_proof"), "once");
    }
    // A stranger's proof is not even looked at: what it costs is a client's.
    let form = [("grant_type", "client_credentials"), ("resource", SEARCH)];
    let response = house.http.post(&url).header("DPoP", good()).form(&form).send().await.unwrap();
    assert_eq!(error(&read(response).await), (401, "invalid_client"));
    // After a restart an old proof has no nonce that counts.
    let unused = good();
    let house = House::of(Dev::start_in(house.dev.kill()));
    let url_after = format!("{}/oauth/token", house.issuer);
    assert_eq!(url_after, url, "the issuer keeps its port");
    assert_eq!(error(&ask(&house, &grant, &[&unused]).await.0), (400, "use_dpop_nonce"));
}

#[tokio::test]
async fn t188_a_token_is_bound_to_the_certificate_that_asked_and_ends_with_it() {
    let house = house();
    let grant = [("grant_type", "client_credentials"), ("resource", FILES)];
    let (answer, _) = ask(&house, &grant, &[]).await;
    assert_eq!(error(&answer), (400, "invalid_request"), "there is no certificate on this listener");
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    let metadata = get(&house.http, &format!("{}/.well-known/oauth-authorization-server", house.issuer)).await;
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    assert_eq!(metadata["dpop_signing_alg_values_supported"], json!(["ES256", "ES384", "EdDSA"]));
    let mtls = metadata["mtls_endpoint_aliases"]["token_endpoint"].as_str().unwrap();
    let form = [grant[0], grant[1], ("client_id", a1.as_str())];
    let answer = read(client(&house.dev, Some("a1")).post(mtls).form(&form).send().await.unwrap()).await;
    assert_eq!((answer.0, &answer.1["token_type"]), (200, &json!("Bearer")), "{answer:?}");
    let leaf = pem::parse_many(house.dev.file("a1/svid.pem")).unwrap()[0].contents().to_vec();
    let digest = mayfly_verify::sha256(&leaf);
    let token = answer.1["access_token"].as_str().unwrap();
    let cnf = json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(digest) });
    assert_eq!(house.verified(token, FILES).await.0["cnf"], cnf);
    let verify = |proved: &Possession| verifier(&house)(token, FILES, proved).map(drop).map_err(|e| e.code());
    assert_eq!(verify(&Possession { key: None, certificate: Some(digest) }), Ok(()));
    for stolen in [Possession::default(), Possession { key: Some(digest), certificate: None }] {
        assert_eq!(verify(&stolen), Err("CREDENTIAL_UNPROVED"));
    }
    // Over gRPC and by the command it is the same certificate.
    let got = house.dev.json("exchange --as a1 --audience https://files.example");
    assert_eq!(house.verified(got["access_token"].as_str().unwrap(), FILES).await.0["cnf"], cnf);
    // One that asks by a JWT-SVID cannot present what is bound to a certificate.
    let again = [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ACCESS), ("resource", SEARCH)];
    assert_eq!(error(&ask(&house, &again, &[]).await.0), (400, "invalid_request"));
    // For `any` the proof wins, at the address with certificates too.
    let key = Key::new();
    let form = [grant[0], ("resource", SEARCH), ("client_id", a1.as_str())];
    let send = async |proof: Option<String>| {
        let mut request = client(&house.dev, Some("a1")).post(mtls).form(&form);
        if let Some(proof) = proof {
            request = request.header("DPoP", proof);
        }
        let response = request.send().await.unwrap();
        let nonce = response.headers().get("dpop-nonce").map(|nonce| nonce.to_str().unwrap().to_owned());
        (read(response).await.1, nonce)
    };
    assert_eq!(send(None).await.0["token_type"], "Bearer");
    let (_, nonce) = send(Some(key.proof("POST", mtls, &[]))).await;
    let (got, _) = send(Some(key.proof("POST", mtls, &[("nonce", json!(nonce.unwrap()))]))).await;
    assert_eq!(got["token_type"], "DPoP", "{got}");
}
