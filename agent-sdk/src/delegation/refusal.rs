//! Turns a refusal into a response: a gRPC status, or plain HTTP.

use std::collections::HashMap;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use mayfly_verify::Reject;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::resource::Resource;

/// The domain of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "mayfly.v1";
/// When to retry while it is unknown what is revoked; heartbeats come every second.
const RETRY: Duration = Duration::from_secs(1);

/// Why the layer refused a request: in the extensions of its response, for logs and metrics in outer layers. It is never sent to
/// the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    reason: &'static str,
    cause: String,
}

impl Refused {
    /// One of a fixed set of labels. The caller receives it too.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The detailed cause.
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

    // The detailed cause is in `Refused` only, so that a stranger learns no more than the reason.
    fn message(&self) -> String {
        match self {
            Refusal::Credential(Reject::Cut) => "the credential was revoked".into(),
            Refusal::Credential(Reject::Expired(_)) => "the credential has expired".into(),
            Refusal::Credential(reject @ (Reject::Used | Reject::BeforeMemory(_))) => reject.to_string(),
            Refusal::Credential(Reject::Stale(_)) => "it is not known now whether the credential is revoked; ask again".into(),
            // The client has to make another proof, so it hears what is wrong with this one.
            Refusal::Credential(reject @ (Reject::Proof(_) | Reject::Nonce | Reject::ProofUsed | Reject::Unproved(_))) => {
                reject.to_string()
            }
            Refusal::Credential(_) => "the credential is not valid".into(),
            Refusal::Missing => "show an agent's certificate or bearer token".into(),
            Refusal::Differ => "the connection's certificate and the bearer token belong to two callers".into(),
            Refusal::TokenMalformed => "there must be one authorization header, with a bearer token".into(),
            Refusal::TokenNotAccepted => "bearer tokens are not accepted here".into(),
            Refusal::NotAnAgent => "only agents may call this".into(),
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

    /// The response in the protocol of the request. A resource server says at which Unix second it refuses.
    pub(super) fn response<B: Default>(&self, request: &HeaderMap, resource: Option<(&Resource, u64)>) -> Response<B> {
        let mut response = self.answer(request, resource);
        response.extensions_mut().insert(Refused { reason: self.reason(), cause: self.cause() });
        response
    }

    fn answer<B: Default>(&self, request: &HeaderMap, resource: Option<(&Resource, u64)>) -> Response<B> {
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
                // RFC 6750 3.1: the response to a request without any credential names the scheme and nothing else.
                let challenge = if matches!(self, Refusal::Missing) { "Bearer" } else { "Bearer error=\"invalid_token\"" };
                let malformed = Reject::Malformed(String::new());
                match (resource, self) {
                    (None, _) => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))),
                    (Some((resource, now)), Refusal::Missing) => resource.challenge(None, now, headers),
                    (Some((resource, now)), Refusal::Credential(reject)) => resource.challenge(Some(reject), now, headers),
                    (Some((resource, now)), _) => resource.challenge(Some(&malformed), now, headers),
                }
                StatusCode::UNAUTHORIZED
            }
        };
        *response.status_mut() = status;
        response
    }
}

/// Whether a request or a response belongs to gRPC.
pub(super) fn speaks_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
