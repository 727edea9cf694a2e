//! Refusals of the OAuth endpoints: the error codes of RFC 6749 5.2, RFC 8693 2.2.2, RFC 8707 2 and RFC 9449 5 for denials and faults.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::denial::{Denial, Fault, Kind, No};

/// Why a request is refused, as its client reads it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
    /// Seconds after which asking again may help.
    retry: Option<u64>,
    /// The nonce for the next DPoP proof.
    nonce: Option<String>,
    /// How the refusal counts in metrics.
    outcome: &'static str,
    /// The denial or the fault behind it. `None` if the form of the request alone is at fault.
    no: Option<Box<No>>,
}

impl Refusal {
    /// A refusal of a malformed request, before anything is judged.
    pub(super) fn new(status: StatusCode, error: &'static str, message: &str) -> Refusal {
        Refusal { status, error, description: message.to_owned(), retry: None, nonce: None, outcome: "malformed", no: None }
    }

    /// The request lacks a parameter, or has one that is malformed.
    pub(super) fn request(message: &str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// The client is not the one that it claims to be, or did not authenticate in a way that is accepted.
    pub(super) fn client(message: &str) -> Refusal {
        Refusal { outcome: "denied", ..Refusal::new(StatusCode::UNAUTHORIZED, "invalid_client", message) }
    }

    /// A denial, or a fault.
    pub(super) fn of(no: &No) -> Refusal {
        Refusal::with(no, "invalid_client", StatusCode::UNAUTHORIZED)
    }

    /// The same if the assertion of the grant also authenticates the client (RFC 7523 3.1).
    pub(super) fn of_grant(no: &No) -> Refusal {
        Refusal::with(no, "invalid_grant", StatusCode::BAD_REQUEST)
    }

    /// The same if the client is authenticated and the grant is an assertion: faults of the assertion are `invalid_grant`.
    pub(super) fn of_assertion(no: &No) -> Refusal {
        let mut refusal = Refusal::of(no);
        let about = |denial: &Denial| {
            matches!(denial.kind, Kind::Denied | Kind::NotFound)
                && matches!(family(denial.code), "USER" | "DELEGATION" | "SUBJECT")
        };
        if matches!(no, No::Denial(denial) if about(denial)) {
            refusal.error = "invalid_grant";
        }
        refusal
    }

    fn with(no: &No, unproved: &'static str, unproved_status: StatusCode) -> Refusal {
        let denial = match no {
            No::Denial(denial) => denial,
            No::Fault(fault) => {
                tracing::error!(during = fault.during, cause = %fault.cause, "fault");
                let mut refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal");
                refusal.outcome = "fault";
                refusal.no = Some(Box::new(Fault::new(fault.during, &fault.cause).into()));
                return refusal;
            }
        };
        let (status, error) = match denial.kind {
            _ if denial.code == "DPOP_NONCE_NEEDED" => (StatusCode::BAD_REQUEST, "use_dpop_nonce"),
            _ if matches!(denial.code, "DPOP_PROOF_INVALID" | "DPOP_PROOF_USED") => {
                (StatusCode::BAD_REQUEST, "invalid_dpop_proof")
            }
            Kind::Unauthenticated => (unproved_status, unproved),
            Kind::Exhausted => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
            Kind::Unavailable | Kind::Deadline => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            _ => (StatusCode::BAD_REQUEST, error_of(denial)),
        };
        let retry = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            .then(|| denial.retry.map_or(1, |after| after.div_ceil(1_000_000)));
        let outcome = if denial.kind == Kind::Malformed { "malformed" } else { "denied" };
        let nonce = denial.facts.iter().find(|(name, _)| *name == "nonce").map(|(_, nonce)| nonce.clone());
        let description = denial.to_string();
        Refusal { status, error, description, retry, nonce, outcome, no: Some(Box::new(denial.clone().into())) }
    }

    /// Logs the refusal, and returns its outcome as a label of metrics.
    pub(super) fn outcome(&self, endpoint: &'static str) -> &'static str {
        tracing::info!(endpoint, error = self.error, "refused: {}", self.description);
        if let Some(No::Denial(denial)) = self.no() {
            metrics::counter!("mayfly_denials_total", "reason" => denial.code).increment(1);
        }
        self.outcome
    }

    /// The denial or the fault behind it. `None` if the form of the request alone is at fault.
    pub(super) fn no(&self) -> Option<&No> {
        self.no.as_deref()
    }
}

/// The first word of a code: what it is about.
fn family(code: &'static str) -> &'static str {
    code.split('_').next().unwrap_or_default()
}

/// The error code of a denial that is about what was asked for.
fn error_of(denial: &Denial) -> &'static str {
    match denial.code {
        "AUDIENCE_NOT_ALLOWED" | "AUDIENCE_MALFORMED" => "invalid_target",
        "SCOPE_NOT_ALLOWED" | "SCOPE_MALFORMED" | "NOTHING_LEFT" => "invalid_scope",
        // RFC 9396 5.
        "ACTION_MALFORMED" | "ACTION_NOT_ALLOWED" => "invalid_authorization_details",
        // OpenID Connect Core 3.1.2.6: the request would succeed after a person has approved it.
        "APPROVAL_NEEDED" => "consent_required",
        "APPROVAL_PENDING" => "authorization_pending",
        "APPROVAL_DENIED" => "access_denied",
        "APPROVAL_EXPIRED" => "expired_token",
        "APPROVAL_UNKNOWN" | "APPROVAL_USED" => "invalid_grant",
        // RFC 8693 2.2.2: also a subject or actor token that is not valid.
        "TOKEN_BINDING_NEEDED" => "invalid_request",
        code if denial.kind == Kind::Malformed || matches!(family(code), "USER" | "DELEGATION" | "SUBJECT") => "invalid_request",
        _ => "unauthorized_client",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // RFC 6749 5.2: visible ASCII without quotes and backslashes.
        let plain = |c: char| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '?' };
        let description: String = self.description.chars().take(512).map(plain).collect();
        let body = Json(json!({ "error": self.error, "error_description": description }));
        let mut response = super::fresh((self.status, body));
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 15.5.2: a 401 must name a scheme, although no token is accepted in that header.
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_client\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(nonce) = self.nonce.and_then(|nonce| HeaderValue::from_str(&nonce).ok()) {
            response.headers_mut().insert("dpop-nonce", nonce);
        }
        if let Some(seconds) = self.retry {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
