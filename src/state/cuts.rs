//! Cuts: how records make them, and the form that verifiers get.

use std::sync::Arc;

use mayfly_verify::{DelegationId, Salt, Subject, Target, User};
use uuid::Uuid;

use super::authority::Status;
use super::expiry::Due;
use super::mandate::Mandates;
use super::{Agent, InForce, Misfit, Out, SKEW, State, TargetStanding, Why, fixed};
use crate::clock::SECOND;
use crate::journal::record::{self, Record, cut, record::Body, reopened};

/// One cut: everything that relies on `subject` since a revision below `before` is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutMade {
    /// The subject that is revoked.
    pub subject: Subject,
    /// Reliance on the subject since a revision below this one is revoked. 0 removes the subject's cut, because another cut revokes
    /// everything that it did.
    pub before: u64,
    /// Unix seconds at which the last credential that it revokes has expired.
    pub keep_until: u64,
    /// Revision of the record that made it; in a list of all cuts, the journal's head.
    pub revision: u64,
}

impl State {
    /// Sets the salt for the subjects of an empty state.
    pub(super) fn salted(&mut self, salt: Salt) {
        self.salt = salt;
        self.mandates = Mandates::salted(salt);
    }

    /// The subject of a target in this epoch of the journal, as cuts and stamps contain it.
    pub fn subject(&self, target: &Target) -> Subject {
        target.subject(&self.salt)
    }

    /// Every cut that verifiers need.
    pub fn all_cuts(&self) -> impl Iterator<Item = CutMade> {
        let revision = self.revision;
        let made = move |subject: Subject, before: u64, keep_until: u64| CutMade { subject, before, keep_until, revision };
        let cuts = self.cuts.iter().map(move |(subject, cut)| made(*subject, cut.before, cut.verifiers_until));
        let tainted = self.authorities.slots.iter().filter(|s| s.status == Status::Tainted);
        let tainted =
            tainted.map(move |s| made(Target::Authority(s.key_id()).unsalted(), u64::MAX, s.keep_until.div_ceil(SECOND)));
        let ended = self.agents.iter().filter(|a| a.rare.ended.is_some() && is_told(a));
        let ended = ended.map(move |a| made(Target::Agent(a.uuid).unsalted(), u64::MAX, end_of_cut(a, self.out)));
        let now = self.at / SECOND;
        cuts.chain(tainted).chain(ended).filter(move |cut| cut.keep_until > now)
    }

    /// The cuts made by a record that was just applied, if they can affect a credential that a verifier would accept.
    pub fn cuts_of(&self, revision: u64, record: &Record) -> Vec<CutMade> {
        let made = |subject: Subject, before: u64, keep_until: u64| CutMade { subject, before, keep_until, revision };
        let mut cuts: Vec<CutMade> = match &record.body {
            Some(Body::Cut(c)) => {
                let subject = target_of(revision, c).ok().map(|target| self.subject(&target));
                let cut = subject.and_then(|subject| Some((subject, self.cuts.get(&subject)?)));
                cut.map(|(subject, cut)| made(subject, cut.before, cut.verifiers_until)).into_iter().collect()
            }
            // An end is published as a cut of the agent.
            Some(Body::Ended(e)) => {
                let agent = Uuid::from_slice(&e.agent).ok().and_then(|uuid| self.agents.get(&uuid));
                let agent = agent.filter(|a| is_told(a));
                agent.map(|a| made(Target::Agent(a.uuid).unsalted(), u64::MAX, end_of_cut(a, self.out))).into_iter().collect()
            }
            Some(Body::Authorities(_)) => {
                let now = |s: &&super::authority::Slot| s.status == Status::Tainted && s.retired_at == record.at;
                let slots = self.authorities.slots.iter().filter(now);
                slots.map(|s| made(Target::Authority(s.key_id()).unsalted(), u64::MAX, s.keep_until.div_ceil(SECOND))).collect()
            }
            _ => Vec::new(),
        };
        cuts.retain(|cut| cut.keep_until > record.at / SECOND);
        cuts
    }
}

impl State {
    /// Applies the record of a cut.
    pub(super) fn cut(&mut self, revision: u64, record: &Record, c: &record::Cut) -> Result<(), Misfit> {
        let target = target_of(revision, c)?;
        let subject = self.subject(&target);
        let verifiers_until = if c.verifiers_until > 0 { c.verifiers_until } else { c.keep_until.div_ceil(SECOND) };
        let new = InForce { before: c.before, until: c.keep_until, verifiers_until, revision };
        let old = self.cuts.get(&subject).copied().unwrap_or_default();
        let standing = self.standings.get(&target);
        // The row of the previous cut is dropped at once if it contains nothing that this one does not. The row of a reopening in
        // between stays.
        let superseded = standing.is_some_and(|s| s.revision == old.revision && (c.closes || !s.closed) && s.until <= new.until)
            && new.before >= old.before
            && new.until >= old.until
            && new.verifiers_until >= old.verifiers_until;
        let closed = c.closes || standing.is_some_and(|s| s.closed);
        let by = if record.operator.is_empty() { c.by.clone() } else { record.operator.clone() };
        let why = Arc::new(Why { reason: c.reason.clone(), by, at: record.at });
        let since = if c.time > 0 { c.time } else { record.at };
        if let Target::Agent(uuid) = target {
            self.unseat(&uuid);
            self.taken_back(uuid);
            self.subsume(uuid);
        }
        self.set_standing(target, TargetStanding { closed, since, revision, until: c.keep_until, why }, superseded);
        let cut = InForce {
            before: new.before.max(old.before),
            until: new.until.max(old.until),
            verifiers_until: new.verifiers_until.max(old.verifiers_until),
            revision,
        };
        self.cuts.insert(subject, cut);
        self.no_longer_due(old.until, old.revision, &Due::Cut(subject));
        self.due(cut.until, revision, Due::Cut(subject));
        Ok(())
    }

    /// Adds an agent whose end or revocation is published to `taken_back` of every ancestor.
    pub(super) fn taken_back(&mut self, uuid: Uuid) {
        let Some(agent) = self.agents.get_mut(&uuid).filter(|agent| !agent.taken_back) else { return };
        agent.taken_back = true;
        let ancestors: Vec<Uuid> = agent.ancestors().collect();
        for ancestor in ancestors {
            if let Some(ancestor) = self.agents.get_mut(&ancestor) {
                ancestor.rare.taken_back.insert(uuid);
            }
        }
    }

    /// Undoes [`State::taken_back`].
    pub(super) fn no_longer_taken_back(&mut self, uuid: &Uuid) {
        let Some(agent) = self.agents.get_mut(uuid).filter(|agent| agent.taken_back) else { return };
        agent.taken_back = false;
        let ancestors: Vec<Uuid> = agent.ancestors().collect();
        for ancestor in ancestors {
            if let Some(ancestor) = self.agents.get_mut(&ancestor).filter(|ancestor| !ancestor.rare.taken_back.is_empty()) {
                ancestor.rare.taken_back.remove(uuid);
            }
        }
    }

    /// Counts an agent without children whose end is published in `ended_below` of every ancestor.
    ///
    /// A count is enough, because its cut is removed when its last credential expires, whatever happens to its ancestors.
    pub(super) fn ended_alone(&mut self, uuid: Uuid) {
        let Some(agent) = self.agents.get_mut(&uuid).filter(|agent| !agent.rare.counted) else { return };
        agent.rare.counted = true;
        let ancestors: Vec<Uuid> = agent.ancestors().collect();
        for ancestor in ancestors {
            if let Some(ancestor) = self.agents.get_mut(&ancestor) {
                ancestor.rare.ended_below = ancestor.rare.ended_below.saturating_add(1);
            }
        }
    }

    /// Undoes [`State::ended_alone`].
    pub(super) fn no_longer_counted(&mut self, uuid: &Uuid) {
        let Some(agent) = self.agents.get_mut(uuid).filter(|agent| agent.rare.counted) else { return };
        agent.rare.counted = false;
        let ancestors: Vec<Uuid> = agent.ancestors().collect();
        for ancestor in ancestors {
            if let Some(ancestor) = self.agents.get_mut(&ancestor).filter(|ancestor| ancestor.rare.ended_below > 0) {
                ancestor.rare.ended_below -= 1;
            }
        }
    }

    /// Withdraws the cuts of agents below a revoked agent. Verifiers no longer need them, because the cut of an agent revokes
    /// everything below it. In the state each agent below keeps its own revocation.
    fn subsume(&mut self, uuid: Uuid) {
        let Some(agent) = self.agents.get_mut(&uuid).filter(|agent| !agent.rare.taken_back.is_empty()) else { return };
        for below in std::mem::take(&mut agent.rare.taken_back) {
            self.no_longer_taken_back(&below);
            let subject = Target::Agent(below).unsalted();
            self.subsumed.0.push(subject);
            if let Some(cut) = self.cuts.get_mut(&subject) {
                cut.verifiers_until = 0;
            }
        }
    }

    /// The cuts that the last record made superfluous for verifiers.
    pub fn take_subsumed(&mut self) -> Vec<CutMade> {
        let revision = self.revision;
        let gone = |subject| CutMade { subject, before: 0, keep_until: 0, revision };
        std::mem::take(&mut self.subsumed.0).into_iter().map(gone).collect()
    }
}

/// Whether the end of an agent is published to verifiers: always while there are agents below it, otherwise if its record says so.
fn is_told(agent: &Agent) -> bool {
    agent.has_children() || agent.rare.told
}

/// Unix seconds at which the last credential has expired that a cut of an agent revokes: its own, and those of agents below it,
/// which expire with its lease at the latest. `out` is when the last credentials of anybody expire.
pub fn end_of_cut(agent: &Agent, out: Out) -> u64 {
    let own = match agent.is_keyless() {
        true if agent.rare.ended.is_some() => agent.svid_ends_at,
        true => out.tokens,
        false => agent.svid_ends_at.max(out.tokens),
    };
    let last = if agent.has_children() { own.max(out.certificates) } else { own };
    last.min(agent.lease_ends_at).saturating_add(SKEW / SECOND)
}

/// The target of a cut.
pub(super) fn target_of(revision: u64, c: &record::Cut) -> Result<Target, Misfit> {
    let misfit = |what| Misfit { revision, what };
    Ok(match c.target.as_ref().ok_or(misfit("cut of nothing"))? {
        cut::Target::Agent(id) => Target::Agent(Uuid::from_slice(id).map_err(|_| misfit("agent"))?),
        cut::Target::User(u) => Target::User(User { iss: u.iss.clone(), sub: u.sub.clone() }),
        cut::Target::TrustDomain(_) => Target::TrustDomain,
        cut::Target::Delegation(id) => Target::Delegation(DelegationId(fixed(id).ok_or(misfit("delegation id"))?)),
        cut::Target::Workload(name) => Target::Workload(name.parse().map_err(|_| misfit("workload"))?),
        cut::Target::Class(name) => Target::Class(name.parse().map_err(|_| misfit("class"))?),
        cut::Target::Key(key) => Target::Key(fixed(key).ok_or(misfit("key"))?),
        cut::Target::Token(jti) => Target::Token(jti.clone()),
        cut::Target::Issuer(iss) => Target::Issuer(iss.clone()),
    })
}

/// Converts a target to the form in the record of a cut. `None` for an authority, which is tainted instead.
pub fn cut_target(target: &Target) -> Option<cut::Target> {
    Some(match target {
        Target::Agent(uuid) => cut::Target::Agent(uuid.as_bytes().to_vec()),
        Target::User(u) => cut::Target::User(record::User { iss: u.iss.clone(), sub: u.sub.clone() }),
        Target::TrustDomain => cut::Target::TrustDomain(true),
        Target::Delegation(id) => cut::Target::Delegation(id.0.to_vec()),
        Target::Workload(name) => cut::Target::Workload(name.to_string()),
        Target::Class(name) => cut::Target::Class(name.to_string()),
        Target::Key(key) => cut::Target::Key(key.to_vec()),
        Target::Token(jti) => cut::Target::Token(jti.clone()),
        Target::Issuer(iss) => cut::Target::Issuer(iss.clone()),
        Target::Authority(_) => return None,
    })
}

/// The `before` of a cut recorded at `revision`: `u64::MAX` for a target that never comes back, otherwise `revision` itself.
pub fn before(target: &Target, revision: u64) -> u64 {
    match target {
        Target::Agent(_) | Target::Delegation(_) | Target::Key(_) | Target::Authority(_) | Target::Token(_) => u64::MAX,
        Target::User(_) | Target::Issuer(_) | Target::Workload(_) | Target::Class(_) | Target::TrustDomain => revision,
    }
}

/// The target that a record reopens.
pub(super) fn reopened(revision: u64, r: &record::Reopened) -> Result<Target, Misfit> {
    let misfit = |what| Misfit { revision, what };
    Ok(match r.target.as_ref().ok_or(misfit("nothing is reopened"))? {
        reopened::Target::User(u) => Target::User(User { iss: u.iss.clone(), sub: u.sub.clone() }),
        reopened::Target::Workload(name) => Target::Workload(name.parse().map_err(|_| misfit("workload"))?),
        reopened::Target::Class(name) => Target::Class(name.parse().map_err(|_| misfit("class"))?),
        reopened::Target::Issuer(iss) => Target::Issuer(iss.clone()),
    })
}

/// The agents whose cuts the last record made superfluous, because it revoked an ancestor of theirs. The list is not a part of the
/// state: two states with different lists are equal.
#[derive(Clone, Debug, Default)]
pub(super) struct Subsumed(pub(super) Vec<Subject>);

impl PartialEq for Subsumed {
    fn eq(&self, _: &Subsumed) -> bool {
        true
    }
}

impl Eq for Subsumed {}
