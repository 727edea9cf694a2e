//! Why a Workload API gives nothing, or nothing any more. Each says whose turn it is.

use tonic::{Code, Status};

/// Why something was not had from a Workload API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// Our turn: the address is none.
    #[error("`{0}` is no address of a Workload API: write unix:///path or tcp://IP:port")]
    Endpoint(String),
    /// Our turn: nobody says where it is.
    #[error("there is no Workload API: start under `mayfly run` or a SPIRE agent, or set SPIFFE_ENDPOINT_SOCKET")]
    NoEndpoint,
    /// The turn of who runs the Workload API: it knows no identity of ours, or no such token is for us. It may come.
    #[error("the Workload API says no: {0}; see whether this process is registered there")]
    Denied(String),
    /// The turn of who runs the Workload API: it is away, busy or has a fault. Ask again.
    #[error("the Workload API cannot answer now: {0}; ask again, and see whether it runs")]
    Unavailable(String),
    /// Ours or theirs: it will never answer this.
    #[error("the Workload API refuses this for good: {0}")]
    Refused(String),
    /// Theirs: an answer lacks something, or does not belong together.
    #[error("the Workload API's answer cannot be used: {0}")]
    Answer(&'static str),
    /// The turn of who sent it: a token does not hold.
    #[error("the token does not hold: {0}")]
    Token(String),
    /// We have no identity right now.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why there is no identity right now. It may come back, and then [`Source::changed`](super::Source::changed) says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The Workload API took it back (CL-5).
    #[error("the identity was taken back: {0}")]
    Redacted(String),
    /// Its certificate ran out, and no other came.
    #[error("the identity expired: no other came in time, see whether the Workload API runs")]
    Expired,
}

/// How the stream of our X.509-SVIDs stands. What is held stays held through a break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not open yet.
    Connecting,
    /// Messages come.
    Open,
    /// Broken, and opened again before long; says why.
    Broken(String),
    /// Ended for good: the API does not serve this, or takes our requests for malformed (CL-4). Says why.
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

    /// CL-4: whether the same may succeed later.
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
