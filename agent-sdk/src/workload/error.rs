//! Why a Workload API provides no identity or token. Each variant says who has to act.

use tonic::{Code, Status};

/// Why a request to a Workload API failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The address cannot be parsed. The caller has to correct it.
    #[error("`{0}` is not the address of a Workload API: write unix:///path or tcp://IP:port")]
    Endpoint(String),
    /// The environment has no address. The caller has to set it, or start the program differently.
    #[error("there is no Workload API: start under `mayfly run` or a SPIRE agent, or set SPIFFE_ENDPOINT_SOCKET")]
    NoEndpoint,
    /// There is no identity for this process, or no such token. The operator of the Workload API has to register it.
    #[error("the Workload API refuses: {0}; check that this process is registered there")]
    Denied(String),
    /// The API cannot be reached, is busy or failed. Retry; its operator has to act if this persists.
    #[error("the Workload API cannot answer now: {0}; retry, and check that it runs")]
    Unavailable(String),
    /// The API will never answer this request. The caller, or the API's operator, has to change something.
    #[error("the Workload API refuses this permanently: {0}")]
    Refused(String),
    /// The answer is incomplete or contradictory. The API's operator has to act.
    #[error("the Workload API's answer cannot be used: {0}")]
    Answer(&'static str),
    /// The token is not valid. Its sender has to get another.
    #[error("the token is not valid: {0}")]
    Token(String),
    /// There is no identity now.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why there is no identity now. It may come back; [`Source::changed`](super::Source::changed) notifies then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The Workload API withdrew it (CL-5).
    #[error("the identity was revoked: {0}")]
    Redacted(String),
    /// Its certificate expired, and no other arrived.
    #[error("the identity expired: no new certificate arrived in time; check that the Workload API runs")]
    Expired,
}

/// State of the stream of our X.509-SVIDs. While it is broken, the last ones stay in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// The first connection is being made.
    Connecting,
    /// Messages arrive.
    Open,
    /// The stream broke, for this reason, and is opened again after a short pause.
    Broken(String),
    /// The stream ended for good, for this reason: the API does not implement it, or considers our requests malformed (CL-4).
    Refused(String),
}

impl WorkloadError {
    /// Stable label for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::NoEndpoint => "no_endpoint",
            Self::Denied(_) => "denied",
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
            Self::Answer(_) => "answer",
            Self::Token(_) => "token",
            Self::Lost(Lost::Redacted(_)) => "redacted",
            Self::Lost(Lost::Expired) => "expired",
        }
    }

    /// Whether the same request may succeed later (CL-4).
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Unavailable(_) | Self::Lost(_))
    }

    pub(super) fn of(status: &Status) -> WorkloadError {
        let message = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied => Self::Denied(message),
            Code::InvalidArgument | Code::Unimplemented => Self::Refused(format!("{:?}: {message}", status.code())),
            code => Self::Unavailable(format!("{code:?}: {message}")),
        }
    }
}
