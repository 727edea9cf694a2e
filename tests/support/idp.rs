//! An OIDC provider on this machine for sign-ins: discovery, keys, codes with PKCE, devices and refresh, each of which it can break.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test file uses what it needs"
)]

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mayfly_verify::sha256;
use reqwest::Url;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// What the provider will say to a sign-in.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub iss: Option<String>,
    pub error: Option<String>,
    pub nonce: Option<String>,
    pub audience: Option<String>,
    pub challenge: Option<String>,
    client: String,
    back: String,
}

/// What the provider says to a poll for the answer of a person whom it asked (CIBA).
#[derive(Clone, Debug)]
pub enum Says {
    /// An error code.
    Error(&'static str),
    /// An ID token with these claims, over those of an answer of `alice`.
    Agrees(Value),
    /// No HTTP answer that a client could read.
    Garbage,
}

/// A person whom the provider was to ask.
#[derive(Clone, Debug)]
pub struct Asked {
    pub form: HashMap<String, String>,
    pub at: Instant,
    /// When the client polled.
    pub polls: Vec<Instant>,
}

#[derive(Default)]
struct State {
    people: Vec<Asked>,
    /// What it says to the next polls, and then that nobody has answered.
    said: VecDeque<Says>,
    acknowledges: Option<(u16, Value)>,
    codes: HashMap<String, Answer>,
    refreshing: HashMap<String, String>,
    refreshed: usize,
    asked: usize,
    made: usize,
    lives: u64,
    ago: u64,
    breaks: String,
    waits: usize,
    refuses: bool,
    secret: Option<String>,
    revoked: Vec<String>,
}

pub struct Idp {
    url: String,
    state: Arc<Mutex<State>>,
    serving: Arc<Serving>,
}

impl Idp {
    /// Starts one, and writes its CA to a file.
    pub fn start(ca_file: &Path) -> Idp {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(ca_file, made.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let private = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], private).unwrap());
        let state = Arc::new(Mutex::new(State { lives: 600, ..State::default() }));
        let serving = Arc::new(Serving { url: url.clone(), key, state: Arc::clone(&state) });
        let kept = Arc::clone(&serving);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (serving, tls) = (Arc::clone(&serving), Arc::clone(&tls));
                std::thread::spawn(move || {
                    serving.connection(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream.unwrap()));
                });
            }
        });
        Idp { url, state, serving: kept }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A person visits the page of a sign-in, and agrees. Where their browser is sent then; `change` makes the answer another one.
    pub fn approve(&self, page: &str, change: impl FnOnce(&mut Answer)) -> String {
        let page = Url::parse(page).unwrap();
        assert!(page.as_str().starts_with(&format!("{}/authorize?", self.url)));
        let query: HashMap<String, String> = page.query_pairs().into_owned().collect();
        assert_eq!((query["response_type"].as_str(), query["code_challenge_method"].as_str()), ("code", "S256"));
        assert!(query["state"].len() >= 43 && query["nonce"].len() >= 43 && query["code_challenge"].len() == 43);
        // A command on this machine, or the page of an issuer.
        let scope = if query["redirect_uri"].starts_with("http://127.0.0.1:") { "openid offline_access" } else { "openid" };
        assert!(query["redirect_uri"].contains("://127.0.0.1:") && query["scope"] == scope);
        let mut answer = Answer {
            iss: Some(self.url.clone()),
            nonce: Some(query["nonce"].clone()),
            challenge: Some(query["code_challenge"].clone()),
            client: query["client_id"].clone(),
            back: query["redirect_uri"].clone(),
            ..Answer::default()
        };
        change(&mut answer);
        let mut back = Url::parse(&query["redirect_uri"]).unwrap();
        back.query_pairs_mut().append_pair("state", &query["state"]);
        if let Some(iss) = &answer.iss {
            back.query_pairs_mut().append_pair("iss", iss);
        }
        let mut state = self.state.lock().unwrap();
        match &answer.error {
            Some(error) => drop(back.query_pairs_mut().append_pair("error", error)),
            None => {
                state.made += 1;
                let code = format!("code-{}", state.made);
                back.query_pairs_mut().append_pair("code", &code);
                state.codes.insert(code, answer);
            }
        }
        back.to_string()
    }

    /// A token without a sign-in, which lives for so many seconds.
    pub fn issue(&self, audience: &str, lives: u64) -> String {
        self.serving.issue(audience, None, (0, lives))
    }

    /// Seconds for which tokens live from now on.
    pub fn lives(&self, seconds: u64) {
        self.state.lock().unwrap().lives = seconds;
    }

    /// Seconds ago at which tokens were issued from now on.
    pub fn issued_ago(&self, seconds: u64) {
        self.state.lock().unwrap().ago = seconds;
    }

    /// How often a token was refreshed.
    pub fn refreshed(&self) -> usize {
        self.state.lock().unwrap().refreshed
    }

    /// How often its token endpoint was asked for anything.
    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// The secret that every client needs from now on. `None` means that all are public.
    pub fn needs_secret(&self, secret: Option<&str>) {
        self.state.lock().unwrap().secret = secret.map(str::to_owned);
    }

    /// The refresh tokens that were revoked.
    pub fn revoked(&self) -> Vec<String> {
        self.state.lock().unwrap().revoked.clone()
    }

    /// Ends every sign-in: no refresh token counts any more.
    pub fn ends_sign_ins(&self) {
        self.state.lock().unwrap().refreshing.clear();
    }

    /// What is wrong with its discovery document from now on.
    pub fn breaks(&self, what: &str) {
        what.clone_into(&mut self.state.lock().unwrap().breaks);
    }

    /// How many questions about a device come before the person agrees.
    pub fn device_waits(&self, times: usize) {
        self.state.lock().unwrap().waits = times;
    }

    /// What it says to the next polls about people whom it asked.
    pub fn will_say(&self, said: impl IntoIterator<Item = Says>) {
        self.state.lock().unwrap().said.extend(said);
    }

    /// How it acknowledges that it asks somebody. `None` is the usual answer.
    pub fn acknowledges(&self, answer: Option<(u16, Value)>) {
        self.state.lock().unwrap().acknowledges = answer;
    }

    /// The people whom it was to ask.
    pub fn people(&self) -> Vec<Asked> {
        self.state.lock().unwrap().people.clone()
    }

    pub fn device_refuses(&self) {
        self.state.lock().unwrap().refuses = true;
    }
}

struct Serving {
    url: String,
    key: RsaKeyPair,
    state: Arc<Mutex<State>>,
}

impl Serving {
    fn connection(&self, mut tls: StreamOwned<ServerConnection, TcpStream>) {
        let (mut head, mut byte) = (Vec::new(), [0; 1]);
        while !head.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let lower = String::from_utf8_lossy(&head).to_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if tls.read_exact(&mut body).is_err() {
            return;
        }
        let mut form: HashMap<String, String> = url_decoded(&String::from_utf8_lossy(&body));
        let text = String::from_utf8_lossy(&head).into_owned();
        let authorization =
            text.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization")));
        if let Some(basic) = authorization.and_then(|(_, value)| value.strip_prefix("Basic ")) {
            let both = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
            let (client, secret) = both.split_once(':').unwrap();
            let both = url_decoded(&format!("client_id={client}&client_secret={secret}"));
            form.extend(both);
        }
        let head = text.to_lowercase();
        let asks_as_client = matches!(head.split(' ').nth(1), Some("/token" | "/device" | "/revoke" | "/ciba"));
        let stranger = asks_as_client && form.get("client_secret") != self.state.lock().unwrap().secret.as_ref();
        let (status, answer) = match head.split(' ').nth(1).unwrap_or_default() {
            _ if stranger => (401, json!({ "error": "invalid_client" }).to_string()),
            "/revoke" => {
                let mut state = self.state.lock().unwrap();
                let token = form.get("token").cloned().unwrap_or_default();
                assert_eq!(form.get("token_type_hint").map(String::as_str), Some("refresh_token"));
                state.refreshing.remove(&token);
                state.revoked.push(token);
                (200, String::new())
            }
            "/.well-known/openid-configuration" => (200, self.discovery()),
            "/jwks" => (200, self.jwks()),
            "/token" => self.token(&form),
            "/device" => (200, self.device()),
            "/ciba" => self.asks(form),
            _ => (404, json!({}).to_string()),
        };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close");
        let _ = write!(tls, "{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        tls.conn.send_close_notify();
        let _ = tls.flush();
    }

    fn discovery(&self) -> String {
        let (url, breaks) = (&self.url, self.state.lock().unwrap().breaks.clone());
        let mut document = json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "device_authorization_endpoint": format!("{url}/device"),
            "revocation_endpoint": format!("{url}/revoke"),
            "jwks_uri": format!("{url}/jwks"),
            "backchannel_authentication_endpoint": format!("{url}/ciba"),
            "authorization_details_types_supported": ["payment"],
            "scopes_supported": ["openid", "offline_access"],
            "authorization_response_iss_parameter_supported": true,
        });
        match breaks.as_str() {
            "issuer" => document["issuer"] = "https://other.example".into(),
            "page" => document["authorization_endpoint"] = "http://other.example/authorize".into(),
            "device" => drop(document.as_object_mut().unwrap().remove("device_authorization_endpoint")),
            "secrets" => document["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]),
            "revocation" => drop(document.as_object_mut().unwrap().remove("revocation_endpoint")),
            "garbage" => return "<html>".into(),
            "long" => document["padding"] = "x".repeat(300_000).into(),
            _ => {}
        }
        document.to_string()
    }

    fn jwks(&self) -> String {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (self.key.public_key().modulus(), self.key.public_key().exponent());
        let (n, e) = (b64(n.big_endian_without_leading_zero()), b64(e.big_endian_without_leading_zero()));
        json!({ "keys": [{ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": n, "e": e }] }).to_string()
    }

    fn device(&self) -> String {
        json!({
            "device_code": "the-device", "user_code": "WDJB-MJHT", "expires_in": 60, "interval": 1,
            "verification_uri": format!("{}/device", self.url),
        })
        .to_string()
    }

    /// Keeps the request. Its id says which one it is.
    fn asks(&self, form: HashMap<String, String>) -> (u16, String) {
        let mut state = self.state.lock().unwrap();
        state.people.push(Asked { form, at: Instant::now(), polls: Vec::new() });
        let usual = json!({ "auth_req_id": format!("req-{}", state.people.len() - 1), "expires_in": 120, "interval": 1 });
        let (status, answer) = state.acknowledges.clone().unwrap_or((200, usual));
        (status, answer.to_string())
    }

    fn answer(&self, form: &HashMap<String, String>) -> (u16, String) {
        let mut state = self.state.lock().unwrap();
        let at = form["auth_req_id"].strip_prefix("req-").unwrap().parse::<usize>().unwrap();
        state.people[at].polls.push(Instant::now());
        let client = state.people[at].form["client_id"].clone();
        match state.said.pop_front().unwrap_or(Says::Error("authorization_pending")) {
            Says::Error(error) => (400, json!({ "error": error }).to_string()),
            Says::Garbage => (500, "<html>".into()),
            Says::Agrees(claims) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                let mut all = json!({
                    "iss": self.url, "sub": "alice", "aud": client, "iat": now, "exp": now + 600, "acr": "urn:test:phone",
                });
                for (name, value) in claims.as_object().unwrap() {
                    all[name] = value.clone();
                }
                (200, json!({ "access_token": "x", "token_type": "Bearer", "id_token": self.sign(&all) }).to_string())
            }
        }
    }

    fn token(&self, form: &HashMap<String, String>) -> (u16, String) {
        if form.get("grant_type").is_some_and(|grant| grant == "urn:openid:params:grant-type:ciba") {
            return self.answer(form);
        }
        let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let refused = |error: &str| (400, json!({ "error": error }).to_string());
        let mut state = self.state.lock().unwrap();
        state.asked += 1;
        let (client, audience, nonce) = match of("grant_type") {
            "authorization_code" => {
                let Some(answer) = state.codes.remove(of("code")) else { return refused("invalid_grant") };
                let challenge = URL_SAFE_NO_PAD.encode(sha256(of("code_verifier").as_bytes()));
                if answer.challenge != Some(challenge) || answer.client != of("client_id") || answer.back != of("redirect_uri") {
                    return refused("invalid_grant");
                }
                (answer.client.clone(), answer.audience.clone().unwrap_or(answer.client), answer.nonce)
            }
            "refresh_token" => {
                // Each counts once.
                let Some(client) = state.refreshing.remove(of("refresh_token")) else { return refused("invalid_grant") };
                state.refreshed += 1;
                (client.clone(), client, None)
            }
            "urn:ietf:params:oauth:grant-type:device_code" if of("device_code") == "the-device" => {
                if state.refuses {
                    return refused("access_denied");
                }
                if state.waits > 0 {
                    state.waits -= 1;
                    return refused("authorization_pending");
                }
                (of("client_id").to_owned(), of("client_id").to_owned(), None)
            }
            _ => return refused("unsupported_grant_type"),
        };
        state.made += 1;
        let refresh = format!("refresh-{}", state.made);
        state.refreshing.insert(refresh.clone(), client);
        let token = self.issue(&audience, nonce.as_deref(), (state.ago, state.lives));
        (200, json!({ "id_token": token, "refresh_token": refresh, "token_type": "Bearer" }).to_string())
    }

    /// An ID token of `alice`, issued and ending so many seconds ago and ahead.
    fn issue(&self, audience: &str, nonce: Option<&str>, (ago, lives): (u64, u64)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.sign(&json!({
            "iss": self.url, "sub": "alice", "aud": audience, "iat": now - ago, "exp": now + lives, "nonce": nonce,
            "groups": ["staff", "ops"], "jti": format!("{now}"),
        }))
    }

    fn sign(&self, claims: &Value) -> String {
        let b64 = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", b64(&json!({ "typ": "JWT", "alg": "RS256", "kid": "k1" })), b64(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn url_decoded(text: &str) -> HashMap<String, String> {
    Url::parse(&format!("http://x/?{text}")).unwrap().query_pairs().into_owned().collect()
}

/// Where a page over TLS sends a browser, which trusts the CA in a file.
pub fn location(url: &str, ca_file: &Path) -> String {
    let url = Url::parse(url).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = url.host_str().unwrap().to_owned().try_into().unwrap();
    let stream = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    write!(tls, "GET {}?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", url.path(), url.query().unwrap()).unwrap();
    let mut text = String::new();
    let _ = tls.read_to_string(&mut text);
    let line = text.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
    line.unwrap_or_else(|| panic!("{text}"))
}
