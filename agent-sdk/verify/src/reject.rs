//! Why a credential is refused.

use std::time::Duration;

use crate::{BindingError, NameError, rfc3339};

/// Why a credential is refused. [`Reject::code`] is its stable label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The credential is neither an X.509 certificate nor a JWS in compact form.
    #[error("the credential is malformed: {0}")]
    Malformed(String),
    /// The credential can be read but breaks a rule of the SPIFFE profile.
    #[error("the credential breaks the SPIFFE profile: {0}")]
    Profile(String),
    /// The credential's SPIFFE ID is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The credential belongs to another trust domain than the bundle.
    #[error("the credential is of trust domain `{0}`, and the bundle of `{1}`")]
    TrustDomain(String, String),
    /// There is no chain to the bundle or no key with that id, or a signature does not verify.
    #[error("the credential is not signed by an authority of the bundle: {0}")]
    Untrusted(String),
    /// The credential has expired. In Unix seconds.
    #[error("the credential expired at {at}", at = rfc3339(*.0))]
    Expired(u64),
    /// The credential is not valid yet. In Unix seconds.
    #[error("the credential is not valid before {at}: compare the clocks", at = rfc3339(*.0))]
    NotYetValid(u64),
    /// The token is meant for other audiences.
    #[error("the token is for another audience than `{0}`")]
    Audience(String),
    /// The binding of an agent is malformed, or a credential that is not an agent's carries one.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// An agent's credential has no binding.
    #[error("an agent's credential must carry the binding `{0}`, and this one has none")]
    Unbound(String),
    /// A cut revokes it: the user, agent, key, authority or another subject that it relies on was revoked.
    #[error("the credential was revoked")]
    Cut,
    /// The access token is bound to a key or certificate that its holder has not proved.
    #[error("the token is bound to {0}, and this request does not prove it")]
    Unproved(&'static str),
    /// A DPoP proof is not one of this request.
    #[error("the DPoP proof is not valid: {0}")]
    Proof(String),
    /// A DPoP proof has no nonce of the receiver, or one that has expired.
    #[error("the DPoP proof needs the nonce that is sent with this answer")]
    Nonce,
    /// A DPoP proof was used before, or it is unknown whether it was.
    #[error("the DPoP proof was used before: make one for each request")]
    ProofUsed,
    /// A token for a single use was used before, or that cannot be told because too many were.
    #[error("the token is for a single use and was used before: get one for each request")]
    Used,
    /// A token for a single use was issued before its receiver began to remember uses. In Unix seconds.
    #[error("the token is for a single use and was issued before {at}, from when on uses are remembered: get a new one", at = rfc3339(*.0))]
    BeforeMemory(u64),
    /// It is unknown whether the credential is revoked, because the knowledge of revocations is too old.
    #[error("it is not known whether the credential is revoked: {0}")]
    Stale(Staleness),
}

/// Why the knowledge of revocations is not sufficient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Staleness {
    /// No heartbeat has been received yet (T69).
    #[error("no heartbeat has been received yet")]
    Never,
    /// The last heartbeat is older than the bound.
    #[error("the last heartbeat is {0:?} old")]
    Old(Duration),
    /// The last heartbeat lies further in the future than clocks may differ.
    #[error("the last heartbeat lies {0:?} in the future")]
    Future(Duration),
    /// There were more cuts than this verifier holds, and the credential is too old to be judged by the rest. A renewed
    /// credential can be.
    #[error("cuts up to revision {forgotten} are no longer held, and the credential is of revision {revision}: renew it")]
    Forgotten {
        /// Revision up to which cuts may be missing.
        forgotten: u64,
        /// Revision of the credential; 0 if it has none.
        revision: u64,
    },
    /// The issuer has signed two different journals, so nothing that it says is believed.
    #[error(
        "fork: the issuer has signed another journal up to revision {0} than the one that is known, and is no longer trusted"
    )]
    Forked(u64),
    /// The caller requires a later revision (see [`Live::require`](crate::Live::require)).
    #[error("revision {known} is known, and {required} is required")]
    Behind {
        /// Every cut up to this revision is known.
        known: u64,
        /// The required revision.
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
            Reject::Unproved(_) => "CREDENTIAL_UNPROVED",
            Reject::Proof(_) => "DPOP_PROOF_INVALID",
            Reject::Nonce => "DPOP_NONCE_NEEDED",
            Reject::ProofUsed => "DPOP_PROOF_USED",
            Reject::Used => "CREDENTIAL_USED",
            Reject::BeforeMemory(_) => "CREDENTIAL_TOO_OLD",
            Reject::Stale(_) => "CREDENTIAL_STALE",
        }
    }
}
