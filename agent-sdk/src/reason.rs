//! Reason codes: why a request was denied, who has to act, and whether the identity that asked has ended.
//!
//! A denial is a gRPC status with `google.rpc.ErrorInfo`: its domain is `mayfly.v1`, and its `reason` is one of these codes. In
//! plain HTTP a service that uses [`delegation`](crate::delegation) sends the code in the header `Mayfly-Reason`. The same list
//! is the enum [`Reason`] of the proto.
//!
//! ```
//! use mayfly_agent::reason::{Actor, Entry};
//!
//! let entry = Entry::of("USER_CLOSED").ok_or("a code of a later version")?;
//! assert_eq!(entry.actor, Actor::Operator);
//! assert!(!entry.is_final);
//! # Ok::<(), &str>(())
//! ```
#![doc = include_str!("../docs/reasons.md")]

mod table;

use std::fmt;

use tonic::Code;

use self::Actor::{Caller, ClassOwner, Holder, Nobody, Operator, User};
use self::Kind::{Conflict, Deadline, Denied, Exhausted, Malformed, NotFound, Precondition, Unauthenticated, Unavailable};
use crate::api::v1::Reason;

pub use table::REASONS;

/// One reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The code as it is sent, such as `KEY_IN_USE`.
    pub code: &'static str,
    /// The kinds of denial that have this code, the usual one first. Several kinds mean that the code can be about the caller
    /// itself, about what the caller asks for, or about a change that came between the decision and the answer.
    pub kinds: &'static [Kind],
    /// What happened, as one sentence.
    pub meaning: &'static str,
    /// Who has to act before the request can succeed.
    pub actor: Actor,
    /// Whether a certificate that the issuer refuses as UNAUTHENTICATED with this code is refused for good. Under any other kind
    /// a code ends nothing but the one request.
    pub is_final: bool,
}

/// The kind of a denial. Each is one gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is malformed, whoever sends it: INVALID_ARGUMENT.
    Malformed,
    /// The caller has not proved who it is, or its credential is not valid any more: UNAUTHENTICATED.
    Unauthenticated,
    /// This caller may not do it: PERMISSION_DENIED.
    Denied,
    /// It does not exist, or the caller may not see it: NOT_FOUND.
    NotFound,
    /// It exists already and is something else: ALREADY_EXISTS.
    Conflict,
    /// Something else has to be done first: FAILED_PRECONDITION.
    Precondition,
    /// A limit is reached, or a queue or disk is full: RESOURCE_EXHAUSTED.
    Exhausted,
    /// The answer took too long; what was recorded stays recorded: DEADLINE_EXCEEDED.
    Deadline,
    /// The server is starting or stopping, or something that it depends on is away: UNAVAILABLE.
    Unavailable,
}

/// Who has to act before a denied request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The calling program: it sends another request, or sends it with another credential that it has.
    Caller,
    /// Whoever holds the identity or ticket: it needs a new one.
    Holder,
    /// The user: they sign in again, so that there is a fresh user token.
    User,
    /// The owner of the class: they change the class, or explain why it is as it is.
    ClassOwner,
    /// The operator of the issuer, or of the service that denied the request.
    Operator,
    /// Nobody: the same request may succeed later.
    Nobody,
}

impl Entry {
    /// Looks up a code; `None` for one of a later version.
    pub fn of(code: &str) -> Option<&'static Entry> {
        let at = REASONS.binary_search_by(|entry| entry.code.cmp(code)).ok()?;
        REASONS.get(at)
    }
}

impl Reason {
    /// The code as it is sent in `ErrorInfo`: the name of the value without its prefix, such as `KEY_IN_USE`.
    pub fn code(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }
}

impl Kind {
    /// The gRPC status code.
    pub fn code(self) -> Code {
        match self {
            Malformed => Code::InvalidArgument,
            Unauthenticated => Code::Unauthenticated,
            Denied => Code::PermissionDenied,
            NotFound => Code::NotFound,
            Conflict => Code::AlreadyExists,
            Precondition => Code::FailedPrecondition,
            Exhausted => Code::ResourceExhausted,
            Deadline => Code::DeadlineExceeded,
            Unavailable => Code::Unavailable,
        }
    }
}

/// The name of the gRPC status code, as in `google.rpc.Code`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed => "INVALID_ARGUMENT",
            Unauthenticated => "UNAUTHENTICATED",
            Denied => "PERMISSION_DENIED",
            NotFound => "NOT_FOUND",
            Conflict => "ALREADY_EXISTS",
            Precondition => "FAILED_PRECONDITION",
            Exhausted => "RESOURCE_EXHAUSTED",
            Deadline => "DEADLINE_EXCEEDED",
            Unavailable => "UNAVAILABLE",
        })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Caller => "caller",
            Holder => "holder",
            User => "user",
            ClassOwner => "class owner",
            Operator => "operator",
            Nobody => "nobody",
        })
    }
}
