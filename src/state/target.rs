//! The standing of a revoked or reopened target.

use std::sync::Arc;

/// The standing of a target that was revoked or reopened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStanding {
    /// Nothing new is issued for it.
    pub closed: bool,
    /// Unix microseconds. Tokens of a user are accepted only if they were issued after this.
    pub since: u64,
    /// Revision of the last revocation or reopening.
    pub revision: u64,
    /// Unix microseconds until which the standing matters. A closed target stays closed beyond that.
    pub until: u64,
    /// About its last revocation.
    pub why: Arc<Why>,
}

/// Why a target was revoked. Never shown to callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// The reason in the request.
    pub reason: String,
    /// An operator, a SPIFFE ID or a user; empty if the issuer itself revoked it.
    pub by: String,
    /// Unix microseconds.
    pub at: u64,
}
