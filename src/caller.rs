//! Room 1: who is calling. A peer's certificate, proved by its chain, becomes a caller; nothing else does.

use mayfly_verify::{AgentId, BindingOid, Bundle, Cuts, Principal, WorkloadName, check_cuts, verify_x509};
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use crate::denial::{Denial, Kind};

/// The authenticated peer of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Proved nothing.
    Stranger,
    /// A workload of this trust domain, by its key.
    Workload {
        /// Its name.
        name: WorkloadName,
        /// SHA-256 of its public key.
        key: [u8; 32],
    },
    /// An agent of this trust domain.
    Agent {
        /// Its id.
        id: AgentId,
        /// SHA-256 of its public key.
        key: [u8; 32],
        /// Which life of the journal its certificate belongs to.
        incarnation: Uuid,
    },
    /// A listed uid on the operator socket.
    Operator {
        /// `uid:<n>`.
        name: String,
    },
}

/// A caller's role, as the table of methods has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Proved nothing.
    Stranger,
    /// An agent.
    Agent,
    /// A workload.
    Workload,
    /// An operator.
    Operator,
}

impl Caller {
    /// Its role.
    pub fn role(&self) -> Role {
        match self {
            Caller::Stranger => Role::Stranger,
            Caller::Workload { .. } => Role::Workload,
            Caller::Agent { .. } => Role::Agent,
            Caller::Operator { .. } => Role::Operator,
        }
    }

    /// What scopes its request ids.
    pub fn scope(&self) -> String {
        match self {
            Caller::Stranger => "stranger".into(),
            Caller::Workload { name, .. } => format!("workload/{name}"),
            Caller::Agent { id, .. } => id.to_string(),
            Caller::Operator { name } => name.clone(),
        }
    }
}

/// Reads a peer's chain, at each call: expiry and cuts move while a connection stands.
///
/// `now` is in unix seconds. An empty chain is a stranger; a chain that does not hold is a denial, never a stranger.
pub fn authenticate(
    chain: &[CertificateDer<'_>],
    bundle: &Bundle,
    cuts: &Cuts,
    oid: &BindingOid,
    now: u64,
) -> Result<Caller, Denial> {
    if chain.is_empty() {
        return Ok(Caller::Stranger);
    }
    let unauthenticated = |code, message: String| Denial::new(Kind::Unauthenticated, code, message);
    let svid = verify_x509(chain, bundle, oid, now).map_err(|e| unauthenticated(e.code(), e.to_string()))?;
    match (svid.principal, svid.binding) {
        (Principal::Workload(name), None) => Ok(Caller::Workload { name, key: svid.key }),
        (Principal::Agent(id), Some(binding)) => {
            check_cuts(&binding, cuts).map_err(|e| unauthenticated(e.code(), e.to_string()))?;
            Ok(Caller::Agent { id, key: svid.key, incarnation: binding.incarnation })
        }
        // XC-2, T18: neither the issuer's own certificate nor anything else is a caller.
        _ => Err(unauthenticated("CALLER_UNKNOWN", format!("`{}` is neither a workload nor an agent", svid.id))),
    }
}
