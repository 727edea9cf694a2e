//! `POST /verify` and `POST /verify/batch`: JSON in, a decision out. A malformed request gets another status than a request with a
//! malformed credential.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Guard;
use super::check::{Proof, Shown};
use super::routes::count;
use super::rule::{bounded_audience, bounded_scopes};

/// Largest body of one question, in bytes.
pub(super) const BODY: usize = 64 * 1024;
/// Largest body of many, in bytes.
pub(super) const BATCH_BODY: usize = 512 * 1024;
/// Most questions at once.
pub(super) const BATCH: usize = 64;
/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question. Unknown fields are refused, because a misspelt `scopes` would require nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// A JWT-SVID or an access token, or a certificate in PEM, alone or with its chain.
    pub(super) credential: String,
    /// The service's own audience, which a token must be for.
    pub(super) audience: Option<String>,
    /// The credential must have all of these scopes.
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    /// With an access token: the client certificate of the connection in PEM, to which the token may be bound.
    pub(super) certificate: Option<String>,
    /// With an access token: the DPoP proof of the request, whose key the token may be bound to.
    pub(super) dpop: Option<Dpop>,
    /// Whether the service honours `authorization_details`. If not, a token that has some is refused.
    #[serde(default)]
    pub(super) actions: bool,
}

/// A DPoP proof, with the request that it must be for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dpop {
    pub(super) proof: String,
    pub(super) method: String,
    pub(super) url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    checks: Vec<Question>,
}

/// A refusal of the request itself.
pub(super) type Malformed = (StatusCode, Json<Value>);

fn malformed(status: StatusCode, error: impl Into<String>) -> Malformed {
    // serde's message may quote the request, so its length is limited.
    let error: String = error.into().chars().take(300).collect();
    (status, Json(json!({ "error": error })))
}

/// One question: 200 or 403 with a decision; 400, 408 or 413 if the request is not a question.
pub(super) async fn one(State(guard): State<Guard>, request: Request) -> Response {
    let answered = async {
        let body = read(request).await?;
        let question: Question = parsed(&body)?;
        answer(&guard, &question, "verify")
    };
    match answered.await {
        Ok((status, object)) => (status, Json(object)).into_response(),
        Err(refusal) => refused("verify", refusal),
    }
}

/// Many questions, with one answer each, in their order. The status is 200 whatever the answers are.
pub(super) async fn many(State(guard): State<Guard>, request: Request) -> Response {
    let answered = async {
        let body = read(request).await?;
        let batch: Batch = parsed(&body)?;
        if batch.checks.is_empty() || batch.checks.len() > BATCH {
            return Err(malformed(StatusCode::BAD_REQUEST, format!("`checks` must hold 1 to {BATCH} questions")));
        }
        let mut answers = Vec::with_capacity(batch.checks.len());
        for (at, question) in batch.checks.iter().enumerate() {
            let (_, object) = answer(&guard, question, "batch").map_err(|(status, Json(error))| {
                malformed(status, format!("checks[{at}]: {}", error.get("error").and_then(Value::as_str).unwrap_or_default()))
            })?;
            answers.push(object);
            // A question may cost four signatures, so other requests are served in between.
            tokio::task::yield_now().await;
        }
        Ok(json!({ "answers": answers }))
    };
    match answered.await {
        Ok(object) => Json(object).into_response(),
        Err(refusal) => refused("batch", refusal),
    }
}

fn refused(door: &'static str, refusal: Malformed) -> Response {
    count(door, "malformed", "");
    refusal.into_response()
}

/// The answer to a question as a JSON object, and its status: 200 or 403. `door` is the label of the counter.
pub(super) fn answer(guard: &Guard, question: &Question, door: &'static str) -> Result<(StatusCode, Value), Malformed> {
    let bad = |error: String| malformed(StatusCode::BAD_REQUEST, error);
    bounded_scopes(&question.scopes).map_err(bad)?;
    let audience = question.audience.as_deref();
    audience.map_or(Ok(()), bounded_audience).map_err(bad)?;
    let credential = question.credential.trim();
    if credential.len() > BODY {
        return Err(bad(format!("a credential has at most {} KiB", BODY / 1024)));
    }
    let shown = if credential.contains("-----BEGIN") {
        if question.certificate.is_some() || question.dpop.is_some() {
            return Err(bad("`certificate` and `dpop` stand beside a token".into()));
        }
        Shown { certificate: Some(credential), ..Shown::default() }
    } else if audience.is_none() {
        return Err(bad("a token is for one audience: say which with `audience`".into()));
    } else {
        let proof = question.dpop.as_ref();
        Shown {
            token: Some(credential).filter(|token| !token.is_empty()),
            certificate: question.certificate.as_deref(),
            proof: proof.map(|of| Proof { text: &of.proof, method: &of.method, url: &of.url }),
            actions: question.actions,
        }
    };
    Ok(match guard.check(shown, audience, &question.scopes) {
        Ok(allowed) => {
            count(door, "allowed", "");
            (StatusCode::OK, allowed.object(guard))
        }
        Err(denied) => {
            count(door, "denied", denied.code());
            (StatusCode::FORBIDDEN, denied.object(guard))
        }
    })
}

/// Reads a body of any content type, because `curl -d` declares a form. The routes limit its length.
async fn read(request: Request) -> Result<Bytes, Malformed> {
    let Ok(read) = tokio::time::timeout(PATIENCE, Bytes::from_request(request, &())).await else {
        return Err(malformed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"));
    };
    read.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => malformed(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body has at most {} KiB, that of a batch {} KiB", BODY / 1024, BATCH_BODY / 1024),
        ),
        _ => malformed(StatusCode::BAD_REQUEST, "the body cannot be read"),
    })
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|e| malformed(StatusCode::BAD_REQUEST, format!("the body is no question: {e}")))
}
