//! The last look before a signed credential leaves (T85): what was revoked after it was recorded is not handed out, though it is
//! signed. A revocation that comes after this look is answered after it too.

use mayfly_verify::{Target, Workload, WorkloadName};
use uuid::Uuid;

use super::exchange::Access;
use super::permit::{Admission, Certification, Mint};
use super::who::workload_closed;
use crate::denial::Denial;
use crate::state::{State, View};

/// Whether an agent's certificate, or its ticket, may leave.
pub fn admission(state: &State, admission: &Admission) -> Result<(), Denial> {
    agent(state, &admission.id().uuid, admission.certificate().map(|c| &c.key), admission.authority())
}

/// Whether an agent's token may leave.
pub fn mint(state: &State, mint: &Mint) -> Result<(), Denial> {
    agent(state, &mint.id().uuid, None, mint.authority())
}

/// Whether an access token may leave.
pub fn access(state: &State, access: &Access) -> Result<(), Denial> {
    agent(state, &access.id().uuid, None, access.authority())
}

/// Whether a workload's certificate may leave.
pub fn certification(state: &State, permit: &Certification) -> Result<(), Denial> {
    workload(state, permit.workload(), &permit.certificate().key, permit.authority())
}

/// Whether a workload's certificate for `key` may leave, signed by the authority with the id of a slot.
pub fn workload(state: &State, name: &WorkloadName, key: &[u8; 32], authority: &str) -> Result<(), Denial> {
    if state.is_closed(&Target::Workload(Workload::Own(name.clone()))) {
        return Err(workload_closed());
    }
    signature(state, Some(key), authority)
}

/// Whether a credential of an agent may leave: `key` is the key that was certified, `authority` the id of the slot that signed.
pub fn agent(state: &State, uuid: &Uuid, key: Option<&[u8; 32]>, authority: &str) -> Result<(), Denial> {
    let Some(agent) = state.agent(uuid) else {
        return Err(Denial::denied("AGENT_UNKNOWN", "this issuer does not know the agent"));
    };
    // As of the last record: a revocation is one.
    if let Some((code, message)) = state.standing(agent, state.at).refusal() {
        return Err(Denial::denied(code, message));
    }
    signature(state, key, authority)
}

fn signature(state: &State, key: Option<&[u8; 32]>, authority: &str) -> Result<(), Denial> {
    if key.is_some_and(|key| state.key_revoked(key)) {
        return Err(Denial::denied("KEY_REVOKED", "this key was revoked: make a new one"));
    }
    if state.authorities.is_tainted(authority) {
        return Err(Denial::denied("AUTHORITY_TAINTED", "the authority that signed this is tainted: ask again"));
    }
    Ok(())
}
