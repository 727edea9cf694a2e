//! The provider as its clients see it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::codes::challenge_of;
use super::*;
use crate::assertion::{Assertions, AudienceSettings, IssuerSettings, Presenter, Refusal};

const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";

async fn provider(dir: &TempDir) -> Provider {
    Provider::start(dir.path(), TcpListener::bind("127.0.0.1:0").await.unwrap()).await.unwrap()
}

fn settings(issuer: &str, ca_file: &Path) -> IssuerSettings {
    let workloads = vec!["orchestrator".parse().unwrap()];
    let audience = AudienceSettings {
        audience: AUDIENCE.into(),
        workloads,
        scopes: None,
        max_lease: None,
        revokes: false,
        user: false,
        sign_in: false,
        asks: None,
        operates: false,
        id_jag: false,
    };
    IssuerSettings { ca_file: Some(ca_file.to_owned()), audiences: vec![audience], ..IssuerSettings::new("dev", issuer) }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn body(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_fetched_token_is_verified_like_any_other() {
    let dir = TempDir::new().unwrap();
    let provider = provider(&dir).await;
    let token = fetch_token(provider.issuer(), provider.ca_file(), "demo", AUDIENCE, &[]).await.unwrap();
    let assertions = Assertions::new(vec![settings(provider.issuer(), provider.ca_file())]).unwrap();
    let delegator = assertions.verify(&token, now(), Presenter::Certified).await.unwrap();
    assert_eq!((delegator.user().iss.as_str(), delegator.user().sub.as_str()), (provider.issuer(), "demo"));
    assert_eq!(delegator.expires_at() - delegator.issued_at(), 8 * 3600);
    assert_eq!(delegator.workloads(), ["orchestrator".parse().unwrap()]);
    provider.shutdown().await;
}

#[tokio::test]
async fn the_shortcut_also_issues_access_tokens() {
    let dir = TempDir::new().unwrap();
    let provider = provider(&dir).await;
    let client = https_client(Some(provider.ca_file())).unwrap();
    let form = [("grant_type", DEV_GRANT), ("user", "guest"), ("token_type", "access")];
    let answer = body(client.post(format!("{}/token", provider.issuer())).form(&form).send().await.unwrap()).await;
    let assertions = Assertions::new(vec![settings(provider.issuer(), provider.ca_file())]).unwrap();
    let delegator = assertions.verify(answer["access_token"].as_str().unwrap(), now(), Presenter::Certified).await.unwrap();
    assert_eq!(delegator.user().sub, "guest");
}

#[tokio::test]
async fn nobody_but_demo_and_guest_gets_a_token() {
    let dir = TempDir::new().unwrap();
    let provider = provider(&dir).await;
    let refused = fetch_token(provider.issuer(), provider.ca_file(), "root", AUDIENCE, &[]).await.unwrap_err();
    assert_eq!(refused.code(), "PROVIDER_REFUSED");
}

#[tokio::test]
async fn a_provider_under_another_ca_is_unavailable() {
    let dir = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    let provider = provider(&dir).await;
    let stranger = Ca::open(other.path()).unwrap();
    let token = fetch_token(provider.issuer(), provider.ca_file(), "demo", AUDIENCE, &[]).await.unwrap();
    let assertions = Assertions::new(vec![settings(provider.issuer(), stranger.file())]).unwrap();
    let refusal = assertions.verify(&token, now(), Presenter::Certified).await.unwrap_err();
    assert_eq!((refusal, refusal.code()), (Refusal::IssuerUnavailable, "USER_ISSUER_UNAVAILABLE"));
    let refused = fetch_token(provider.issuer(), stranger.file(), "demo", AUDIENCE, &[]).await.unwrap_err();
    assert_eq!(refused.code(), "PROVIDER_UNREACHABLE");
}

#[tokio::test]
async fn t167_a_ca_file_that_changes_is_read_again_by_itself() {
    let dir = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    let provider = provider(&dir).await;
    let file = other.path().join("ca.pem");
    std::fs::copy(Ca::open(other.path()).unwrap().file(), &file).unwrap();
    let token = fetch_token(provider.issuer(), provider.ca_file(), "demo", AUDIENCE, &[]).await.unwrap();
    let assertions = Assertions::new(vec![settings(provider.issuer(), &file)]).unwrap();
    let at = now();
    assert_eq!(assertions.verify(&token, at, Presenter::Certified).await.unwrap_err(), Refusal::IssuerUnavailable);
    std::fs::copy(provider.ca_file(), &file).unwrap();
    // The pause after a failure has passed.
    assert!(assertions.verify(&token, at + 5, Presenter::Certified).await.is_ok());
    // A file that cannot be used changes nothing.
    std::fs::write(&file, "no certificate").unwrap();
    let again = assertions.again(vec![settings(provider.issuer(), &file)]).unwrap();
    assert!(again.verify(&token, at + 6, Presenter::Certified).await.is_ok(), "a reload keeps the keys that were fetched");
}

#[tokio::test]
async fn keys_and_ca_stay_across_restarts_and_are_private() {
    let dir = TempDir::new().unwrap();
    let first = provider(&dir).await;
    let ca = std::fs::read(first.ca_file()).unwrap();
    let address = first.issuer().to_owned();
    let token = fetch_token(first.issuer(), first.ca_file(), "demo", AUDIENCE, &[]).await.unwrap();
    first.shutdown().await;
    let listener = TcpListener::bind(address.strip_prefix("https://").unwrap()).await.unwrap();
    let second = Provider::start(dir.path(), listener).await.unwrap();
    assert_eq!(std::fs::read(second.ca_file()).unwrap(), ca);
    let assertions = Assertions::new(vec![settings(second.issuer(), second.ca_file())]).unwrap();
    assert!(assertions.verify(&token, now(), Presenter::Certified).await.is_ok());
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_key_others_may_read_is_refused() {
    let dir = TempDir::new().unwrap();
    provider(&dir).await.shutdown().await;
    std::fs::set_permissions(dir.path().join("oidc-signing.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(Provider::start(dir.path(), listener).await.is_err());
}

#[test]
fn it_serves_on_loopback_only() {
    for (address, good) in
        [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("[::]:1", false), ("10.0.0.1:1", false)]
    {
        assert_eq!(require_loopback(address.parse().unwrap()).is_ok(), good, "{address}");
    }
}

#[tokio::test]
async fn the_code_flow_needs_pkce_and_works_once() {
    let dir = TempDir::new().unwrap();
    let provider = provider(&dir).await;
    let client = https_client(Some(provider.ca_file())).unwrap();
    let challenge = challenge_of(VERIFIER);
    let callback = "http://127.0.0.1:9/cb";
    let authorize = |change: (&str, &str)| {
        let mut url = reqwest::Url::parse(&format!("{}/authorize", provider.issuer())).unwrap();
        for (name, value) in [
            ("client_id", AUDIENCE),
            ("redirect_uri", callback),
            ("response_type", "code"),
            ("state", "s<\">"),
            ("nonce", "n1"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("login_hint", "demo"),
        ] {
            url.query_pairs_mut().append_pair(name, if name == change.0 { change.1 } else { value });
        }
        client.get(url).send()
    };
    let location = |answer: &reqwest::Response| {
        let to = reqwest::Url::parse(answer.headers().get("location").unwrap().to_str().unwrap()).unwrap();
        to.query_pairs().into_owned().collect::<std::collections::HashMap<_, _>>()
    };

    // Nothing is issued to another machine, to another client, or without S256.
    for (name, value) in
        [("redirect_uri", "https://example.org/cb"), ("redirect_uri", "http://127.0.0.1@evil/"), ("client_id", "x")]
    {
        assert_eq!(authorize((name, value)).await.unwrap().status(), 400, "{name} {value}");
    }
    for (name, value) in [("code_challenge_method", "plain"), ("code_challenge", "short")] {
        let sent = location(&authorize((name, value)).await.unwrap());
        assert_eq!(sent["error"], "invalid_request", "{name} {value}");
    }
    // Without a user there is a page of users, and everything from the request is escaped.
    let page = authorize(("login_hint", "")).await.unwrap().text().await.unwrap();
    assert!(page.contains(">demo</a>") && page.contains(">guest</a>") && !page.contains("s<"));

    let sent = location(&authorize(("", "")).await.unwrap());
    assert_eq!((sent["state"].as_str(), sent["iss"].as_str()), ("s<\">", provider.issuer()));
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", AUDIENCE),
        ("redirect_uri", callback),
        ("code", &sent["code"]),
        ("code_verifier", VERIFIER),
    ];
    let redeem = || client.post(format!("{}/token", provider.issuer())).form(&form).send();
    let answer = body(redeem().await.unwrap()).await;
    let assertions = Assertions::new(vec![settings(provider.issuer(), provider.ca_file())]).unwrap();
    for name in ["id_token", "access_token"] {
        assert!(assertions.verify(answer[name].as_str().unwrap(), now(), Presenter::Certified).await.is_ok(), "{name}");
    }
    assert_eq!(body(redeem().await.unwrap()).await["error"], "invalid_grant");
}

/// A server with a leaf of the CA in `dir`, which answers every path with `answer`.
async fn impostor(dir: &TempDir, answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static) -> Impostor {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://{}", listener.local_addr().unwrap());
    let tls = Ca::open(dir.path()).unwrap().server_config(listener.local_addr().unwrap().ip()).unwrap();
    let own = issuer.clone();
    let router = Router::new().fallback(move || std::future::ready(answer(&own)));
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, tls, router, stop.clone()));
    Impostor { issuer, _stop: stop.drop_guard() }
}

struct Impostor {
    issuer: String,
    _stop: tokio_util::sync::DropGuard,
}

async fn verify_at(impostor: &Impostor, dir: &TempDir) -> Result<(), Refusal> {
    let ca = Ca::open(dir.path()).unwrap();
    let claims = json!({ "iss": impostor.issuer, "sub": "demo", "aud": AUDIENCE, "iat": now(), "exp": now() + 60 });
    let token = Signer::open(dir.path()).unwrap().sign("JWT", &claims).unwrap();
    let assertions = Assertions::new(vec![settings(&impostor.issuer, ca.file())]).unwrap();
    assertions.verify(&token, now(), Presenter::Certified).await.map(|_| ())
}

/// One document that is both a discovery document and a JWK Set.
fn document(issuer: &str, jwks_uri: &str, jwk: &Value) -> String {
    json!({ "issuer": issuer, "jwks_uri": jwks_uri, "keys": [jwk] }).to_string()
}

#[tokio::test]
async fn t08_only_the_issuers_own_document_leads_to_keys() {
    let dir = TempDir::new().unwrap();
    let honest = provider(&dir).await;
    let jwk = Signer::open(dir.path()).unwrap().jwk().clone();

    // Control: a valid response. Each response below has one fault, and keys that would verify the token.
    let key = jwk.clone();
    let right = impostor(&dir, move |own| document(own, &format!("{own}/jwks"), &key).into_response()).await;
    assert_eq!(verify_at(&right, &dir).await, Ok(()));

    let key = jwk.clone();
    let other_issuer =
        impostor(&dir, move |own| document(&format!("{own}/"), &format!("{own}/jwks"), &key).into_response()).await;
    let key = jwk.clone();
    let keys_of = honest.issuer().to_owned();
    let other_origin = impostor(&dir, move |own| document(own, &format!("{keys_of}/jwks"), &key).into_response()).await;
    let key = jwk.clone();
    let not_tls = impostor(&dir, move |own| document(own, &own.replace("https", "http"), &key).into_response()).await;
    let key = jwk.clone();
    let too_large = impostor(&dir, move |own| {
        format!("{}{}", " ".repeat(256 * 1024), document(own, &format!("{own}/jwks"), &key)).into_response()
    });
    let failing = impostor(&dir, move |own| (StatusCode::NOT_FOUND, document(own, &format!("{own}/jwks"), &jwk)).into_response());
    let too_large = too_large.await;
    let failing = failing.await;
    for (what, at) in
        [("issuer", other_issuer), ("origin", other_origin), ("scheme", not_tls), ("size", too_large), ("status", failing)]
    {
        assert_eq!(verify_at(&at, &dir).await, Err(Refusal::IssuerUnavailable), "{what}");
    }
}

#[tokio::test]
async fn t08_a_redirect_of_the_key_document_is_refused() {
    let dir = TempDir::new().unwrap();
    let honest = provider(&dir).await;
    let keys = format!("{}/jwks", honest.issuer());
    let redirecting = impostor(&dir, move |_| Redirect::temporary(&keys).into_response()).await;
    let issuer = "https://issuer.test";
    let claims = json!({ "iss": issuer, "sub": "demo", "aud": AUDIENCE, "iat": now(), "exp": now() + 60 });
    let token = Signer::open(dir.path()).unwrap().sign("JWT", &claims).unwrap();
    let jwks_url = Some(format!("{}/jwks", redirecting.issuer));
    let assertions = Assertions::new(vec![IssuerSettings { jwks_url, ..settings(issuer, honest.ca_file()) }]).unwrap();
    assert_eq!(assertions.verify(&token, now(), Presenter::Certified).await.unwrap_err(), Refusal::IssuerUnavailable);
}

#[tokio::test]
async fn a_configured_jwks_url_may_be_at_another_origin() {
    let dir = TempDir::new().unwrap();
    let honest = provider(&dir).await;
    let issuer = "https://issuer.test/";
    let claims = json!({ "iss": issuer, "sub": "demo", "aud": AUDIENCE, "iat": now(), "exp": now() + 60 });
    let token = Signer::open(dir.path()).unwrap().sign("JWT", &claims).unwrap();
    let jwks_url = Some(format!("{}/jwks", honest.issuer()));
    let assertions = Assertions::new(vec![IssuerSettings { jwks_url, ..settings(issuer, honest.ca_file()) }]).unwrap();
    assert_eq!(assertions.verify(&token, now(), Presenter::Certified).await.unwrap().user().iss, issuer);
}
