//! Why a connection to an issuer or a peer fails.

use std::error::Error;
use std::time::Duration;

use crate::validity::OutOfTime;

/// Why a connection fails. It is `Clone`, because every call that waits for the connection gets the same error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not `host:port`.
    #[error("`{0}` is not an address: write host:port, with an IPv6 address in brackets")]
    Address(String),
    /// Our own certificates and key do not belong together, or cannot be read.
    #[error("our own identity cannot be used: {0}; give the chain, leaf first, with the leaf's key")]
    Identity(String),
    /// Our own certificate has expired, or is not valid yet by this machine's clock. No connection was made.
    #[error("our own certificate {0}")]
    OutOfTime(#[from] OutOfTime),
    /// [`Trust::Roots`](super::Trust::Roots) is empty, or holds something that is not a certificate.
    #[error("the roots cannot be used: {0}; give the DER certificates of the issuer's bundle")]
    Roots(String),
    /// No server listens there, or the name cannot be resolved.
    #[error("cannot reach `{address}`: {cause}; check the address and that the issuer runs")]
    Unreachable {
        /// Address or path of the socket.
        address: String,
        /// The operating system's error.
        cause: String,
    },
    /// The connection or the handshake was not finished in time.
    #[error("`{address}` did not answer within {after:?}; check the address, or allow more time")]
    TimedOut {
        /// Address or path of the socket.
        address: String,
        /// The limit that was reached.
        after: Duration,
    },
    /// The server is not the expected one, or cannot prove it.
    #[error("the server is not to be trusted: {0}; check address, trust domain and roots")]
    Untrusted(String),
    /// TLS failed before certificates were exchanged: no TLS server, no common version, no HTTP/2.
    #[error("the TLS handshake failed: {0}; check that this is the issuer's gRPC port")]
    Handshake(String),
    /// HTTP/2 failed after the handshake.
    #[error("the connection failed: {0}; check that this is the issuer's gRPC port")]
    Transport(String),
}

impl ConnectError {
    /// Stable label for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Identity(_) => "identity",
            Self::OutOfTime(OutOfTime::Expired { .. }) => "expired",
            Self::OutOfTime(OutOfTime::ClockBehind { .. }) => "clock",
            Self::Roots(_) => "roots",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Untrusted(_) => "untrusted",
            Self::Handshake(_) => "handshake",
            Self::Transport(_) => "transport",
        }
    }

    /// Finds the `ConnectError` that caused another error, such as a call's `tonic::Status`. `None` if the cause is another one.
    pub fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        chain(error).find_map(|e| e.downcast_ref())
    }

    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn of(error: tonic::transport::Error) -> Self {
        Self::behind(&error).cloned().unwrap_or_else(|| {
            // tonic's own text is "transport error"; the causes say what happened.
            Self::Transport(chain(&error).map(ToString::to_string).collect::<Vec<_>>().join(": "))
        })
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}
