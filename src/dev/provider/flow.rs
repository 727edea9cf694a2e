//! The provider's endpoints: discovery, keys, the authorization code flow with PKCE, and a shortcut for scripts.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{DefaultBodyLimit, Form, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::codes::{Codes, Grant};
use super::keys::Signer;
use super::{AUDIENCE, DEV_GRANT, REVOKES, USER, USERS};

/// Lifetime of a token in seconds. It is the longest lease of a development agent, because no lease outlasts the token that it
/// comes from.
const TOKEN_LIFE: u64 = 8 * 3600;
/// Lifetime of an ID-JAG in seconds.
const ID_JAG_LIFE: u64 = 300;
/// The clients, each with an audience of its own.
const CLIENTS: [&str; 3] = [AUDIENCE, REVOKES, USER];
const NO_CLIENT: &str = "`client_id` must be `mayfly-dev`, `mayfly-dev-user` or `mayfly-dev-revoke`";
/// Longest request body, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Longest audience, nonce or state, in bytes.
const MAX_PARAMETER: usize = 512;

/// The state that the endpoints share.
pub(super) struct Shared {
    pub(super) issuer: String,
    pub(super) signer: Signer,
    /// Guards the outstanding codes. It is held for one look-up.
    pub(super) codes: Mutex<Codes>,
}

/// The routes of all endpoints.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let issuer = &shared.issuer;
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", DEV_GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "scopes_supported": ["openid"],
        "claims_supported": ["iss", "sub", "aud", "iat", "auth_time", "exp", "groups", "nonce", "jti"],
    }))
}

async fn jwks(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "keys": [shared.signer.jwk()] }))
}

#[derive(Deserialize)]
struct AuthorizeRequest {
    client_id: Option<String>,
    redirect_uri: Option<String>,
    response_type: Option<String>,
    state: Option<String>,
    nonce: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    login_hint: Option<String>,
}

async fn authorize(State(shared): State<Arc<Shared>>, Query(request): Query<AuthorizeRequest>) -> Response {
    // ORDER: before any answer, so that none is redirected to another machine.
    let Some(redirect_uri) = request.redirect_uri.as_deref().filter(|uri| on_loopback(uri)) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "`redirect_uri` must be a loopback address");
    };
    let Some(client) = request.client_id.as_deref().filter(|client| CLIENTS.contains(client)) else {
        return error(StatusCode::BAD_REQUEST, "invalid_client", NO_CLIENT);
    };
    if [&request.state, &request.nonce].into_iter().flatten().any(|v| v.len() > MAX_PARAMETER) {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "`state` or `nonce` is too long");
    }
    let back = |answer: &[(&str, &str)]| redirect(&shared.issuer, redirect_uri, request.state.as_deref(), answer);
    if request.response_type.as_deref() != Some("code") {
        return back(&[("error", "unsupported_response_type")]);
    }
    let challenge = request.code_challenge.as_deref().filter(|c| c.len() == 43);
    let (Some(challenge), Some("S256")) = (challenge, request.code_challenge_method.as_deref()) else {
        return back(&[("error", "invalid_request"), ("error_description", "PKCE with S256 is required")]);
    };
    let Some(user) = request.login_hint.as_deref().filter(|user| USERS.contains(user)) else {
        return choose(&shared.issuer, &request);
    };
    let grant = Grant {
        user: user.to_owned(),
        client: client.to_owned(),
        redirect_uri: redirect_uri.to_owned(),
        nonce: request.nonce.clone(),
        challenge: challenge.to_owned(),
    };
    let code = shared.codes.lock().issue(grant, unix_now());
    match code {
        Some(code) => back(&[("code", &code)]),
        None => back(&[("error", "temporarily_unavailable")]),
    }
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    code: Option<String>,
    redirect_uri: Option<String>,
    client_id: Option<String>,
    code_verifier: Option<String>,
    user: Option<String>,
    audience: Option<String>,
    token_type: Option<String>,
    scope: Option<String>,
    resource: Option<String>,
}

async fn token(State(shared): State<Arc<Shared>>, Form(request): Form<TokenRequest>) -> Response {
    let now = unix_now();
    match request.grant_type.as_str() {
        "authorization_code" => {
            let Some(client) = request.client_id.as_deref().filter(|client| CLIENTS.contains(client)) else {
                return error(StatusCode::BAD_REQUEST, "invalid_client", NO_CLIENT);
            };
            let (Some(code), Some(uri), Some(verifier)) = (&request.code, &request.redirect_uri, &request.code_verifier) else {
                return error(
                    StatusCode::BAD_REQUEST,
                    "invalid_request",
                    "`code`, `redirect_uri` and `code_verifier` are required",
                );
            };
            let grant = shared.codes.lock().redeem(code, uri, verifier, now);
            let Some(grant) = grant.filter(|grant| grant.client == client) else {
                return error(
                    StatusCode::BAD_REQUEST,
                    "invalid_grant",
                    "the code is unknown, used, expired or not for this request",
                );
            };
            answer(&shared, &grant.user, client, grant.nonce.as_deref(), now, &[Kind::Id, Kind::Access])
        }
        DEV_GRANT => {
            let Some(user) = request.user.as_deref().filter(|user| USERS.contains(user)) else {
                return error(StatusCode::BAD_REQUEST, "invalid_request", "`user` must be `demo` or `guest`");
            };
            let audience = request.audience.as_deref().unwrap_or(AUDIENCE);
            if audience.is_empty() || audience.len() > MAX_PARAMETER || audience.chars().any(char::is_control) {
                return error(
                    StatusCode::BAD_REQUEST,
                    "invalid_target",
                    "`audience` is empty, too long, or has control characters",
                );
            }
            let kind = match request.token_type.as_deref() {
                None | Some("id") => Kind::Id,
                Some("access") => Kind::Access,
                Some("id-jag") => return id_jag(&shared, user, audience, &request, now),
                Some(_) => {
                    return error(StatusCode::BAD_REQUEST, "invalid_request", "`token_type` must be `id`, `access` or `id-jag`");
                }
            };
            answer(&shared, user, audience, None, now, &[kind])
        }
        _ => error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "use `authorization_code`"),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Id,
    Access,
}

/// The token response with one token of each kind.
fn answer(shared: &Shared, user: &str, audience: &str, nonce: Option<&str>, now: u64, kinds: &[Kind]) -> Response {
    let mut body = json!({ "token_type": "Bearer", "expires_in": TOKEN_LIFE });
    for kind in kinds {
        let mut claims = json!({
            "iss": shared.issuer,
            "sub": user,
            "aud": audience,
            "iat": now,
            // Its users have no password: a request signs them in.
            "auth_time": now,
            "groups": [if user == "demo" { "eng" } else { "guests" }],
            "exp": now.saturating_add(TOKEN_LIFE),
            "jti": Uuid::now_v7().to_string(),
        });
        let (name, typ) = match kind {
            Kind::Id => {
                set(&mut claims, "nonce", nonce);
                ("id_token", "JWT")
            }
            Kind::Access => {
                set(&mut claims, "client_id", Some(AUDIENCE));
                ("access_token", "at+jwt")
            }
        };
        match shared.signer.sign(typ, &claims) {
            Ok(token) => set(&mut body, name, Some(&token)),
            Err(_) => return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the token cannot be signed"),
        }
    }
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// The token response with an ID-JAG for the client that the request names (RFC 8693 2.2.1).
fn id_jag(shared: &Shared, user: &str, audience: &str, request: &TokenRequest, now: u64) -> Response {
    let fits = |value: &&str| (1..=MAX_PARAMETER).contains(&value.len()) && !value.chars().any(char::is_control);
    let Some(client) = request.client_id.as_deref().filter(fits) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "`client_id` says for which client the ID-JAG is");
    };
    let mut claims = json!({
        "iss": shared.issuer,
        "sub": user,
        "aud": audience,
        "client_id": client,
        "iat": now,
        "auth_time": now,
        "exp": now.saturating_add(ID_JAG_LIFE),
        "jti": Uuid::now_v7().to_string(),
    });
    for (name, value) in [("scope", &request.scope), ("resource", &request.resource)] {
        if value.as_deref().is_some_and(|value| !fits(&value)) {
            return error(StatusCode::BAD_REQUEST, "invalid_request", "`scope` or `resource` is empty or too long");
        }
        set(&mut claims, name, value.as_deref());
    }
    let Ok(token) = shared.signer.sign("oauth-id-jag+jwt", &claims) else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the token cannot be signed");
    };
    let issued = "urn:ietf:params:oauth:token-type:id-jag";
    let body = json!({ "access_token": token, "issued_token_type": issued, "token_type": "N_A", "expires_in": ID_JAG_LIFE });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Adds a member, unless `value` is `None`.
fn set(object: &mut Value, name: &str, value: Option<&str>) {
    if let (Some(members), Some(value)) = (object.as_object_mut(), value) {
        members.insert(name.to_owned(), value.into());
    }
}

/// The page on which a developer chooses a user.
fn choose(issuer: &str, request: &AuthorizeRequest) -> Response {
    let Ok(mut url) = Url::parse(&format!("{issuer}/authorize")) else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the issuer is not a URL");
    };
    let mut links = String::new();
    for user in USERS {
        let known = [
            ("client_id", &request.client_id),
            ("redirect_uri", &request.redirect_uri),
            ("response_type", &request.response_type),
            ("state", &request.state),
            ("nonce", &request.nonce),
            ("code_challenge", &request.code_challenge),
            ("code_challenge_method", &request.code_challenge_method),
        ];
        let mut pairs = url.query_pairs_mut();
        pairs.clear().append_pair("login_hint", user);
        for (name, value) in known {
            if let Some(value) = value {
                pairs.append_pair(name, value);
            }
        }
        drop(pairs);
        // Form encoding leaves only one character that is special in HTML: `&`.
        let link = url.as_str().replace('&', "&amp;");
        links.push_str(&format!("<li><a href=\"{link}\">{user}</a></li>"));
    }
    let page = format!("<!doctype html><title>Mayfly development</title><h1>Who are you?</h1><ul>{links}</ul>");
    let policy = "default-src 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")], Html(page)).into_response()
}

/// Sends the browser back to the client with `answer` as query parameters.
fn redirect(issuer: &str, to: &str, state: Option<&str>, answer: &[(&str, &str)]) -> Response {
    let Ok(mut url) = Url::parse(to) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "`redirect_uri` is not a URL");
    };
    {
        let mut pairs = url.query_pairs_mut();
        for (name, value) in answer {
            pairs.append_pair(name, value);
        }
        if let Some(state) = state {
            pairs.append_pair("state", state);
        }
        // RFC 9207: `iss` tells the client which provider responds.
        pairs.append_pair("iss", issuer);
    }
    let headers = [(header::LOCATION, url.as_str()), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn on_loopback(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else { return false };
    let local = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    let plain = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    local && plain && matches!(url.scheme(), "http" | "https")
}

fn error(status: StatusCode, code: &str, description: &str) -> Response {
    let body = json!({ "error": code, "error_description": description });
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
