//! Why an identity could not be obtained or used, or why it has ended. Each variant says who has to act.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::channel::ConnectError;
use crate::reason::Entry;

/// Why a call on an identity failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no connection to the issuer. The calling program has to act if the address, its own certificates or the roots
    /// cannot be used; the issuer's operator has to act if the issuer cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The issuer is unreachable or overloaded, or has an internal error. The same call may succeed later; if it does not, the
    /// issuer's operator has to act.
    #[error("the issuer cannot answer now: {0}; ask again, and see whether it runs")]
    Unavailable(String),
    /// The issuer denied this one call; the identity stays as it is. [`Entry::actor`] says who has to act.
    #[error("denied: {reason}: {message}")]
    Denied {
        /// The `reason` of `google.rpc.ErrorInfo`; the name of the gRPC status code if the answer has no `ErrorInfo`.
        reason: String,
        /// The issuer's message: what was wrong and what to do.
        message: String,
    },
    /// A budget has less left than was asked for, and nothing was spent. The owner of the class sets it.
    #[error("{0}")]
    Exhausted(Box<Exhausted>),
    /// An answer of the issuer lacks a part. Both ends have to be of compatible releases.
    #[error("the issuer's answer is incomplete: {0}; check that both ends are of the same release")]
    Answer(&'static str),
    /// The saved files hold no identity of an agent, or do not belong together. Whoever saved them has to act.
    #[error("the saved identity cannot be used: {0}")]
    Saved(String),
    /// No key could be made or used. The machine's random numbers or its cryptography do not work.
    #[error("no key could be made or used; check that the system's random numbers work")]
    Key,
    /// The identity has ended for good. Whoever holds it has to obtain a new one.
    #[error(transparent)]
    Over(#[from] Over),
}

/// A budget that has less left than was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{message}")]
pub struct Exhausted {
    /// Which budget: `budget.ops`, `budget.tokens` or `budget.usd`.
    pub budget: String,
    /// SPIFFE ID of the agent whose budget it is: the agent itself, or one above it.
    pub agent: String,
    /// Whoever owns the class of that agent, and so sets the budget.
    pub owner: String,
    /// What is left of it; dollars in millionths.
    pub left: u64,
    /// The issuer's message.
    pub message: String,
}

/// Why an identity has ended. It never becomes valid again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Over {
    /// This process ended it.
    #[error("the identity has ended")]
    Ended,
    /// The issuer refuses the identity for good, because it was revoked, ended or replaced: the reason is one whose
    /// [`Entry::is_final`] is true.
    #[error("the identity is no longer valid: {reason}: {message}")]
    Revoked {
        /// The `reason` of `google.rpc.ErrorInfo`.
        reason: String,
        /// The issuer's message.
        message: String,
    },
    /// Its last certificate expired: its lease has ended, or it was not renewed in time.
    #[error("the identity expired: {0}")]
    Expired(String),
}

impl IdentityError {
    /// Stable label for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(e) => e.code(),
            Self::Unavailable(_) => "unavailable",
            Self::Denied { .. } => "denied",
            Self::Exhausted(_) => "exhausted",
            Self::Answer(_) => "answer",
            Self::Saved(_) => "saved",
            Self::Key => "key",
            Self::Over(over) => over.code(),
        }
    }

    /// Whether the same call may succeed later although nobody does anything else.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Connect(e) => !matches!(
                e,
                ConnectError::Address(_)
                    | ConnectError::Identity(_)
                    | ConnectError::OutOfTime(_)
                    | ConnectError::Roots(_)
                    | ConnectError::Untrusted(_)
            ),
            _ => false,
        }
    }

    /// Whether the call was made on a connection from before the last renewal.
    pub(super) fn is_past(&self) -> bool {
        matches!(self, Self::Denied { reason, .. } if reason == "GENERATION_PAST")
    }

    pub(super) fn of(status: &Status) -> IdentityError {
        if let Some(e) = ConnectError::behind(status) {
            return Self::Connect(e.clone());
        }
        let info = status.get_details_error_info();
        if let Some(info) = info.as_ref().filter(|info| info.reason == "BUDGET_EXHAUSTED") {
            let said = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
            return Self::Exhausted(Box::new(Exhausted {
                budget: said("limit"),
                agent: said("agent"),
                owner: said("owner"),
                left: said("left").parse().unwrap_or(0),
                message: status.message().to_owned(),
            }));
        }
        let reason = info.map(|info| info.reason).unwrap_or_default();
        let reason = if reason.is_empty() { format!("{:?}", status.code()) } else { reason };
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::Cancelled | Code::Aborted => {
                Self::Unavailable(format!("{reason}: {message}"))
            }
            Code::ResourceExhausted if retry(status).is_some() => Self::Unavailable(format!("{reason}: {message}")),
            // The issuer refuses our certificate for good, so it will answer no further call of ours.
            Code::Unauthenticated if Entry::of(&reason).is_some_and(|entry| entry.is_final) => {
                Self::Over(match reason.as_str() {
                    "AGENT_EXPIRED" | "CREDENTIAL_EXPIRED" => Over::Expired(message),
                    _ => Over::Revoked { reason, message },
                })
            }
            _ => Self::Denied { reason, message },
        }
    }
}

fn retry(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

impl Over {
    /// Stable label for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Revoked { .. } => "revoked",
            Self::Expired(_) => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::REASONS;
    use tonic_types::ErrorDetails;

    fn answered(code: Code, reason: &str) -> IdentityError {
        let details = ErrorDetails::with_error_info(reason, "mayfly.v1", [("a".to_owned(), "b".to_owned())]);
        IdentityError::of(&Status::with_error_details(code, "why", details))
    }

    #[test]
    fn only_a_final_reason_for_the_certificate_itself_ends_an_identity() {
        let ended: Vec<&str> = REASONS
            .iter()
            .map(|entry| entry.code)
            .filter(|code| matches!(answered(Code::Unauthenticated, code), IdentityError::Over(_)))
            .collect();
        let list = [
            "AGENT_ENDED",
            "AGENT_EXPIRED",
            "AGENT_ORPHANED",
            "AGENT_REVOKED",
            "AGENT_UNKNOWN",
            "AUTHORITY_TAINTED",
            "CREDENTIAL_EXPIRED",
            "CREDENTIAL_REUSED",
            "CREDENTIAL_REVOKED",
            "GENERATION_REPLACED",
            "KEY_REVOKED",
            "WORKLOAD_UNKNOWN",
        ];
        assert_eq!(ended, list);
        for code in list {
            let over = answered(Code::Unauthenticated, code);
            let expired = matches!(over, IdentityError::Over(Over::Expired(_)));
            assert_eq!(expired, code.ends_with("_EXPIRED"), "{over}");
            // About another key, another agent, or a change that came before the answer.
            for other in [Code::PermissionDenied, Code::NotFound] {
                assert!(matches!(answered(other, code), IdentityError::Denied { .. }), "{code} with {other:?}");
            }
        }
    }

    #[test]
    fn a_reason_of_a_later_version_ends_nothing() {
        let denied = answered(Code::Unauthenticated, "NOT_INVENTED_YET");
        assert!(matches!(&denied, IdentityError::Denied { reason, .. } if reason == "NOT_INVENTED_YET"), "{denied}");
    }
}
