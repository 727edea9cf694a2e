//! The look-ups that a state and an overlay share.

use std::sync::Arc;

use mayfly_verify::{DelegationId, Target};
use uuid::Uuid;

use super::{Account, Agent, Delegation, Hold, Line, Overlay, Owner, Standing, State};

/// The look-ups of judging, on a state with or without the records of a batch.
pub trait View {
    /// The incarnation of the journal.
    fn incarnation(&self) -> Uuid;
    /// One agent.
    fn agent(&self, uuid: &Uuid) -> Option<&Agent>;
    /// The standing of an agent at `at` (Unix microseconds).
    fn standing(&self, agent: &Agent, at: u64) -> Standing;
    /// A delegation in the state, whether or not it is still valid.
    fn known_delegation(&self, id: &DelegationId) -> Option<&Arc<Delegation>>;
    /// The owner of a key.
    fn owner(&self, key: &[u8; 32]) -> Option<Owner<'_>>;
    /// The line that a workload's key belongs to, with the revision that names it.
    fn line(&self, key: &[u8; 32]) -> Option<(u64, &Line)>;
    /// Whether a public key with this SHA-256 was revoked.
    fn key_revoked(&self, key: &[u8; 32]) -> bool;
    /// Whether nothing new is issued for a target.
    fn is_closed(&self, target: &Target) -> bool;
    /// Unix microseconds of the last revocation or reopening of a target. `None` if it was never revoked, or that no longer
    /// matters.
    fn revoked_at(&self, target: &Target) -> Option<u64>;
    /// Whether an authority is tainted, by the id that credentials carry.
    fn authority_tainted(&self, key_id: &[u8]) -> bool;
    /// The account of an agent. `None` while nothing was spent or reserved there.
    fn account(&self, agent: &Uuid) -> Option<&Account>;
    /// A reservation, by the revision of its record.
    fn hold(&self, id: u64) -> Option<&Hold>;
}

impl View for State {
    fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    fn agent(&self, uuid: &Uuid) -> Option<&Agent> {
        State::agent(self, uuid)
    }

    fn standing(&self, agent: &Agent, at: u64) -> Standing {
        State::standing(self, agent, at)
    }

    fn known_delegation(&self, id: &DelegationId) -> Option<&Arc<Delegation>> {
        self.delegations.get(id)
    }

    fn owner(&self, key: &[u8; 32]) -> Option<Owner<'_>> {
        State::owner(self, key)
    }

    fn line(&self, key: &[u8; 32]) -> Option<(u64, &Line)> {
        State::line(self, key)
    }

    fn key_revoked(&self, key: &[u8; 32]) -> bool {
        State::key_revoked(self, key)
    }

    fn is_closed(&self, target: &Target) -> bool {
        self.standings.get(target).is_some_and(|standing| standing.closed)
    }

    fn revoked_at(&self, target: &Target) -> Option<u64> {
        self.standings.get(target).map(|standing| standing.since)
    }

    fn authority_tainted(&self, key_id: &[u8]) -> bool {
        self.authorities.tainted(key_id)
    }

    fn account(&self, agent: &Uuid) -> Option<&Account> {
        State::account(self, agent)
    }

    fn hold(&self, id: u64) -> Option<&Hold> {
        State::hold(self, id)
    }
}

impl View for Overlay<'_> {
    fn incarnation(&self) -> Uuid {
        self.base().incarnation
    }

    fn agent(&self, uuid: &Uuid) -> Option<&Agent> {
        Overlay::agent(self, uuid)
    }

    fn standing(&self, agent: &Agent, at: u64) -> Standing {
        Overlay::standing(self, agent, at)
    }

    fn known_delegation(&self, id: &DelegationId) -> Option<&Arc<Delegation>> {
        Overlay::known_delegation(self, id)
    }

    fn owner(&self, key: &[u8; 32]) -> Option<Owner<'_>> {
        Overlay::owner(self, key)
    }

    fn line(&self, key: &[u8; 32]) -> Option<(u64, &Line)> {
        Overlay::line(self, key)
    }

    fn key_revoked(&self, key: &[u8; 32]) -> bool {
        Overlay::key_revoked(self, key)
    }

    fn is_closed(&self, target: &Target) -> bool {
        self.target(target).is_some_and(|standing| standing.closed)
    }

    fn revoked_at(&self, target: &Target) -> Option<u64> {
        self.target(target).map(|standing| standing.since)
    }

    fn authority_tainted(&self, key_id: &[u8]) -> bool {
        self.authorities().tainted(key_id)
    }

    fn account(&self, agent: &Uuid) -> Option<&Account> {
        self.top().account(agent).or_else(|| self.base().account(agent))
    }

    fn hold(&self, id: u64) -> Option<&Hold> {
        self.top().hold(id).or_else(|| self.base().hold(id))
    }
}
