//! Why a credential does not hold.

use std::time::Duration;

use crate::{BindingError, NameError};

/// Why a credential does not hold. [`Reject::code`] is its stable label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not a certificate, or not a JWS in compact form.
    #[error("the credential is malformed: {0}")]
    Malformed(String),
    /// It parses, and breaks a rule of the SPIFFE profile; the text names the clause.
    #[error("the credential breaks the SPIFFE profile: {0}")]
    Profile(String),
    /// Its SPIFFE ID is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It belongs to another trust domain than the bundle.
    #[error("the credential is of trust domain `{0}`, and the bundle of `{1}`")]
    TrustDomain(String, String),
    /// No chain to the bundle, no key of that id, or a signature that does not verify.
    #[error("the credential is not signed by an authority of the bundle: {0}")]
    Untrusted(String),
    /// Its time is over.
    #[error("the credential expired at {0} (unix seconds)")]
    Expired(u64),
    /// Its time has not come.
    #[error("the credential is valid from {0} on (unix seconds)")]
    NotYetValid(u64),
    /// For somebody else.
    #[error("the token is for another audience than `{0}`")]
    Audience(String),
    /// An agent without a well-formed binding, or another with one.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// An agent's credential that says nothing of whom it acts for.
    #[error("an agent's credential must carry the binding `{0}`, and this one has none")]
    Unbound(String),
    /// It is cut: something it relies on was revoked.
    #[error("the credential was revoked")]
    Cut,
    /// Whether it is cut cannot be told: what is known of revocations is too old.
    #[error("whether the credential is revoked is not known: {0}")]
    Stale(Staleness),
}

/// Why what is known of revocations does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Staleness {
    /// Nothing was received yet (T69).
    #[error("nothing was received yet")]
    Never,
    /// The last heartbeat is older than the bound.
    #[error("the last heartbeat is {0:?} old")]
    Old(Duration),
    /// The last heartbeat lies in the future by more than clocks may differ.
    #[error("the last heartbeat lies {0:?} in the future")]
    Future(Duration),
    /// A caller asked for a later revision (see [`Live::require`](crate::Live::require)).
    #[error("revision {known} is known, and {required} is required")]
    Behind {
        /// Every cut up to this revision is known.
        known: u64,
        /// What was asked for.
        required: u64,
    },
}

impl Reject {
    /// A stable label, in upper case.
    pub fn code(&self) -> &'static str {
        match self {
            Reject::Malformed(_) => "CREDENTIAL_MALFORMED",
            Reject::Profile(_) => "CREDENTIAL_PROFILE",
            Reject::Name(_) => "CREDENTIAL_SPIFFE_ID",
            Reject::TrustDomain(..) => "CREDENTIAL_TRUST_DOMAIN",
            Reject::Untrusted(_) => "CREDENTIAL_UNTRUSTED",
            Reject::Expired(_) => "CREDENTIAL_EXPIRED",
            Reject::NotYetValid(_) => "CREDENTIAL_NOT_YET_VALID",
            Reject::Audience(_) => "CREDENTIAL_AUDIENCE",
            Reject::Binding(_) | Reject::Unbound(_) => "CREDENTIAL_BINDING",
            Reject::Cut => "CREDENTIAL_REVOKED",
            Reject::Stale(_) => "CREDENTIAL_STALE",
        }
    }
}
