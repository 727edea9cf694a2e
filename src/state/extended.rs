//! Extended leases, and the delegations that must be kept for as long.

use mayfly_verify::DelegationId;
use uuid::Uuid;

use super::{KEEP, State, seconds};
use crate::clock::SECOND;

impl State {
    /// Moves the end of an agent's lease to `lease_ends_at`, in Unix seconds, by the token with this proof.
    pub(super) fn extended(&mut self, revision: u64, uuid: Uuid, lease_ends_at: u64, proof: [u8; 32]) {
        let (mut before, mut delegation) = (0, None);
        let known = self.agents.change(&uuid, |agent| {
            before = std::mem::replace(&mut agent.lease_ends_at, lease_ends_at);
            let first = agent.rare.extended.replace((proof, revision)).is_none();
            agent.rare.rows.push(revision);
            delegation = agent.delegation.as_ref().filter(|_| first).map(|delegation| delegation.id);
        });
        if !known {
            return self.obsolete.push_back(revision);
        }
        // INVARIANT: a delegation is kept for as long as an extended agent under it and the agents below that one, because their
        // records cannot be applied without it, and a revocation must find it.
        if let Some(delegation) = delegation {
            *self.prolonged.entry(delegation).or_default() += 1;
        }
        self.last(seconds(before), false);
        self.last(seconds(lease_ends_at), true);
    }

    /// Called when an extended agent under a delegation is removed, at `when` (Unix microseconds). If it was the last one and the
    /// delegation's own time has passed, the delegation is removed too.
    pub(super) fn no_longer_prolonged(&mut self, id: DelegationId, when: u64) {
        let Some(agents) = self.prolonged.get_mut(&id) else { return };
        *agents = agents.saturating_sub(1);
        if *agents > 0 {
            return;
        }
        self.prolonged.remove(&id);
        if let Some(delegation) = self.delegations.get(&id).filter(|known| known.ends_at.saturating_add(KEEP + SECOND) <= when) {
            let revision = delegation.revision;
            self.forget_delegation(&id);
            self.obsolete.push_back(revision);
        }
    }

    /// Removes a delegation, and the token that proved it.
    pub(super) fn forget_delegation(&mut self, id: &DelegationId) {
        if let Some(delegation) = self.delegations.remove(id) {
            self.last(delegation.ends_at, false);
            self.proofs.remove(&delegation.proof);
        }
    }
}
