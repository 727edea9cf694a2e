//! How a command fails: its exit code, and what it says on stderr.

use std::fmt;
use std::io::Write as _;

use mayfly_agent::channel::ConnectError;
use mayfly_agent::identity::{IdentityError, Over};
use mayfly_agent::reason::{Actor, Entry};
use mayfly_verify::Reject;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::follow::FollowError;
use crate::telemetry::{escaped, escaped_lines};

/// Exit code of a failure that no other code describes.
pub(super) const FAILURE: u8 = 1;
/// Exit code of a usage error, the same as clap's.
pub(super) const USAGE: u8 = 2;
/// Exit code when the issuer has denied the request.
pub(super) const DENIED: u8 = 3;
/// Exit code for a credential that is not valid: of `verify`, and of every command whose own certificate has expired.
pub(super) const INVALID: u8 = 4;
/// Exit code when the issuer cannot be reached.
pub(super) const UNREACHABLE: u8 = 5;
/// Exit code of `verify --live` for a credential that is revoked.
pub(super) const REVOKED: u8 = 6;
/// Exit code of `verify --live` when it is not known whether a credential is revoked.
pub(super) const STALE: u8 = 7;

/// Exit code of a command that was interrupted: 128 and the number of SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command failed, with its exit code.
#[derive(Debug)]
pub struct Failure {
    /// One of the exit codes that `mayfly --help` lists; for `mayfly run`, the exit code of its command.
    pub code: u8,
    /// What happened and what to do about it; empty if the user has been told already.
    pub message: String,
    /// The reason code of a denial or of a credential that is not valid. `None` for other failures.
    pub reason: Option<String>,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), reason: None }
    }

    /// The same, with its reason code.
    fn because(mut self, reason: impl Into<String>) -> Failure {
        self.reason = Some(reason.into());
        self
    }

    /// Whether the issuer refuses the caller's certificate for good.
    pub(super) fn is_final(&self) -> bool {
        self.code == DENIED && self.reason.as_deref().and_then(Entry::of).is_some_and(|entry| entry.is_final)
    }

    /// The same, with what to do about it.
    pub(super) fn and_then(mut self, what: &str) -> Failure {
        self.message = format!("{}; {what}", self.message);
        self
    }

    /// Says on stderr what happened, unless the user has been told already: for people, or as one JSON object.
    pub fn tell(&self, json: bool) {
        if self.message.is_empty() {
            return;
        }
        // Nobody reads it if this fails.
        if !json {
            let _ = writeln!(std::io::stderr(), "mayfly: {self}");
            return;
        }
        let code = self.reason.as_deref().unwrap_or(match self.code {
            USAGE => "USAGE",
            DENIED => "DENIED",
            INVALID => "INVALID",
            UNREACHABLE => "UNREACHABLE",
            REVOKED => "REVOKED",
            STALE => "STALE",
            INTERRUPTED => "INTERRUPTED",
            _ => "FAILURE",
        });
        let hint = Entry::of(code).map(|entry| format!("{} {}", entry.meaning, who_acts(entry.actor)));
        let error = json!({ "code": code, "exit_code": self.code, "message": self.message, "hint": hint });
        let _ = writeln!(std::io::stderr(), "{}", json!({ "error": error }));
    }

    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(USAGE, message)
    }

    /// For an answer of the issuer that lacks a field which this version needs.
    pub(super) fn incomplete_answer() -> Failure {
        Failure::new(FAILURE, "the issuer's answer is incomplete: is it of another version?")
    }
}

/// Who has to do something before the same request can succeed.
fn who_acts(actor: Actor) -> &'static str {
    match actor {
        Actor::Caller => "Send another request.",
        Actor::Holder => "Get a new identity or ticket.",
        Actor::User => "The user signs in again.",
        Actor::ClassOwner => "The owner of the class can allow it.",
        Actor::Operator => "An operator has to act.",
        _ => "The same request may succeed later.",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped_lines(&self.message))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::new(FAILURE, message)
    }
}

impl From<ConnectError> for Failure {
    fn from(e: ConnectError) -> Failure {
        let code = match e {
            ConnectError::OutOfTime(_) => INVALID,
            ConnectError::Address(_) | ConnectError::Identity(_) | ConnectError::Roots(_) => FAILURE,
            _ => UNREACHABLE,
        };
        Failure::new(code, escaped(&e))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        // The connection was lost, and could not be made again.
        if let Some(e) = ConnectError::behind(&status) {
            return Failure::from(e.clone());
        }
        let code = match status.code() {
            Code::Unavailable => UNREACHABLE,
            Code::InvalidArgument | Code::Internal | Code::Unknown => FAILURE,
            _ => DENIED,
        };
        let reason = match status.get_details_error_info() {
            Some(info) if !info.reason.is_empty() => info.reason,
            _ => format!("{:?}", status.code()),
        };
        // If the caller's own certificate has expired, the exit code is the one that it has when this process notices it.
        let expired = status.code() == Code::Unauthenticated && matches!(reason.as_str(), "AGENT_EXPIRED" | "CREDENTIAL_EXPIRED");
        let code = if expired { INVALID } else { code };
        let kind = if code == DENIED || expired { "denied" } else { "failed" };
        Failure::new(code, format!("{kind}: {}: {}", escaped(&reason), escaped(&status.message()))).because(reason)
    }
}

impl From<IdentityError> for Failure {
    fn from(e: IdentityError) -> Failure {
        let code = match &e {
            IdentityError::Over(Over::Expired(_)) => INVALID,
            IdentityError::Denied { .. } | IdentityError::Over(_) => DENIED,
            IdentityError::Connect(e) => return Failure::from(e.clone()),
            IdentityError::Unavailable(_) => UNREACHABLE,
            _ => FAILURE,
        };
        let failure = Failure::new(code, escaped(&e));
        match e {
            IdentityError::Denied { reason, .. } => failure.because(reason),
            _ => failure,
        }
    }
}

impl From<FollowError> for Failure {
    fn from(e: FollowError) -> Failure {
        match e {
            FollowError::Connect(e) => e.into(),
            FollowError::Status(status) => status.into(),
            FollowError::Silent => Failure::new(UNREACHABLE, e.to_string()),
            FollowError::Folder(_) | FollowError::Bundle(_) => Failure::new(FAILURE, escaped(&e)),
        }
    }
}

impl From<Reject> for Failure {
    fn from(e: Reject) -> Failure {
        let code = match e {
            Reject::Cut => REVOKED,
            Reject::Stale(_) => STALE,
            _ => INVALID,
        };
        Failure::new(code, format!("the credential is not valid: {}: {}", e.code(), escaped(&e))).because(e.code())
    }
}
