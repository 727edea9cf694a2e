//! The last check before a signed credential is sent (T85): a credential that was revoked after it was recorded is not sent,
//! although it is signed. The receipt of a revocation that comes after this check is also sent after it.

use mayfly_verify::{Target, Workload, WorkloadName};
use uuid::Uuid;

use super::exchange::Access;
use super::permit::{Admission, Certification, Mint};
use super::who::workload_closed;
use crate::denial::Denial;
use crate::state::{State, View};

/// Checks that an agent's certificate, or its ticket, may be sent.
pub fn admission(state: &State, admission: &Admission) -> Result<(), Denial> {
    agent(state, &admission.id().uuid, admission.certificate().map(|c| &c.key), admission.authority())
}

/// Checks that an agent's token may be sent.
pub fn mint(state: &State, mint: &Mint) -> Result<(), Denial> {
    agent(state, &mint.id().uuid, None, mint.authority())
}

/// Checks that an access token may be sent.
pub fn access(state: &State, access: &Access) -> Result<(), Denial> {
    agent(state, &access.id().uuid, None, access.authority())
}

/// Checks that a workload's certificate may be sent.
pub fn certification(state: &State, permit: &Certification) -> Result<(), Denial> {
    workload(state, permit.workload(), &permit.certificate().key, permit.authority())
}

/// Checks that a workload's certificate for `key` may be sent. `authority` is the id of the slot that signed.
pub fn workload(state: &State, name: &WorkloadName, key: &[u8; 32], authority: &str) -> Result<(), Denial> {
    if state.is_closed(&Target::Workload(Workload::Own(name.clone()))) {
        return Err(workload_closed());
    }
    signature(state, Some(key), authority)
}

/// Checks that a credential of an agent may be sent: `key` is the key that was certified, `authority` the id of the slot that
/// signed.
pub fn agent(state: &State, uuid: &Uuid, key: Option<&[u8; 32]>, authority: &str) -> Result<(), Denial> {
    let Some(agent) = state.agent(uuid) else {
        return Err(Denial::denied("AGENT_UNKNOWN", "this issuer does not know the agent"));
    };
    // The time of the last record is enough, because a revocation is a record.
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
