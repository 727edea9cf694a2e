//! Verifies Mayfly credentials: SPIFFE ids, the binding, cuts, X.509-SVIDs and JWT-SVIDs.
//!
//! A verifier needs nothing but the credential, the bundle of its trust domain and the cuts. This crate opens no
//! connection, reads no clock and starts no thread: what it needs is an argument.

mod binding;
mod ids;
mod subject;

pub use binding::{Binding, BindingError, BindingOid, MAX_CHAIN, MAX_CLAIM, MAX_DER};
pub use ids::{
    AgentId, ClassName, DelegationId, MAX_SPIFFE_ID, MAX_TRUST_DOMAIN, Mode, NameError, Principal, User, WorkloadName, issuer_id,
    parse_spiffe_id, workload_id,
};
pub use spiffe::{SpiffeId, TrustDomain};
pub use subject::{Cuts, Stamp, Subject, Target, add_stamp};
