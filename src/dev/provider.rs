//! A small OpenID provider for development, over HTTPS and verified like any other: users `demo` and `guest`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::sha256;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::authority::keystore::Keystore;
use crate::clock::{Clock, SECOND};
use crate::doors::listen;

/// The audience of its tokens.
pub const AUDIENCE: &str = "mayfly-dev";
/// Its users.
pub const USERS: [&str; 2] = ["demo", "guest"];
/// Seconds its tokens last: as long as a development agent may live.
pub const TOKEN_LIFE: u64 = 8 * 3600;
/// The grant by which `mayfly token` gets one without a browser.
const DEV_GRANT: &str = "urn:mayfly:dev:user";
/// Authorization codes that wait to be exchanged, at most, and for how long in microseconds.
const CODES: usize = 100;
const CODE_LIFE: u64 = 60 * SECOND;

/// What the provider serves with.
pub struct Provider {
    /// Its issuer URL.
    pub issuer: String,
    /// PEM of the CA of its server certificate.
    pub ca_file: PathBuf,
    /// Its endpoints.
    pub router: Router,
    /// Its TLS settings.
    pub tls: rustls::ServerConfig,
}

struct Code {
    user: String,
    client: String,
    redirect: String,
    challenge: String,
    nonce: Option<String>,
    made_at: u64,
}

struct Inner {
    issuer: String,
    key: EcdsaKeyPair,
    kid: String,
    clock: Clock,
    // Guards the codes that are out; single use, a minute each.
    codes: Mutex<HashMap<String, Code>>,
}

/// Prepares the provider that will listen on `port` of the loopback address. Its keys live in `dir`.
pub fn prepare(dir: &Path, port: u16, clock: Clock) -> io::Result<Provider> {
    let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let store = Keystore::open(dir).map_err(|e| other(&e))?;
    let load = |name: &str| -> io::Result<KeyPair> {
        if let Some(text) = store.read(name).map_err(|e| other(&e))? {
            return KeyPair::from_pem(&text).map_err(|e| other(&e));
        }
        let key = KeyPair::generate().map_err(|e| other(&e))?;
        store.write(name, Zeroizing::new(key.serialize_pem()).as_bytes()).map_err(|e| other(&e))?;
        Ok(key)
    };
    // A CA of its own, so that the issuer verifies it by a CA file as it would any provider.
    let ca_key = load("oidc-ca.key")?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name = rcgen::DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, "Mayfly development provider");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (ca.not_before, ca.not_after) = life(&clock, 3650)?;
    let ca_cert = ca.self_signed(&ca_key).map_err(|e| other(&e))?;
    let ca_file = dir.join("oidc-ca.pem");
    store.write("oidc-ca.pem", ca_cert.pem().as_bytes()).map_err(|e| other(&e))?;

    let leaf_key = KeyPair::generate().map_err(|e| other(&e))?;
    let mut leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).map_err(|e| other(&e))?;
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = life(&clock, 90)?;
    let issuer = Issuer::new(ca, ca_key);
    let leaf = leaf.signed_by(&leaf_key, &issuer).map_err(|e| other(&e))?;
    let tls = listen::tls(vec![leaf.der().clone()], &Zeroizing::new(leaf_key.serialize_der()), None, None);

    let signing = load("oidc.key")?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, signing.serialized_der()).map_err(|e| other(&e))?;
    let kid = URL_SAFE_NO_PAD.encode(sha256(key.public_key().as_ref()).get(..8).unwrap_or_default());
    let issuer = format!("https://127.0.0.1:{port}");
    let inner = Arc::new(Inner { issuer: issuer.clone(), key, kid, clock, codes: Mutex::default() });
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .with_state(inner);
    Ok(Provider { issuer, ca_file, router, tls: tls.map_err(|e| other(&e))? })
}

/// Fetches an ID token of one of its users, without a browser.
pub async fn fetch_token(issuer: &str, ca_file: &Path, user: &str) -> Result<String, String> {
    let pem = std::fs::read(ca_file).map_err(|e| format!("`{}`: {e}", ca_file.display()))?;
    let certs = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| e.to_string())?;
    let client = reqwest::Client::builder().tls_backend_rustls().tls_certs_only(certs).https_only(true).no_proxy();
    let client = client.timeout(std::time::Duration::from_secs(5)).build().map_err(|e| e.to_string())?;
    let form = [("grant_type", DEV_GRANT), ("user", user)];
    let response = client.post(format!("{issuer}/token")).form(&form).send().await;
    let response = response.map_err(|e| format!("cannot reach the development provider at {issuer}: {e}"))?;
    let body = response.bytes().await.map_err(|e| e.to_string())?;
    let body: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    match body.get("id_token").and_then(Value::as_str) {
        Some(token) => Ok(token.to_owned()),
        None => Err(body.get("error_description").and_then(Value::as_str).unwrap_or("no token").to_owned()),
    }
}

async fn discovery(State(inner): State<Arc<Inner>>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", inner.issuer);
    Json(json!({
        "issuer": inner.issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"], "scopes_supported": ["openid"],
        "grant_types_supported": ["authorization_code", DEV_GRANT], "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
    }))
}

async fn jwks(State(inner): State<Arc<Inner>>) -> Json<Value> {
    let point = inner.key.public_key().as_ref();
    let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
    let (x, y) = (coordinate(1), coordinate(33));
    Json(json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": inner.kid, "x": x, "y": y }] }))
}

#[derive(Deserialize)]
struct Authorize {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    code_challenge: String,
    code_challenge_method: String,
    #[serde(default)]
    state: String,
    nonce: Option<String>,
    login_hint: Option<String>,
}

async fn authorize(State(inner): State<Arc<Inner>>, Query(query): Query<Authorize>) -> Response {
    let loopback = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
    if !loopback.iter().any(|l| query.redirect_uri.starts_with(l)) || query.client_id != AUDIENCE {
        return (StatusCode::BAD_REQUEST, "the client is `mayfly-dev`, and it is redirected to loopback only\n").into_response();
    }
    if query.response_type != "code" || query.code_challenge_method != "S256" {
        return (StatusCode::BAD_REQUEST, "the flow is `code` with PKCE S256\n").into_response();
    }
    let Some(user) = query.login_hint.as_deref().filter(|u| USERS.contains(u)) else {
        return Html("<p>Development users: add <code>&amp;login_hint=demo</code> or <code>guest</code> to this address.</p>")
            .into_response();
    };
    let Ok(code) = random() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let now = inner.clock.now();
    let mut codes = inner.codes.lock();
    codes.retain(|_, c| now < c.made_at.saturating_add(CODE_LIFE));
    if codes.len() >= CODES {
        return (StatusCode::TOO_MANY_REQUESTS, "too many sign-ins are open\n").into_response();
    }
    let joint = if query.redirect_uri.contains('?') { '&' } else { '?' };
    let to = format!("{}{joint}code={code}&state={}", query.redirect_uri, percent(&query.state));
    let made = Code {
        user: user.to_owned(),
        client: query.client_id,
        redirect: query.redirect_uri,
        challenge: query.code_challenge,
        nonce: query.nonce,
        made_at: now,
    };
    codes.insert(code, made);
    Redirect::to(&to).into_response()
}

async fn token(State(inner): State<Arc<Inner>>, Form(form): Form<HashMap<String, String>>) -> Response {
    let refuse = |error: &str, text: &str| {
        (StatusCode::BAD_REQUEST, Json(json!({ "error": error, "error_description": text }))).into_response()
    };
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let now = inner.clock.now();
    let (user, nonce) = match field("grant_type") {
        DEV_GRANT => match USERS.iter().find(|u| **u == field("user")) {
            Some(user) => ((*user).to_owned(), None),
            None => return refuse("invalid_grant", "there is no such development user: take `demo` or `guest`"),
        },
        "authorization_code" => {
            let known = inner.codes.lock().remove(field("code"));
            let proved = URL_SAFE_NO_PAD.encode(sha256(field("code_verifier").as_bytes()));
            match known {
                Some(c)
                    if now < c.made_at.saturating_add(CODE_LIFE)
                        && c.challenge == proved
                        && c.redirect == field("redirect_uri")
                        && c.client == field("client_id") =>
                {
                    (c.user, c.nonce)
                }
                _ => return refuse("invalid_grant", "the code is unknown, over, or of somebody else"),
            }
        }
        _ => return refuse("unsupported_grant_type", "take the authorization code flow"),
    };
    match inner.sign(&user, nonce, now / SECOND) {
        Ok(id_token) => Json(json!({ "token_type": "Bearer", "expires_in": TOKEN_LIFE, "access_token": id_token,
            "id_token": id_token }))
        .into_response(),
        Err(e) => refuse("server_error", &e),
    }
}

impl Inner {
    fn sign(&self, user: &str, nonce: Option<String>, now: u64) -> Result<String, String> {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "JWT" });
        let mut claims = json!({ "iss": self.issuer, "sub": user, "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_LIFE,
            "jti": random()? });
        if let (Some(nonce), Some(map)) = (nonce, claims.as_object_mut()) {
            map.insert("nonce".into(), nonce.into());
        }
        let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).map_err(|e| e.to_string())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

fn random() -> Result<String, String> {
    let mut bytes = [0u8; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn life(clock: &Clock, days: u64) -> io::Result<(time::OffsetDateTime, time::OffsetDateTime)> {
    let at = |s: u64| time::OffsetDateTime::from_unix_timestamp(i64::try_from(s).unwrap_or(0)).map_err(io::Error::other);
    let now = clock.seconds();
    Ok((at(now.saturating_sub(60))?, at(now + days * 86_400)?))
}
