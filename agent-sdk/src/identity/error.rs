//! Why there is no identity, or none any more. Each says whose turn it is.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::channel::ConnectError;

/// Why something was not done with an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Our turn: the address, our own certificates or the roots cannot be used. Or the issuer's operator's: it cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The issuer's operator's turn: the issuer is away, busy or has a fault. Ask again.
    #[error("the issuer cannot answer now: {0}; ask again, and see whether it runs")]
    Unavailable(String),
    /// The turn of who owns the class or the ticket: the issuer said no.
    #[error("denied: {reason}: {message}")]
    Denied {
        /// `google.rpc.ErrorInfo.reason`, or the name of the gRPC code.
        reason: String,
        /// What the issuer says to do.
        message: String,
    },
    /// The issuer's developers' turn, or ours: an answer lacks a part.
    #[error("the issuer's answer is incomplete: {0}; check that both ends are of the same release")]
    Answer(&'static str),
    /// Our turn: what was saved in files is no identity of an agent, or does not belong together.
    #[error("the saved identity cannot be used: {0}")]
    Saved(String),
    /// The machine's turn: no key could be made or used.
    #[error("no key could be made or used; check that the system's random numbers work")]
    Key,
    /// The identity is over; begin a new one.
    #[error(transparent)]
    Over(#[from] Over),
}

/// Why an identity is over. It never comes back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Over {
    /// We ended it.
    #[error("the identity has ended")]
    Ended,
    /// The issuer says that it does not hold any more: cut, or ended by somebody above.
    #[error("the identity was taken back: {reason}: {message}")]
    Revoked {
        /// `google.rpc.ErrorInfo.reason`.
        reason: String,
        /// What the issuer says.
        message: String,
    },
    /// Its last certificate ran out: its lease is over, or no renewal came in time.
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
            Self::Answer(_) => "answer",
            Self::Saved(_) => "saved",
            Self::Key => "key",
            Self::Over(over) => over.code(),
        }
    }

    /// Whether the same may succeed later without anybody doing anything else.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Connect(e) => !matches!(
                e,
                ConnectError::Address(_) | ConnectError::Identity(_) | ConnectError::Roots(_) | ConnectError::Untrusted(_)
            ),
            _ => false,
        }
    }

    pub(super) fn of(status: &Status) -> IdentityError {
        if let Some(e) = ConnectError::behind(status) {
            return Self::Connect(e.clone());
        }
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let reason = if reason.is_empty() { format!("{:?}", status.code()) } else { reason };
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::Cancelled | Code::Aborted => {
                Self::Unavailable(format!("{reason}: {message}"))
            }
            Code::ResourceExhausted if retry(status).is_some() => Self::Unavailable(format!("{reason}: {message}")),
            // The issuer no longer knows us by our certificate: nothing that we ask will be answered.
            Code::Unauthenticated if reason == "CREDENTIAL_EXPIRED" || reason == "AGENT_EXPIRED" => {
                Self::Over(Over::Expired(message))
            }
            Code::Unauthenticated if FINAL.contains(&reason.as_str()) => Self::Over(Over::Revoked { reason, message }),
            _ => Self::Denied { reason, message },
        }
    }
}

/// The issuer's reasons for which a certificate never counts again. Another reason is a denial of this one call.
const FINAL: [&str; 10] = [
    "AGENT_ENDED",
    "AGENT_REVOKED",
    "AGENT_ORPHANED",
    "AGENT_UNKNOWN",
    "AUTHORITY_TAINTED",
    "CREDENTIAL_REUSED",
    "CREDENTIAL_REVOKED",
    "GENERATION_REPLACED",
    "KEY_REVOKED",
    "WORKLOAD_UNKNOWN",
];

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
