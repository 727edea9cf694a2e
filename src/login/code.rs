//! Sign-in in a browser: the authorization code flow with PKCE (RFC 7636), back to a port on loopback (RFC 8252 7.3).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::sha256;
use reqwest::Url;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Found, LoginError, Provider, Tokens, random, refused, shown};

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Signs a person in. `open` gets the address of the page that they must visit.
pub async fn sign_in(provider: &Provider, open: impl FnOnce(&str)) -> Result<Tokens, LoginError> {
    let found = Found::of(provider).await?;
    // 1. The redirect address: a free port on loopback, for this sign-in only.
    let machine = |e: std::io::Error| LoginError::Machine(format!("no port on loopback: {e}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(machine)?;
    let back = format!("http://127.0.0.1:{}/callback", listener.local_addr().map_err(machine)?.port());
    // 2. The page. Its address contains only a digest of the PKCE verifier, with which no code can be redeemed.
    let (state, nonce, verifier) = (random()?, random()?, random()?);
    let page = page(&found, &back, [&state, &nonce, &challenge(&verifier)])?;
    // 3. The answer.
    let (told, mut answers) = mpsc::channel(1);
    let waiting = Waiting { state, expected: found.expected(), told };
    let router = Router::new().route("/callback", get(callback)).with_state(Arc::new(waiting));
    let serving = axum::serve(listener, router).into_future();
    open(page.as_str());
    let code = tokio::select! {
        answer = tokio::time::timeout(PATIENCE, answers.recv()) => {
            answer.ok().flatten().ok_or(LoginError::Late(PATIENCE.as_secs()))??
        }
        ended = serving => return Err(LoginError::Machine(format!("nothing listens on loopback any more: {ended:?}"))),
    };
    // 4. The code for tokens.
    let granted = found.grant(form(&code, &back, &verifier)).await?;
    found.wanted(granted.map_err(|refusal| refused(&refusal))?, Some(&nonce))
}

/// What a code is redeemed with.
pub(super) fn form<'f>(code: &'f str, back: &'f str, verifier: &'f str) -> Vec<(&'static str, &'f str)> {
    vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", back), ("code_verifier", verifier)]
}

/// What the provider is told of a verifier (RFC 7636 4.2).
pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()))
}

/// The address of the provider's page.
pub(super) fn page(found: &Found<'_>, back: &str, [state, nonce, challenge]: [&String; 3]) -> Result<Url, LoginError> {
    let none = || LoginError::Answer("it has no `authorization_endpoint`: try `mayfly login --device`".into());
    let endpoint = found.endpoints.authorization_endpoint.as_deref().ok_or_else(none)?;
    let url = Url::parse(endpoint).ok().filter(|url| url.scheme() == "https");
    let mut url = url.ok_or_else(|| LoginError::Answer(format!("`{}` is no page for a sign-in", shown(endpoint))))?;
    let scope = found.scope();
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &found.provider.client)
        .append_pair("redirect_uri", back)
        .append_pair("scope", &scope)
        .append_pair("state", state)
        .append_pair("nonce", nonce)
        .append_pair("code_challenge", challenge)
        .append_pair("code_challenge_method", "S256");
    if scope.split(' ').any(|scope| scope == "offline_access") {
        // OpenID Connect Core 11: without `prompt=consent` a provider ignores `offline_access`.
        query.append_pair("prompt", "consent");
    }
    if let Some(resource) = &found.provider.resource {
        query.append_pair("resource", resource);
    }
    drop(query);
    Ok(url)
}

struct Waiting {
    state: String,
    expected: Expected,
    told: mpsc::Sender<Result<String, LoginError>>,
}

/// Who answers.
pub(super) struct Expected {
    /// The provider.
    pub(super) issuer: String,
    /// Whether it says so in each answer (RFC 9207).
    pub(super) names_itself: bool,
}

/// The answer of a provider to an authorization request, as a browser brings it.
#[derive(Deserialize)]
pub struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Answer {
    /// Whether it answers the request with this state.
    pub fn is_to(&self, state: &str) -> bool {
        self.state.as_deref() == Some(state)
    }

    /// The code, if it is from that provider.
    pub(super) fn code(self, expected: &Expected) -> Result<String, LoginError> {
        // RFC 9207: an answer of another provider is refused.
        let other = match &self.iss {
            Some(iss) => *iss != expected.issuer,
            None => expected.names_itself,
        };
        match (other, self.code, self.error) {
            (true, ..) => Err(LoginError::Answer("it is from another provider".into())),
            (false, Some(code), None) => Ok(code),
            (false, _, Some(error)) => {
                let why = self.error_description.map_or_else(|| error.clone(), |text| format!("{error}: {text}"));
                Err(LoginError::Refused(shown(&why)))
            }
            (false, None, None) => Err(LoginError::Answer("it has neither a code nor an error".into())),
        }
    }
}

async fn callback(State(waiting): State<Arc<Waiting>>, Query(answer): Query<Answer>) -> Response {
    // T243: every program on this machine, and every page in the browser, can send requests here. A request without the right state
    // is ignored, so others can neither inject a code nor end the sign-in.
    if !answer.is_to(&waiting.state) {
        return told(StatusCode::BAD_REQUEST, "This is not an answer to the sign-in that waits here.");
    }
    let result = answer.code(&waiting.expected);
    let text =
        if result.is_ok() { "You are signed in. Go back to the terminal." } else { "You are not signed in: see the terminal." };
    // The first answer counts.
    let _ = waiting.told.try_send(result);
    told(StatusCode::OK, text)
}

fn told(status: StatusCode, text: &str) -> Response {
    let policy = "default-src 'none'; frame-ancestors 'none'";
    let headers = [(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Html(format!("<!doctype html><title>Mayfly</title><p>{text}</p>"))).into_response()
}
