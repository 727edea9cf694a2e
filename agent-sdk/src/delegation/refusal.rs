//! The one place where a refusal becomes an answer: a gRPC status, or plain HTTP.

use std::collections::HashMap;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use mayfly_verify::Reject;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "mayfly.v1";
/// When to ask again while nothing is known; heartbeats come every second.
const RETRY: Duration = Duration::from_secs(1);

/// Stands in the extensions of a response by which the layer refused a request: for logs and metrics outside of it, and never
/// for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    reason: &'static str,
    cause: String,
}

impl Refused {
    /// One of a fixed set of labels; the caller has it too.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// What exactly was wrong.
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    Credential(Reject),
    Missing,
    Differ,
    TokenMalformed,
    TokenNotAccepted,
    NotAnAgent,
    NotAuthorized,
    Scope(String),
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Refusal::Credential(reject)
    }
}

impl Refusal {
    fn reason(&self) -> &'static str {
        match self {
            Refusal::Credential(reject) => reject.code(),
            Refusal::Missing => "CREDENTIAL_MISSING",
            Refusal::Differ => "CREDENTIALS_DIFFER",
            Refusal::TokenMalformed => "TOKEN_MALFORMED",
            Refusal::TokenNotAccepted => "TOKEN_NOT_ACCEPTED",
            Refusal::NotAnAgent => "CALLER_NOT_AN_AGENT",
            Refusal::NotAuthorized => "CALLER_NOT_AUTHORIZED",
            Refusal::Scope(_) => "SCOPE_MISSING",
        }
    }

    fn code(&self) -> Code {
        match self {
            Refusal::Credential(Reject::Stale(_)) => Code::Unavailable,
            Refusal::NotAnAgent | Refusal::NotAuthorized | Refusal::Scope(_) => Code::PermissionDenied,
            _ => Code::Unauthenticated,
        }
    }

    // What exactly is wrong with a credential stands in `Refused`: a stranger learns the reason alone.
    fn message(&self) -> String {
        match self {
            Refusal::Credential(Reject::Cut) => "the credential was revoked".into(),
            Refusal::Credential(Reject::Expired(_)) => "the credential has expired".into(),
            Refusal::Credential(Reject::Stale(_)) => "whether the credential is revoked is not known now; ask again".into(),
            Refusal::Credential(_) => "the credential does not hold".into(),
            Refusal::Missing => "show an agent's certificate or bearer token".into(),
            Refusal::Differ => "the connection's certificate and the bearer token are of two callers".into(),
            Refusal::TokenMalformed => "the authorization header is no single bearer token".into(),
            Refusal::TokenNotAccepted => "bearer tokens are not accepted here".into(),
            Refusal::NotAnAgent => "only agents call this".into(),
            Refusal::NotAuthorized => "this agent may not call this".into(),
            Refusal::Scope(scope) => format!("the agent lacks the scope `{scope}`"),
        }
    }

    pub(super) fn status(&self) -> Status {
        let facts = match self {
            Refusal::Scope(scope) => HashMap::from([("scope".to_owned(), scope.clone())]),
            _ => HashMap::new(),
        };
        let mut details = ErrorDetails::with_error_info(self.reason(), DOMAIN, facts);
        if self.code() == Code::Unavailable {
            details.set_retry_info(Some(RETRY));
        }
        Status::with_error_details(self.code(), self.message(), details)
    }

    fn cause(&self) -> String {
        if let Refusal::Credential(reject) = self { reject.to_string() } else { self.message() }
    }

    /// As the request speaks.
    pub(super) fn response<B: Default>(&self, request: &HeaderMap) -> Response<B> {
        let mut response = self.answer(request);
        response.extensions_mut().insert(Refused { reason: self.reason(), cause: self.cause() });
        response
    }

    fn answer<B: Default>(&self, request: &HeaderMap) -> Response<B> {
        if speaks_grpc(request) {
            return self.status().into_http();
        }
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        headers.insert("mayfly-reason", HeaderValue::from_static(self.reason()));
        let status = match self.code() {
            Code::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY.as_secs()));
                StatusCode::SERVICE_UNAVAILABLE
            }
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            _ => {
                // RFC 6750 3.1: a request without any credential is told the scheme alone.
                let challenge = if matches!(self, Refusal::Missing) { "Bearer" } else { "Bearer error=\"invalid_token\"" };
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
                StatusCode::UNAUTHORIZED
            }
        };
        *response.status_mut() = status;
        response
    }
}

/// Whether a request or an answer is one of gRPC.
pub(super) fn speaks_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
