//! An overlay: a state with further records that are not durable yet. Acts are judged on it, so that each act of a batch sees the
//! records of the acts before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use mayfly_verify::{DelegationId, Salt, Stamp, Subject, Target, WorkloadName};
use uuid::Uuid;

use super::mandate::{Mandate, Words};
use super::{
    Agent, Approval, Authorities, Delegation, Done, Line, Misfit, Out, Owner, Reading, Seat, Standing, State, Status,
    TargetStanding, Ticket, WorkloadKey, fixed, seconds, standing,
};
use crate::journal::record::{self, Record, record::Body};

/// A state with the records of a batch over it.
pub struct Overlay<'a> {
    base: &'a State,
    // INVARIANT: has a copy of everything in `base` that a record of this batch changed, so look-ups read it first.
    top: State,
    // Expired agents of `base` that `top` no longer counts as live.
    expired: BTreeSet<Uuid>,
}

impl<'a> Overlay<'a> {
    /// An overlay without records, as of `at` (Unix microseconds, not before the base's last record).
    pub fn new(base: &'a State, at: u64) -> Overlay<'a> {
        let mut top = State {
            incarnation: base.incarnation,
            began_at: base.began_at,
            revision: base.revision,
            at: base.at,
            ..State::default()
        };
        top.salted(base.salt);
        // An expired agent does not count as live. The base notices that only with its next record, so it is done here.
        let expired = base.run_out(at);
        for agent in expired.iter().filter_map(|uuid| base.agent(uuid)) {
            top.count(agent.seats(), -1);
        }
        top.count(base.waited_out(at), -1);
        Overlay { base, top, expired }
    }

    /// The subject of a target in this incarnation of the journal.
    pub fn subject(&self, target: &Target) -> Subject {
        self.base.subject(target)
    }

    /// The salt of the subjects in this epoch of the journal.
    pub(crate) fn salt(&self) -> &Salt {
        &self.base.salt
    }

    /// The state below.
    pub fn base(&self) -> &'a State {
        self.base
    }

    /// The changes by the records of the batch.
    pub(super) fn top(&self) -> &State {
        &self.top
    }

    /// Revision of the last record, with those of the batch.
    pub fn revision(&self) -> u64 {
        self.top.revision
    }

    /// Applies one more record. `agent` is the agent of an admission.
    pub fn push(&mut self, record: &Record, agent: Option<Box<Agent>>) -> Result<u64, Misfit> {
        let revision = self.top.revision + 1;
        self.adopt(record);
        self.top.insert(revision, record, agent)?;
        Ok(revision)
    }

    /// Copies everything that the record is about to change from the base.
    fn adopt(&mut self, record: &Record) {
        match record.body.as_ref() {
            Some(Body::Admitted(a)) => {
                let id = DelegationId(fixed(&a.delegation).unwrap_or_default());
                if let Some(delegation) = self.base.delegations.get(&id) {
                    self.top.delegations.entry(id).or_insert_with(|| Arc::clone(delegation));
                }
                self.adopt_agent(&a.parent);
            }
            Some(Body::Ended(e)) => self.adopt_line(&e.agent),
            Some(Body::Redeemed(r)) => self.adopt_agent(&r.agent),
            Some(Body::Renewed(r)) => self.adopt_agent(&r.agent),
            Some(Body::Used(u)) => self.adopt_agent(&u.agent),
            Some(Body::Extended(e)) => self.adopt_agent(&e.agent),
            Some(Body::FirstUse(first)) => self.adopt_agent(&first.agent),
            Some(Body::Answered(a)) => self.adopt_approval(&a.id),
            Some(Body::Exchanged(e)) => self.adopt_approval(&e.approval),
            Some(Body::Certified(c)) => {
                if let Some((hash, ticket)) = fixed(&c.ticket).and_then(|hash| self.base.tickets.get_key_value(&hash)) {
                    self.top.tickets.entry(*hash).or_insert_with(|| Ticket::clone(ticket));
                }
                self.adopt_line_of_workload(c.line);
            }
            Some(Body::WorkloadUsed(u)) => self.adopt_line_of_workload(u.line),
            Some(Body::Reserved(r)) => {
                self.adopt_line(&r.agent);
                r.accounts.iter().for_each(|account| self.adopt_account(account));
            }
            Some(Body::Spent(s)) => {
                self.adopt_line(&s.agent);
                s.accounts.iter().for_each(|after| self.adopt_account(&after.account));
                self.adopt_hold(s.reservation);
            }
            Some(Body::Released(r)) => self.adopt_hold(r.reservation),
            // The record of a cut has the whole standing of its target. So only an agent must be copied, with its ancestors, whose
            // `taken_back` changes.
            Some(Body::Cut(record::Cut { target: Some(record::cut::Target::Agent(id)), .. })) => self.adopt_line(id),
            _ => {}
        }
    }

    fn adopt_line_of_workload(&mut self, number: u64) {
        if let Some(line) = self.base.lines.get(&number) {
            self.top.lines.entry(number).or_insert_with(|| line.clone());
        }
    }

    fn adopt_account(&mut self, id: &[u8]) {
        let found = Uuid::from_slice(id).ok().and_then(|id| self.base.budgets.accounts.get_key_value(&id));
        if let Some((id, account)) = found {
            self.top.budgets.accounts.entry(*id).or_insert_with(|| account.clone());
        }
    }

    fn adopt_hold(&mut self, id: u64) {
        if let Some(hold) = self.base.hold(id) {
            self.top.budgets.holds.entry(id).or_insert_with(|| hold.clone());
        }
    }

    /// Copies an agent and its ancestors.
    fn adopt_line(&mut self, id: &[u8]) {
        self.adopt_agent(id);
        let ancestors = Uuid::from_slice(id).ok().and_then(|id| self.base.agents.get(&id)).map(|agent| agent.ancestors());
        for ancestor in ancestors.into_iter().flatten() {
            self.adopt_agent(ancestor.as_bytes());
        }
    }

    fn adopt_approval(&mut self, id: &[u8]) {
        if let Some((id, approval)) = self.base.copy_of_approval(id) {
            self.top.approvals.entry(id).or_insert(approval);
        }
    }

    fn adopt_agent(&mut self, id: &[u8]) {
        let found = Uuid::from_slice(id).ok().and_then(|id| self.base.agents.get(&id));
        if let Some(agent) = found.filter(|agent| !self.top.agents.contains(&agent.uuid)) {
            let mut copy = agent.clone();
            copy.unseat_copy(self.expired.contains(&agent.uuid));
            self.top.agents.insert(copy);
        }
    }

    /// One agent.
    pub fn agent(&self, uuid: &Uuid) -> Option<&Agent> {
        self.top.agent(uuid).or_else(|| self.base.agent(uuid))
    }

    /// The standing of an agent at `at` (Unix microseconds).
    pub fn standing(&self, agent: &Agent, at: u64) -> Standing {
        standing(agent, at, |stamp| self.kills(stamp), |uuid| self.agent(uuid))
    }

    /// The owner of a key.
    pub fn owner(&self, key: &[u8; 32]) -> Option<Owner<'_>> {
        self.top.owner(key).or_else(|| self.base.owner(key))
    }

    /// The line that a workload's key belongs to, with the revision that names it.
    pub fn line(&self, key: &[u8; 32]) -> Option<(u64, &Line)> {
        let known = self.top.workload_keys.get(key).or_else(|| self.base.workload_keys.get(key))?;
        let line = self.top.lines.get(&known.line).or_else(|| self.base.lines.get(&known.line))?;
        Some((known.line, line))
    }

    /// The keys of a workload's line that are certified at `at` (Unix microseconds), without those that were revoked.
    pub fn keys_of_line(&self, line: u64, at: u64) -> Vec<[u8; 32]> {
        self.keys(|known| known.line == line, at)
    }

    /// The keys that are certified for a workload at `at` (Unix microseconds), without those that were revoked.
    pub fn keys_of(&self, name: &WorkloadName, at: u64) -> Vec<[u8; 32]> {
        self.keys(|known| known.name == *name, at)
    }

    fn keys(&self, wanted: impl Fn(&WorkloadKey) -> bool, at: u64) -> Vec<[u8; 32]> {
        let all = self.base.workload_keys.iter().chain(&self.top.workload_keys);
        let live = all.filter(|(_, known)| wanted(known) && at < seconds(known.ends_at)).map(|(key, _)| *key);
        live.filter(|key| !self.key_revoked(key)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether a public key with this SHA-256 was revoked.
    pub fn key_revoked(&self, key: &[u8; 32]) -> bool {
        self.top.key_revoked(key) || self.base.key_revoked(key)
    }

    /// The standing of a target. `None` means that it was never revoked, or that its revocation no longer matters.
    pub fn target(&self, target: &Target) -> Option<&TargetStanding> {
        self.top.standings.get(target).or_else(|| self.base.standings.get(target))
    }

    /// Revision of the last cut of a target.
    pub fn last_cut(&self, target: &Target) -> Option<u64> {
        let subject = self.base.subject(target);
        self.top.cuts.get(&subject).or_else(|| self.base.cuts.get(&subject)).map(|cut| cut.revision)
    }

    /// Whether a cut kills what relies on this stamp.
    pub fn kills(&self, stamp: &Stamp) -> bool {
        self.top.kills(stamp) || self.base.kills(stamp)
    }

    /// The delegation that a token recorded, if it is still valid at `at` (Unix microseconds).
    pub fn delegation_by_proof(&self, proof: &[u8; 32], at: u64) -> Option<&Arc<Delegation>> {
        self.top.delegation_by_proof(proof, at).or_else(|| self.base.delegation_by_proof(proof, at))
    }

    /// A delegation, if it is still valid at `at` (Unix microseconds).
    pub fn delegation(&self, id: &DelegationId, at: u64) -> Option<&Arc<Delegation>> {
        self.top.delegation(id, at).or_else(|| self.base.delegation(id, at))
    }

    /// A delegation in the state, whether or not it is still valid.
    pub fn known_delegation(&self, id: &DelegationId) -> Option<&Arc<Delegation>> {
        self.top.delegations.get(id).or_else(|| self.base.delegations.get(id))
    }

    /// Whether a delegation is kept for longer than it lasts, because an agent under it was extended.
    pub fn is_prolonged(&self, id: &DelegationId) -> bool {
        self.top.prolonged.contains_key(id) || self.base.prolonged.contains_key(id)
    }

    /// A ticket, by the SHA-256 of its secret.
    pub fn ticket(&self, hash: &[u8; 32]) -> Option<&Ticket> {
        self.top.tickets.get(hash).or_else(|| self.base.tickets.get(hash))
    }

    /// The outcome of an earlier request, by the key of its request id.
    pub fn request(&self, key: &[u8; 32]) -> Option<&Done> {
        self.top.requests.get(key).or_else(|| self.base.requests.get(key))
    }

    /// Whether a JWT-SVID with this `jti` has proved a client before.
    pub fn assertion_used(&self, jti: &[u8; 16]) -> bool {
        self.top.assertion_used(jti) || self.base.assertion_used(jti)
    }

    /// An approval.
    pub fn approval(&self, id: &[u8; 16]) -> Option<&Approval> {
        self.top.approval(id).or_else(|| self.base.approval(id))
    }

    /// The question that waits with this digest, if there is one.
    pub fn waiting(&self, digest: &[u8; 32], at: u64) -> Option<&Approval> {
        let id = self.top.waiting(digest).or_else(|| self.base.waiting(digest))?;
        self.approval(&id).filter(|approval| approval.status(at) == Status::Pending)
    }

    /// The count of a seat: see [`Seat`].
    pub fn seats(&self, seat: Seat) -> u64 {
        u64::try_from(self.base.seats(seat) + self.top.seats(seat)).unwrap_or(0)
    }

    /// The reading of a meter.
    pub fn meter(&self, meter: &[u8; 16]) -> Option<Reading> {
        self.top.meters.get(meter).or_else(|| self.base.meters.get(meter)).copied()
    }

    /// The authorities.
    pub fn authorities(&self) -> &Authorities {
        if self.top.authorities.revision > 0 { &self.top.authorities } else { &self.base.authorities }
    }

    /// The last configuration record, with its revision.
    pub fn configured(&self) -> Option<(&record::Configured, u64)> {
        let of = |state: &'_ State| state.configured_at;
        match &self.top.configured {
            Some(configured) => Some((configured, of(&self.top))),
            None => self.base.configured.as_ref().map(|configured| (configured, of(self.base))),
        }
    }

    /// When the last credentials that were ever permitted expire.
    pub fn out(&self) -> Out {
        self.base.out.max(self.top.out)
    }

    /// Unix microseconds at which the last known delegation or lease ends.
    pub fn lasts_until(&self) -> u64 {
        let last = |state: &State| state.lasting.last_key_value().map_or(0, |(at, _)| *at);
        last(self.base).max(last(&self.top))
    }

    /// The mandate of an admission, shared with similar agents. The error names the field that is not a valid name.
    pub fn mandate(&mut self, admitted: &record::Admitted) -> Result<Arc<Mandate>, &'static str> {
        let words = Words::of(admitted);
        match self.base.mandates.known(&words) {
            Some(known) => Ok(known),
            None => self.top.mandates.share(&words),
        }
    }
}
