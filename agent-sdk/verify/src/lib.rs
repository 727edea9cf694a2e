//! Verifies Mayfly credentials: SPIFFE IDs, bindings, cuts, X.509-SVIDs, JWT-SVIDs, access tokens and DPoP proofs.
//!
//! A verifier needs three inputs: the credential, the bundle of its trust domain, and the cuts. This crate opens no
//! connection, reads no clock and starts no thread; everything it needs is an argument.

mod access;
pub mod approval;
mod binding;
mod bundle;
mod cuts;
mod dpop;
pub mod feed;
mod ids;
mod jwt;
mod live;
mod moment;
mod once;
mod reject;
mod subject;
mod sync;
mod x509;

pub use access::{
    AccessToken, Approval, Confirmation, Possession, Unproved, read_access_token, verify_access_token,
    verify_unproved_access_token,
};
pub use binding::{Binding, BindingError, BindingOid, MAX_CHAIN, MAX_CLAIM, MAX_DER};
pub use bundle::{Bundle, BundleError, JwtAuthority};
pub use cuts::Cuts;
pub use dpop::{DPOP_ALGORITHMS, DPOP_WINDOW, DpopProof, DpopRequest, verify_dpop};
pub use ids::{
    AgentId, ClassName, DelegationId, MAX_SPIFFE_ID, MAX_TRUST_DOMAIN, Mode, NameError, Principal, User, Workload, WorkloadName,
    issuer_id, parse_spiffe_id, workload_id,
};
pub use jwt::{
    JwtSvid, inspect_jwt, inspect_jwt_audiences, inspect_jwt_end, inspect_jwt_issuer, is_access_token, is_of_client,
    is_single_use, verify_jwt,
};
pub use live::{Freshness, Live, Reliance, Subscription};
pub use moment::{about, rfc3339};
pub use once::Once;
pub use reject::{Reject, Staleness};
pub use spiffe::{SpiffeId, TrustDomain};
pub use subject::{Salt, Stamp, Subject, Target, add_stamp};
pub use x509::{X509Svid, inspect_x509, sha256, verify_x509};

/// Refuses a binding that is revoked by one of these cuts, or whose revisions belong to another epoch of the journal.
pub fn check_cuts(binding: &Binding, cuts: &Cuts) -> Result<(), Reject> {
    let alive = binding.incarnation == cuts.incarnation && cuts.killing(&binding.stamps).is_none();
    if alive { Ok(()) } else { Err(Reject::Cut) }
}
