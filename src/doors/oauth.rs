//! The endpoints of OAuth: tokens, introspection and revocation (RFC 6749, 7009, 7662, 8693). They are served on the HTTPS
//! listener, and on the gRPC listener, which asks for client certificates.

mod backchannel;
mod client;
mod form;
mod possession;
mod refusal;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mayfly_verify::{DPOP_ALGORITHMS, Target};
use serde_json::{Value, json};

use super::peer::Peer;
use super::{https, status, told};
use crate::acts::{Issuer, client as clients, dpop, exchange, introspect, revoke, revoke_token};
use crate::caller::{Caller, Origin};
use crate::denial::{Denial, No};
use crate::judge::access::Action;
use crate::judge::profile::Form as IssuedAs;
use crate::state::Confirmation;
use backchannel::CIBA;
use form::Form;
use refusal::Refusal;

/// The grants of the token endpoint.
pub const GRANTS: [&str; 4] = [EXCHANGE, JWT_BEARER, CLIENT_CREDENTIALS, CIBA];
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CLIENT_CREDENTIALS: &str = "client_credentials";

/// The methods of client authentication: by a JWT-SVID or an X.509-SVID, each under its name in the SPIFFE draft and under the one
/// that existing clients know.
pub const METHODS: [&str; 4] = ["spiffe_jwt", "spiffe_x509", "private_key_jwt", "tls_client_auth"];

/// The content type of a signed introspection response (RFC 9701).
const SIGNED: &str = "application/token-introspection+jwt";

/// Types of tokens (RFC 8693 3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The grant of an ID-JAG (draft-ietf-oauth-identity-assertion-authz-grant).
const PROFILE: &str = "urn:ietf:params:oauth:grant-profile:id-jag";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

/// What the endpoints need.
#[derive(Clone)]
struct Served {
    issuer: Arc<Issuer>,
    /// The issuer's URL, and the URL at the address that asks for client certificates.
    names: [Arc<str>; 2],
}

impl Served {
    /// The URLs of an endpoint.
    fn urls(&self, endpoint: &str) -> [String; 2] {
        self.names.each_ref().map(|name| format!("{name}/oauth/{endpoint}"))
    }
}

/// The routes below the path of the issuer's URL.
pub fn router(issuer: &Arc<Issuer>, about: &https::Issuer) -> Router {
    let (path, names) = (about.path(), [about.url.as_str().into(), about.certified.as_str().into()]);
    Router::new()
        .route(&format!("{path}/oauth/token"), post(token))
        .route(&format!("{path}/oauth/introspect"), post(introspection))
        .route(&format!("{path}/oauth/revoke"), post(revocation))
        .route(&format!("{path}/oauth/backchannel"), post(backchannel::backchannel))
        .route(&format!("{path}/oauth/authorize"), get(nobody_signs_in).post(nobody_signs_in))
        .with_state(Served { issuer: Arc::clone(issuer), names })
}

/// The answer to whoever wants to sign in. Never a redirect: no client here has a URL to go back to.
async fn nobody_signs_in() -> Response {
    let message = "nobody signs in here: ask the token endpoint, with a JWT-SVID or an X.509-SVID as proof of the client";
    Refusal::new(StatusCode::BAD_REQUEST, "unsupported_response_type", message).into_response()
}

/// Whether a path is one of these endpoints, which answer in HTTP whatever listener they are on.
pub fn is(path: &str) -> bool {
    ["/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/backchannel"].iter().any(|end| path.ends_with(end))
}

async fn token(State(served): State<Served>, request: Request) -> Response {
    let issuer = &served.issuer;
    answer("oauth/token", issuer, request, async |request| {
        let (head, form) = Form::read(request).await?;
        let grant = form.one("grant_type").unwrap_or_default();
        let assertion = form.one("assertion").filter(|_| grant == JWT_BEARER);
        let id_jag = assertion.filter(|assertion| exchange::is_id_jag(assertion));
        // With this grant a JWT-SVID is the assertion and authenticates the client too (RFC 7523 2.1). An ID-JAG does not
        // authenticate a client.
        let (caller, of_grant) = match (assertion, form.one("client_assertion")) {
            (Some(assertion), None) if id_jag.is_none() => {
                (clients::prove(issuer, assertion).await.map_err(|no| Refusal::of_grant(&no))?, true)
            }
            _ => (client::prove(issuer, &head, &form, Action::Exchange).await?, false),
        };
        let refused = |no| match (of_grant, id_jag) {
            (true, _) => Refusal::of_grant(&no),
            (_, Some(_)) => Refusal::of_assertion(&no),
            _ => Refusal::of(&no),
        };
        let caller = may(issuer, Action::Exchange, caller).map_err(refused)?;
        let mut asked = match grant {
            "" => return Err(Refusal::request("`grant_type` is missing")),
            EXCHANGE => subject(&form)?,
            JWT_BEARER if id_jag.is_some() => {
                exchange::Asked { subject_token: id_jag.unwrap_or_default().to_owned(), ..Default::default() }
            }
            JWT_BEARER if !of_grant => {
                let message = "for this grant send the JWT-SVID as `assertion`, and no `client_assertion` beside it";
                return Err(Refusal::request(message));
            }
            JWT_BEARER | CLIENT_CREDENTIALS => exchange::Asked::default(),
            CIBA => exchange::Asked { approval: backchannel::polled(issuer, &caller, &form)?, ..Default::default() },
            _ => return Err(Refusal::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "the grant is unknown here")),
        };
        asked.details = form.one("authorization_details").unwrap_or_default().to_owned();
        // Our extension: the id of the approval to use.
        if let Some(id) = form.one("approval_id").filter(|_| grant != CIBA) {
            id.clone_into(&mut asked.approval);
        }
        asked.id_jag = match (grant, form.one("requested_token_type")) {
            (EXCHANGE, None) => None,
            (_, wanted) => Some(grant == EXCHANGE && wanted == Some(ID_JAG)),
        };
        if asked.id_jag == Some(true) {
            // The audience is the other authorization server, and the resource one behind it.
            asked.resource = form.one("resource").map(str::to_owned);
        }
        asked.audience = audience(issuer, &caller, &form, &asked)?;
        asked.scopes =
            form.one("scope").map(|s| s.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect()).unwrap_or_default();
        asked.proved = possession::prove(&served, &head, &caller).await?;
        let nonce = asked.proved.held.key.map(|_| dpop::nonce(issuer));
        let exchanged = exchange::exchange(issuer, caller, asked).await;
        let (access, token) = exchanged.map_err(refused)?;
        let granted = access.token();
        let mut body = json!({
            "access_token": token,
            "token_type": match granted.confirmation {
                _ if access.stated().form == IssuedAs::IdJag => "N_A",
                Some(Confirmation::Key(_)) => "DPoP",
                _ => "Bearer",
            },
            "expires_in": granted.ends_at.saturating_sub(issuer.clock.seconds()),
        });
        let mut say = |name: &str, value: Value| body.as_object_mut().and_then(|body| body.insert(name.to_owned(), value));
        if !granted.scopes.is_empty() {
            say("scope", granted.scopes.join(" ").into());
        }
        if !granted.details.is_empty() {
            say("authorization_details", serde_json::from_str(&granted.details).unwrap_or_default());
        }
        if grant == EXCHANGE {
            let issued = if access.stated().form == IssuedAs::IdJag { ID_JAG } else { ACCESS_TOKEN };
            say("issued_token_type", issued.into());
        }
        let mut response = fresh(Json(body));
        // RFC 9449 8.2: the nonce for the next proof.
        if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::from_str(&nonce).ok()) {
            response.headers_mut().insert("dpop-nonce", nonce);
        }
        Ok(response)
    })
    .await
}

/// The tokens of an exchange, each with its type (RFC 8693 2.1).
fn subject(form: &Form) -> Result<exchange::Asked, Refusal> {
    let known = |name: &str, types: &[&str]| match form.one(name) {
        Some(of) if types.contains(&of) => Ok(()),
        Some(_) => Err(Refusal::request(&format!("the value of `{name}` is not accepted here"))),
        None => Err(Refusal::request(&format!("`{name}` is missing"))),
    };
    let subject_token = form.one("subject_token").ok_or_else(|| Refusal::request("`subject_token` is missing"))?;
    // T245: the declared type of a token must match its kind.
    let types = if exchange::is_id_jag(subject_token) { &[ID_JAG][..] } else { &[ACCESS_TOKEN, ID_TOKEN, JWT][..] };
    known("subject_token_type", types)?;
    let actor_token = form.one("actor_token").unwrap_or_default();
    match (actor_token, form.one("actor_token_type")) {
        ("", None) => {}
        ("", Some(_)) => return Err(Refusal::request("`actor_token_type` is sent without an `actor_token`")),
        _ => known("actor_token_type", &[JWT])?,
    }
    if form.one("requested_token_type").is_some() {
        known("requested_token_type", &[ACCESS_TOKEN, ID_JAG])?;
    }
    let (subject_token, actor_token) = (subject_token.to_owned(), actor_token.to_owned());
    Ok(exchange::Asked { subject_token, actor_token, ..Default::default() })
}

/// The one audience, however many parameters name it (RFC 8707 2, RFC 8693 2.1). An approval names it too, and beside an ID-JAG
/// `resource` is another thing.
fn audience(issuer: &Issuer, caller: &Caller, form: &Form, asked: &exchange::Asked) -> Result<String, Refusal> {
    let approved = !asked.approval.is_empty();
    let target = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid_target", message);
    let mut named: Vec<String> = form.many("audience").map(str::to_owned).collect();
    if asked.id_jag == Some(true) && form.many("resource").count() > 1 {
        return Err(target("an ID-JAG is for one resource: ask for each of them alone"));
    }
    for resource in form.many("resource").filter(|_| asked.id_jag != Some(true)) {
        let of = exchange::audience_of(issuer, caller, resource);
        named.push(of.ok_or_else(|| target("`resource` is an absolute URI without a fragment"))?);
    }
    named.sort_unstable();
    named.dedup();
    match <[String; 1]>::try_from(named) {
        Ok([one]) => Ok(one),
        Err(none) if none.is_empty() && approved => Ok(String::new()),
        Err(none) if none.is_empty() => Err(target("say with `resource` or `audience` where the token is to be accepted")),
        Err(_) => Err(target("a token is for one audience: ask for each of them alone")),
    }
}

async fn introspection(State(served): State<Served>, request: Request) -> Response {
    let issuer = &served.issuer;
    answer("oauth/introspect", issuer, request, async |request| {
        let (head, form) = Form::read(request).await?;
        let caller = client::prove(issuer, &head, &form, Action::Introspect).await?;
        let caller = may(issuer, Action::Introspect, caller).map_err(|no| Refusal::of(&no))?;
        let token = form.one("token").ok_or_else(|| Refusal::request("`token` is missing"))?;
        clients::spend(issuer, &caller).map_err(|denial| Refusal::of(&denial.into()))?;
        // RFC 9701 4: a client asks for a signed response by `Accept`.
        if head.headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == SIGNED.as_bytes()) {
            let said = introspect::introspect_signed(issuer, &caller, token).await.map_err(|no| Refusal::of(&no))?;
            return Ok(fresh(([(CONTENT_TYPE, SIGNED)], said)));
        }
        let said = introspect::introspect(issuer, &caller, token).await.map_err(|no| Refusal::of(&no))?;
        Ok(fresh(Json(said)))
    })
    .await
}

async fn revocation(State(served): State<Served>, request: Request) -> Response {
    let issuer = &served.issuer;
    answer("oauth/revoke", issuer, request, async |request| {
        let (head, form) = Form::read(request).await?;
        let caller = client::prove(issuer, &head, &form, Action::RevokeToken).await?;
        let caller = may(issuer, Action::RevokeToken, caller).map_err(|no| Refusal::of(&no))?;
        let token = form.one("token").ok_or_else(|| Refusal::request("`token` is missing"))?;
        // Our extension: revoke the agent or delegation that the token relies on, instead of the token alone.
        let cascade = match form.one("cascade") {
            None => None,
            Some(cascade @ ("agent" | "delegation")) => Some(cascade.to_owned()),
            Some(_) => return Err(Refusal::request("`cascade` is `agent` or `delegation`")),
        };
        clients::spend(issuer, &caller).map_err(|denial| Refusal::of(&denial.into()))?;
        let done = match cascade {
            None => revoke_token::revoke_token(issuer, caller, token).await,
            Some(cascade) => match revoke_token::relied_on(issuer, &caller, token).await {
                Ok(Some((agent, delegation))) => {
                    let target = match delegation.filter(|_| cascade == "delegation") {
                        Some(delegation) => Target::Delegation(delegation),
                        None if cascade == "agent" => Target::Agent(agent),
                        None => return Err(Refusal::request("the agent of this token acts for nobody: there is no delegation")),
                    };
                    let how = revoke::How { reason: String::new(), allow_new: false };
                    revoke::revoke(issuer, caller, revoke::What::Target(target), how).await.map(drop)
                }
                Ok(None) => Ok(()),
                Err(no) => Err(no),
            },
        };
        done.map_err(|no| Refusal::of(&no))?;
        Ok(fresh(StatusCode::OK))
    })
    .await
}

/// Checks that a caller may use an endpoint. The caller is noted for the history in any case.
fn may(issuer: &Issuer, action: Action, caller: Caller) -> Result<Caller, No> {
    Origin::note(|origin| drop(origin.caller.set(caller.clone())));
    issuer.may(action, caller)
}

/// Answers a request and counts it. Denials and faults are put into the history.
async fn answer(
    name: &'static str,
    issuer: &Issuer,
    request: Request,
    work: impl AsyncFnOnce(Request) -> Result<Response, Refusal>,
) -> Response {
    let started = Instant::now();
    let peer = request.extensions().get::<Peer>().cloned();
    let origin = Peer::origin(peer.as_ref(), name);
    match Arc::clone(&origin).scope(work(request)).await {
        Ok(response) => {
            status::count(name, "ok", started);
            response
        }
        Err(refusal) => {
            if let Some(no) = refusal.no() {
                told::denied(issuer, peer.as_ref(), &origin, no);
            }
            status::count(name, refusal.outcome(name), started);
            refusal.into_response()
        }
    }
}

/// A response that must not be cached (RFC 6749 5.1).
fn fresh(response: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")], response).into_response()
}

/// The response to a request that is refused before it reaches its endpoint, because there is no room or it took too long.
pub fn unavailable(denial: &Denial) -> Response {
    Refusal::of(&denial.clone().into()).into_response()
}

/// The members of the RFC 8414 metadata about these endpoints. `url` is the issuer's, `certified` the address that asks for client
/// certificates, and `algorithms` are those of JWT-SVIDs.
pub fn metadata(url: &str, certified: &str, algorithms: &[Value]) -> Vec<(&'static str, Value)> {
    let mut said = vec![("grant_types_supported", json!(GRANTS))];
    let mut aliases = serde_json::Map::new();
    for (endpoint, path) in [
        ("token_endpoint", "token"),
        ("introspection_endpoint", "introspect"),
        ("revocation_endpoint", "revoke"),
        ("backchannel_authentication_endpoint", "backchannel"),
    ] {
        said.push((endpoint, json!(format!("{url}/oauth/{path}"))));
        aliases.insert(endpoint.to_owned(), json!(format!("{certified}/oauth/{path}")));
    }
    for (methods, signing) in [
        ("token_endpoint_auth_methods_supported", "token_endpoint_auth_signing_alg_values_supported"),
        ("introspection_endpoint_auth_methods_supported", "introspection_endpoint_auth_signing_alg_values_supported"),
        ("revocation_endpoint_auth_methods_supported", "revocation_endpoint_auth_signing_alg_values_supported"),
    ] {
        said.extend([(methods, json!(METHODS)), (signing, json!(algorithms))]);
    }
    said.extend(backchannel::metadata());
    // RFC 9701 7. Introspection responses are signed by the default authority.
    said.push(("introspection_signing_alg_values_supported", json!(["ES256"])));
    said.push(("authorization_grant_profiles_supported", json!([PROFILE])));
    said.push(("identity_chaining_requested_token_types_supported", json!([ID_JAG])));
    said.push(("mtls_endpoint_aliases", Value::Object(aliases)));
    said.push(("tls_client_certificate_bound_access_tokens", json!(true)));
    said.push(("dpop_signing_alg_values_supported", json!(DPOP_ALGORITHMS)));
    said
}
