//! Whoami: returns the caller as the issuer knows it. Nothing is recorded.

use mayfly_verify::workload_id;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, No};
use crate::state::{Agent, Standing};

/// The caller, as the issuer knows it.
pub struct Whoami {
    /// Its SPIFFE ID.
    pub spiffe_id: String,
    /// The agent with its standing. `None` for a workload.
    pub agent: Option<(Agent, Standing)>,
    /// The journal's head when this was read.
    pub revision: u64,
}

/// What the issuer knows of a caller with a certificate.
pub fn whoami(issuer: &Issuer, caller: &Caller) -> Result<Whoami, No> {
    let now = issuer.clock.now();
    issuer.ledger.read(|state| {
        let (spiffe_id, agent) = match caller {
            Caller::Workload { name, .. } => (workload_id(&issuer.trust_domain, name), None),
            Caller::Foreign { id, .. } => (id.to_string(), None),
            Caller::Agent { id, .. } => {
                let agent = state.agent(&id.uuid).ok_or_else(|| Fault::new("whoami", "the caller is gone"))?;
                (id.to_string(), Some((agent.clone(), state.standing(agent, now))))
            }
            _ => return Err(Denial::denied("ROLE_NOT_ALLOWED", "this call is for callers with a certificate").into()),
        };
        Ok(Whoami { spiffe_id, agent, revision: state.revision })
    })
}
