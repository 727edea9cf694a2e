//! Room 1: who is calling. A peer's certificate, proved by its chain, becomes a caller; nothing else does.

use mayfly_verify::{AgentId, BindingOid, Bundle, Principal, Reject, Stamp, WorkloadName, X509Svid, verify_x509};
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
        /// Key id of the authority that signed its certificate.
        authority: Vec<u8>,
    },
    /// An agent of this trust domain.
    Agent {
        /// Its id.
        id: AgentId,
        /// SHA-256 of its public key.
        key: [u8; 32],
        /// Serial number of its certificate: which generation it is.
        serial: Vec<u8>,
        /// Which life of the journal its certificate belongs to.
        incarnation: Uuid,
        /// The journal's head when its connection was accepted.
        opened: u64,
        /// Key id of the authority that signed its certificate.
        authority: Vec<u8>,
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

/// A peer whose chain held when it was first looked at. Signatures are looked at once for a connection; what moves while it
/// stands is looked at for each call.
#[derive(Clone, Debug)]
pub struct Proved {
    svid: X509Svid,
    opened: u64,
}

/// Reads a peer's chain. A chain that does not hold is a denial, never a stranger.
///
/// `opened` is the journal's head when the connection was accepted, `now` is in unix seconds.
pub fn prove(chain: &[CertificateDer<'_>], bundle: &Bundle, oid: &BindingOid, opened: u64, now: u64) -> Result<Proved, Denial> {
    let svid = verify_x509(chain, bundle, oid, now).map_err(|e| unauthenticated(e.code(), e.to_string()))?;
    Ok(Proved { svid, opened })
}

/// Who a proved peer is at this call: expiry and cuts move while a connection stands.
///
/// `cut` says whether an agent with these stamps, of this incarnation of the journal, is dead.
pub fn authenticate(peer: &Proved, cut: impl FnOnce(&AgentId, Uuid, &[Stamp]) -> bool, now: u64) -> Result<Caller, Denial> {
    let svid = &peer.svid;
    if now >= svid.not_after {
        let e = Reject::Expired(svid.not_after);
        return Err(unauthenticated(e.code(), e.to_string()));
    }
    match (&svid.principal, &svid.binding) {
        (Principal::Workload(name), None) => {
            Ok(Caller::Workload { name: name.clone(), key: svid.key, authority: svid.authority.clone() })
        }
        (Principal::Agent(id), Some(binding)) => {
            if cut(id, binding.incarnation, &binding.stamps) {
                return Err(unauthenticated(Reject::Cut.code(), Reject::Cut.to_string()));
            }
            Ok(Caller::Agent {
                id: id.clone(),
                key: svid.key,
                serial: svid.serial.clone(),
                incarnation: binding.incarnation,
                opened: peer.opened,
                authority: svid.authority.clone(),
            })
        }
        // XC-2, T18: neither the issuer's own certificate nor anything else is a caller.
        _ => Err(unauthenticated("CALLER_UNKNOWN", format!("`{}` is neither a workload nor an agent", svid.id))),
    }
}

/// UNAUTHENTICATED.
pub fn unauthenticated(code: &'static str, message: impl Into<String>) -> Denial {
    Denial::new(Kind::Unauthenticated, code, message)
}
