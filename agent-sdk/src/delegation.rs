//! What the agent behind a request may do, and for whom: proved for each request, and no other way to have it.
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
//! [`DelegationLayer`] stands before a service and puts a [`Delegation`] into the extensions of each request, or answers:
//!
//! | reason | gRPC status | HTTP | when |
//! |---|---|---|---|
//! | `CREDENTIAL_REVOKED`, `CREDENTIAL_EXPIRED`, other reasons of [`Reject::code`] | UNAUTHENTICATED | 401 | the credential does not hold |
//! | `CREDENTIAL_STALE` | UNAVAILABLE, with `RetryInfo` | 503, `Retry-After` | whether it is revoked is not known; ask again |
//! | `CREDENTIAL_MISSING` | UNAUTHENTICATED | 401 | neither certificate nor token |
//! | `CREDENTIALS_DIFFER` | UNAUTHENTICATED | 401 | certificate and token are of two |
//! | `TOKEN_MALFORMED` | UNAUTHENTICATED | 401 | two `Authorization` headers, or one that is no bearer token |
//! | `TOKEN_NOT_ACCEPTED` | UNAUTHENTICATED | 401 | an `Authorization` header, and [`Tokens::Refused`] |
//! | `CALLER_NOT_AN_AGENT`, `CALLER_NOT_AUTHORIZED` | PERMISSION_DENIED | 403 | it holds, and has no place here |
//! | `SCOPE_MISSING` | PERMISSION_DENIED | | [`Delegation::require_scope`] |
//!
//! The reason stands in `google.rpc.ErrorInfo`, domain `mayfly.v1`; in plain HTTP, in `Mayfly-Reason`. What exactly is wrong is
//! for the service alone: [`Refused`], in the extensions of the response.
//!
//! A request is judged when it begins, and its answer for as long as it goes on: one whose certificate or token is cut or
//! expires ends with that reason ([`DelegationBody`]). While it is not known whether anything is cut new requests are refused
//! and open answers go on, until their credential expires or [`listen`](crate::listen) ends the connection. What a handler does
//! besides answering, such as to read a long stream, is its own to end: [`Delegation::over`].

mod body;
mod layer;
mod proof;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

pub use body::DelegationBody;
pub use layer::{DelegationLayer, DelegationService};
use mayfly_verify::{AgentId, Binding, ClassName, DelegationId, JwtSvid, Mode, Reject, User, X509Svid};
pub use proof::Tokens;
use tonic::Status;

use crate::peers::Verifier;
use refusal::Refusal;
pub use refusal::Refused;

/// How often time alone is looked at, in [`Delegation::over`].
const LOOK: Duration = Duration::from_secs(1);

/// What the agent behind one request may do, and for whom. It exists only by verification. Clones share it.
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

/// What was verified, to be checked again.
#[derive(Clone, Debug)]
enum Credential {
    X509(Arc<X509Svid>),
    Jwt(Arc<JwtSvid>),
}

impl Delegation {
    /// The delegation of a request: of `tonic::Request::extensions` or `http::Request::extensions`. UNAUTHENTICATED where the
    /// layer does not stand before the service.
    pub fn of(extensions: &http::Extensions) -> Result<&Delegation, Status> {
        extensions.get::<Delegation>().ok_or_else(|| Refusal::Missing.status())
    }

    /// Its SPIFFE ID: acts are attributed to instances.
    pub fn agent(&self) -> &AgentId {
        &self.0.agent
    }

    /// Its class, which only means something within its trust domain.
    pub fn class(&self) -> &ClassName {
        &self.0.agent.class
    }

    /// For whom it acts, as the issuer tells them here: the subject may be a pseudonym. None: for nobody.
    pub fn user(&self) -> Option<&User> {
        self.0.binding.user.as_ref()
    }

    /// The record of what the user let a workload do. None: for nobody.
    pub fn id(&self) -> Option<DelegationId> {
        self.0.binding.delegation
    }

    /// SPIFFE IDs from who spawned it up to the root workload; at least one.
    pub fn chain(&self) -> &[String] {
        &self.0.binding.chain
    }

    /// SPIFFE ID of the workload at the top.
    pub fn root(&self) -> &str {
        self.0.binding.root_id()
    }

    /// Levels below the root workload; 1 directly below it.
    pub fn depth(&self) -> usize {
        self.0.binding.depth()
    }

    /// By which right it exists.
    pub fn mode(&self) -> Mode {
        self.0.binding.mode
    }

    /// What it may do; sorted, none twice.
    pub fn scopes(&self) -> &[String] {
        &self.0.binding.scopes
    }

    /// Unix seconds at which the credential ends, or the lease if that is earlier.
    pub fn expires_at(&self) -> u64 {
        self.0.expires_at
    }

    /// Whether it may do this. Scopes are compared whole: none stands for others.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.0.binding.scopes.iter().any(|own| own == scope)
    }

    /// PERMISSION_DENIED, reason `SCOPE_MISSING` with the scope, unless it may do this.
    pub fn require_scope(&self, scope: &str) -> Result<(), Status> {
        if self.has_scope(scope) { Ok(()) } else { Err(Refusal::Scope(scope.to_owned()).status()) }
    }

    /// Whether it still holds. No signature is looked at.
    pub fn check(&self) -> Result<(), Status> {
        self.holds().map_err(|reject| Refusal::Credential(reject).status())
    }

    /// Resolves when it does not hold any more, and says why; for work that outlasts the beginning of its request. It waits
    /// through a time in which that is not known.
    pub async fn over(&self) -> Status {
        let mut news = self.0.verifier.news();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            let _ = tokio::time::timeout(LOOK, news.changed()).await;
        }
    }

    /// Why it does not hold any more, if that is known.
    fn ended(&self) -> Option<Status> {
        let reject = self.holds().err().filter(|reject| !matches!(reject, Reject::Stale(_)))?;
        Some(Refusal::Credential(reject).status())
    }

    fn holds(&self) -> Result<(), Reject> {
        self.0.relies_on.iter().try_for_each(|credential| match credential {
            Credential::X509(svid) => self.0.verifier.check(&**svid),
            Credential::Jwt(svid) => self.0.verifier.check(&**svid),
        })
    }
}
