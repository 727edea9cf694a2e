//! What the agent behind a request may do, and for which user. Each request is verified, and there is no other way to a
//! [`Delegation`].
//!
//! ```no_run
//! use mayfly_agent::delegation::Delegation;
//! use tonic::{Request, Response, Status};
//!
//! async fn search(request: Request<String>) -> Result<Response<String>, Status> {
//!     let delegation = Delegation::of(request.extensions())?;
//!     delegation.require_scope("search:read")?;
//!     Ok(Response::new(format!("for {:?}", delegation.user())))
//! }
//! ```
//!
//! [`DelegationLayer`] wraps a service. It puts a [`Delegation`] into the extensions of each request, or answers with an error:
//!
//! | reason | gRPC status | HTTP | when |
//! |---|---|---|---|
//! | `CREDENTIAL_REVOKED`, `CREDENTIAL_EXPIRED`, other reasons of [`Reject::code`] | UNAUTHENTICATED | 401 | the credential is not valid |
//! | `CREDENTIAL_UNPROVED` | UNAUTHENTICATED | 401 | the access token is bound to a key or certificate that the request does not prove |
//! | `CREDENTIAL_USED`, `CREDENTIAL_TOO_OLD` | UNAUTHENTICATED | 401 | the token is for a single use: get one for each request |
//! | `DPOP_NONCE_NEEDED`, `DPOP_PROOF_INVALID`, `DPOP_PROOF_USED` | UNAUTHENTICATED | 401 | the DPoP proof is not accepted |
//! | `CREDENTIAL_STALE` | UNAVAILABLE, with `RetryInfo` | 503, `Retry-After` | it is unknown whether the credential is revoked; retry |
//! | `CREDENTIAL_MISSING` | UNAUTHENTICATED | 401 | there is neither a certificate nor a token |
//! | `CREDENTIALS_DIFFER` | UNAUTHENTICATED | 401 | the certificate and the token belong to two callers |
//! | `TOKEN_MALFORMED` | UNAUTHENTICATED | 401 | there are two `Authorization` headers, or one that is not a bearer token |
//! | `TOKEN_NOT_ACCEPTED` | UNAUTHENTICATED | 401 | there is an `Authorization` header, and the layer has [`Tokens::Refused`] |
//! | `CALLER_NOT_AN_AGENT`, `CALLER_NOT_AUTHORIZED` | PERMISSION_DENIED | 403 | the credential is valid but may not call this service |
//! | `SCOPE_MISSING` | PERMISSION_DENIED | | [`Delegation::require_scope`] failed |
//!
//! gRPC carries the reason in `google.rpc.ErrorInfo`, domain `mayfly.v1`; plain HTTP in the header `Mayfly-Reason`. The detailed
//! cause is for the service alone: see [`Refused`], in the extensions of the response.
//!
//! A request is verified when it begins, and its response for as long as it is sent: if the certificate or token is revoked or
//! expires, the response ends with that reason ([`DelegationBody`]). While it is unknown whether anything is revoked, new
//! requests are refused and open responses continue, until their credential expires or [`listen`](crate::listen) closes the
//! connection. Other work of a handler, such as reading a long request stream, does not end by itself: see
//! [`Delegation::over`].

mod body;
mod layer;
mod proof;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

pub use body::DelegationBody;
pub use layer::{DelegationLayer, DelegationService};
use mayfly_verify::{AccessToken, AgentId, Binding, ClassName, DelegationId, JwtSvid, Mode, Reject, User, X509Svid};
pub use proof::Tokens;
use tonic::Status;

use crate::peers::Verifier;
use refusal::Refusal;
pub use refusal::Refused;

/// Longest pause between two checks in [`Delegation::over`]; news from the feed ends it early.
const LOOK: Duration = Duration::from_secs(1);

/// What the agent behind one request may do, and for which user. Only verification creates one. Clones share it.
#[derive(Clone, Debug)]
pub struct Delegation(Arc<Proved>);

#[derive(Debug)]
struct Proved {
    agent: AgentId,
    binding: Binding,
    expires_at: u64,
    relies_on: Vec<Credential>,
    verifier: Verifier,
}

/// A verified credential, to be checked again.
#[derive(Clone, Debug)]
enum Credential {
    X509(Arc<X509Svid>),
    Jwt(Arc<JwtSvid>),
    Access(Arc<AccessToken>),
}

impl Delegation {
    /// The delegation of a request, from `tonic::Request::extensions` or `http::Request::extensions`. UNAUTHENTICATED if the
    /// layer does not wrap the service.
    pub fn of(extensions: &http::Extensions) -> Result<&Delegation, Status> {
        extensions.get::<Delegation>().ok_or_else(|| Refusal::Missing.status())
    }

    /// The agent, as one instance of its class.
    pub fn agent(&self) -> &AgentId {
        &self.0.agent
    }

    /// The agent's class. The same name means another class in another trust domain.
    pub fn class(&self) -> &ClassName {
        &self.0.agent.class
    }

    /// The user that the agent acts for; the subject may be a pseudonym. `None` for an autonomous agent.
    pub fn user(&self) -> Option<&User> {
        self.0.binding.user.as_ref()
    }

    /// The access token of the request. `None` if it had another credential.
    pub fn access_token(&self) -> Option<&AccessToken> {
        self.0
            .relies_on
            .iter()
            .find_map(|credential| if let Credential::Access(token) = credential { Some(&**token) } else { None })
    }

    /// Id of the delegation by which it acts for the user. `None` for an autonomous agent.
    pub fn id(&self) -> Option<DelegationId> {
        self.0.binding.delegation
    }

    /// SPIFFE IDs from the parent up to the root workload; at least one.
    pub fn chain(&self) -> &[String] {
        &self.0.binding.chain
    }

    /// SPIFFE ID of the root workload.
    pub fn root(&self) -> &str {
        self.0.binding.root_id()
    }

    /// Number of levels below the root workload; 1 directly below it.
    pub fn depth(&self) -> usize {
        self.0.binding.depth()
    }

    /// Whether it acts for a user or for nobody.
    pub fn mode(&self) -> Mode {
        self.0.binding.mode
    }

    /// Its scopes, sorted, without duplicates.
    pub fn scopes(&self) -> &[String] {
        &self.0.binding.scopes
    }

    /// When the credential or the agent's lease ends, whichever is earlier, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.0.expires_at
    }

    /// Whether it has this scope. Scopes are compared as a whole; there are no wildcards.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.0.binding.scopes.iter().any(|own| own == scope)
    }

    /// Fails with PERMISSION_DENIED, reason `SCOPE_MISSING`, if it lacks this scope.
    pub fn require_scope(&self, scope: &str) -> Result<(), Status> {
        if self.has_scope(scope) { Ok(()) } else { Err(Refusal::Scope(scope.to_owned()).status()) }
    }

    /// Fails if the credential is revoked or expired by now. No signature is verified again.
    pub fn check(&self) -> Result<(), Status> {
        self.holds().map_err(|reject| Refusal::Credential(reject).status())
    }

    /// Resolves when the credential is revoked or expires, with the reason; for work that goes on after a request began. While it
    /// is unknown whether the credential is revoked, this waits.
    pub async fn over(&self) -> Status {
        let mut news = self.0.verifier.news();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            let _ = tokio::time::timeout(LOOK, news.changed()).await;
        }
    }

    /// Why the credential is not valid any more; `None` if it is valid, or if that is unknown.
    fn ended(&self) -> Option<Status> {
        let reject = self.holds().err().filter(|reject| !matches!(reject, Reject::Stale(_)))?;
        Some(Refusal::Credential(reject).status())
    }

    fn holds(&self) -> Result<(), Reject> {
        self.0.relies_on.iter().try_for_each(|credential| match credential {
            Credential::X509(svid) => self.0.verifier.check(&**svid),
            Credential::Jwt(svid) => self.0.verifier.check(&**svid),
            Credential::Access(token) => self.0.verifier.check(&**token),
        })
    }
}
