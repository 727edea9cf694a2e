//! AuthZEN 1.0 for gateways: evaluations of whether an agent, a user or a workload may do something, with reasons, and searches. On
//! the HTTPS listener clients prove themselves by a JWT-SVID in the `Authorization` header, on the gRPC listener by their
//! certificate.

mod point;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::peer::{self, Peer};
use super::{https, status, told};
use crate::acts::{Issuer, client};
use crate::caller::{Caller, Origin, unauthenticated};
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::access::Action;
use point::Deciding;
use wire::{Answered, Refused, Wanted};

/// Longest body, in bytes.
const BODY: usize = 64 * 1024;
const METADATA: &str = "/.well-known/authzen-configuration";
const ID: &str = "x-request-id";
/// Longest request id that is sent back, in bytes.
const ID_LENGTH: usize = 128;

/// An endpoint: its path, its name in metrics and the history, its member of the metadata, and its handler.
#[derive(Clone, Copy)]
struct Endpoint {
    path: &'static str,
    name: &'static str,
    member: &'static str,
    answers: fn(&Deciding<Waits>, &Map<String, Value>) -> Answered,
}

const ENDPOINTS: [Endpoint; 5] = [
    Endpoint {
        path: "/access/v1/evaluation",
        name: "access/evaluation",
        member: "access_evaluation_endpoint",
        answers: |point, body| wire::evaluation(point, body),
    },
    Endpoint {
        path: "/access/v1/evaluations",
        name: "access/evaluations",
        member: "access_evaluations_endpoint",
        answers: |point, body| wire::evaluations(point, body),
    },
    Endpoint {
        path: "/access/v1/search/subject",
        name: "access/search/subject",
        member: "search_subject_endpoint",
        answers: |point, body| wire::search(point, Wanted::Subject, body),
    },
    Endpoint {
        path: "/access/v1/search/resource",
        name: "access/search/resource",
        member: "search_resource_endpoint",
        answers: |point, body| wire::search(point, Wanted::Resource, body),
    },
    Endpoint {
        path: "/access/v1/search/action",
        name: "access/search/action",
        member: "search_action_endpoint",
        answers: |point, body| wire::search(point, Wanted::Action, body),
    },
];

/// Whether the client still waits for an answer.
type Waits = Box<dyn Fn() -> bool + Send>;

/// The routes below the path of the issuer's URL. `certified` is for the listener that asks for client certificates, and uses its
/// address.
pub fn router(issuer: &Arc<Issuer>, about: &https::Issuer, certified: bool) -> Router {
    let (path, base) = (about.path(), if certified { &about.certified } else { &about.url });
    let said = metadata(base, &about.certified);
    let kept = format!("public, max-age={}", about.refresh);
    let document = get(move || async move {
        let headers = [(CONTENT_TYPE, "application/json".to_owned()), (ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned())];
        (headers, [(CACHE_CONTROL, kept)], said.to_string()).into_response()
    });
    let mut router = Router::new().route(&format!("{METADATA}{path}"), document.clone());
    if !path.is_empty() {
        router = router.route(&format!("{path}{METADATA}"), document);
    }
    for endpoint in ENDPOINTS {
        let serve = move |State(issuer): State<Arc<Issuer>>, request: Request| serve(endpoint, issuer, request);
        router = router.route(&format!("{path}{}", endpoint.path), post(serve));
    }
    router.with_state(Arc::clone(issuer))
}

/// Whether a path is one of these endpoints, which answer in HTTP whatever listener they are on.
pub fn is(path: &str) -> bool {
    path.contains(METADATA) || ENDPOINTS.iter().any(|endpoint| path.ends_with(endpoint.path))
}

fn metadata(base: &str, certified: &str) -> Value {
    let mut said = json!({ "policy_decision_point": base });
    let mut aliases = Map::new();
    for endpoint in ENDPOINTS {
        said.as_object_mut().and_then(|said| said.insert(endpoint.member.to_owned(), format!("{base}{}", endpoint.path).into()));
        aliases.insert(endpoint.member.to_owned(), format!("{certified}{}", endpoint.path).into());
    }
    // The endpoints on the listener that asks for client certificates, as in RFC 8705 5 for OAuth.
    said.as_object_mut().and_then(|said| said.insert("mtls_endpoint_aliases".to_owned(), Value::Object(aliases)));
    said
}

async fn serve(endpoint: Endpoint, issuer: Arc<Issuer>, request: Request) -> Response {
    let started = Instant::now();
    let peer = request.extensions().get::<Peer>().cloned();
    let origin = Peer::origin(peer.as_ref(), endpoint.name);
    let id = request_id(request.headers());
    let answered = Arc::clone(&origin).scope(answer(endpoint, &issuer, request)).await;
    let mut response = match answered {
        Ok(answer) => {
            told::answered(&issuer, Action::Evaluate, &origin);
            status::count(endpoint.name, "ok", started);
            Json(answer).into_response()
        }
        Err(refused) => {
            if let Refused::No(no) = &refused {
                told::denied(&issuer, peer.as_ref(), &origin, no);
            }
            let (response, outcome) = written(endpoint.name, &refused);
            status::count(endpoint.name, outcome, started);
            response
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(id) = id {
        response.headers_mut().insert(ID, id);
    }
    response
}

/// The request id to send back, if it is a short one of visible ASCII.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(ID)?;
    (id.len() <= ID_LENGTH && id.to_str().is_ok()).then(|| id.clone())
}

async fn answer(endpoint: Endpoint, issuer: &Arc<Issuer>, request: Request) -> Answered {
    let (head, body) = request.into_parts();
    // 1. The caller, before any of the body is read.
    let caller = prove(issuer, &head).await?;
    Origin::note(|origin| drop(origin.caller.set(caller.clone())));
    let caller = issuer.may(Action::Evaluate, caller)?;
    // 2. What is asked.
    let mut types = head.headers.get_all(CONTENT_TYPE).iter();
    let of = types.next().and_then(|of| of.to_str().ok()).and_then(|of| of.split(';').next()).unwrap_or_default().trim();
    if !of.eq_ignore_ascii_case("application/json") || types.next().is_some() {
        return Err(Refused::Shape("send the request as application/json".to_owned()));
    }
    let body = to_bytes(body, BODY)
        .await
        .map_err(|_| Refused::Shape(format!("the body is longer than {BODY} bytes, or did not arrive")))?;
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&body) else {
        return Err(Refused::Shape("the body is a JSON object".to_owned()));
    };
    // 3. A JWT-SVID proves its agent for one request only.
    client::spend(issuer, &caller).map_err(No::from)?;
    // 4. The answers, on a thread outside of the async runtime, because a batch or a search may take long.
    let turn = issuer.explaining.deciding().await.map_err(No::from)?;
    let (waiting, asking) = (Arc::new(()), Arc::clone(issuer));
    let waits = Arc::downgrade(&waiting);
    let decided = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let point = Deciding { issuer: asking, caller, awaited: Box::new(move || waits.strong_count() > 0) as Waits };
        (endpoint.answers)(&point, &body)
    });
    let answer = decided.await.map_err(|e| No::from(Fault::new("authzen", e)))?;
    drop(waiting);
    answer
}

/// The caller: by the certificate of the connection, or by a JWT-SVID for this issuer alone.
async fn prove(issuer: &Issuer, head: &Parts) -> Result<Caller, No> {
    let peer = head.extensions.get::<Peer>();
    let certified = matches!(peer, Some(Peer::Tls(connection)) if !connection.chain.is_empty());
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => {
            let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
            let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
            Some(token.ok_or_else(|| unauthenticated("CREDENTIAL_MALFORMED", "send a JWT-SVID as `Authorization: Bearer …`"))?)
        }
        (Some(_), Some(_)) => return Err(unauthenticated("CREDENTIAL_MALFORMED", "send one `Authorization` header").into()),
    };
    match (certified, token) {
        (true, Some(_)) => {
            let message = "the connection has a certificate: send no `Authorization` header beside it";
            Err(Denial::malformed("CREDENTIAL_MALFORMED", message).into())
        }
        (true, None) => peer::caller(issuer, peer, None, Action::Evaluate).await,
        (false, Some(token)) => client::prove(issuer, token).await,
        // On the operator socket the peer's uid identifies the caller.
        (false, None) if matches!(peer, Some(Peer::Operator(_))) => peer::caller(issuer, peer, None, Action::Evaluate).await,
        (false, None) => {
            let message = "prove the client: by a JWT-SVID as `Authorization: Bearer …`, or by an X.509-SVID at the addresses of \
                           `mtls_endpoint_aliases`";
            Err(unauthenticated("CERTIFICATE_NEEDED", message).into())
        }
    }
}

/// The response to a refused request, and its outcome as a label of metrics.
fn written(name: &'static str, refused: &Refused) -> (Response, &'static str) {
    match refused {
        Refused::Shape(message) => {
            tracing::info!(endpoint = name, "refused: {message}");
            (error(StatusCode::BAD_REQUEST, "malformed", message), "malformed")
        }
        Refused::No(No::Fault(fault)) => {
            tracing::error!(during = fault.during, cause = %fault.cause, "fault");
            (error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal"), "fault")
        }
        Refused::No(No::Denial(denial)) => {
            tracing::info!(endpoint = name, reason = denial.code, "denied: {}", denial.message);
            metrics::counter!("mayfly_denials_total", "reason" => denial.code).increment(1);
            (unavailable(denial), if denial.kind == Kind::Malformed { "malformed" } else { "denied" })
        }
    }
}

/// The response to a denied request, also to one that is refused before it reaches its endpoint because there is no room or it took
/// too long.
pub fn unavailable(denial: &Denial) -> Response {
    let status = match denial.kind {
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable | Kind::Deadline => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = error(status, denial.code, &denial.message);
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        let seconds = denial.retry.map_or(1, |after| after.div_ceil(1_000_000));
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let mut response =
        (status, [(CACHE_CONTROL, "no-store")], Json(json!({ "error": code, "message": message }))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    }
    response
}
