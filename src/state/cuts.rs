//! Cuts: from a record, and as verifiers get them.

use mayfly_verify::{DelegationId, Subject, Target, User};
use uuid::Uuid;

use super::authority::Status;
use super::{Misfit, SKEW, State, fixed, seconds};
use crate::journal::record::{self, Record, cut, record::Body, reopened};

/// One cut: everything that relies on `subject` since before `before` is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutMade {
    /// The subject that is revoked.
    pub subject: Subject,
    /// The revision before which reliance on it is dead.
    pub before: u64,
    /// Unix seconds after which it can kill nothing.
    pub keep_until: u64,
    /// Revision of the record that made it; in a list of all cuts, the journal's head.
    pub revision: u64,
}

impl State {
    /// Every cut in force.
    pub fn all_cuts(&self) -> impl Iterator<Item = CutMade> {
        let made = |subject: Subject, before: u64, until: u64| {
            let keep_until = until.div_ceil(crate::clock::SECOND);
            CutMade { subject, before, keep_until, revision: self.revision }
        };
        let cuts = self.cuts.iter().map(move |(subject, (before, until))| made(*subject, *before, *until));
        let tainted = self.authorities.slots.iter().filter(|s| s.status == Status::Tainted);
        let tainted = tainted.map(move |s| made(Target::Authority(s.key_id()).subject(), u64::MAX, s.keep_until));
        let ended = self.agents.values().filter(|a| a.rare.ended.is_some() && a.has_children());
        let ended =
            ended.map(move |a| made(Target::Agent(a.uuid).subject(), u64::MAX, seconds(a.lease_ends_at).saturating_add(SKEW)));
        cuts.chain(tainted).chain(ended)
    }

    /// The cuts made by a record that was just applied.
    pub fn cuts_of(&self, revision: u64, record: &Record) -> Vec<CutMade> {
        let made = |subject: Subject, before: u64, until: u64| CutMade {
            subject,
            before,
            keep_until: until.div_ceil(crate::clock::SECOND),
            revision,
        };
        match &record.body {
            Some(Body::Cut(c)) => target_of(revision, c)
                .ok()
                .and_then(|target| {
                    let subject = target.subject();
                    self.cuts.get(&subject).map(|(before, until)| made(subject, *before, *until))
                })
                .into_iter()
                .collect(),
            // An end is published as a cut while agents below it are known.
            Some(Body::Ended(e)) => {
                let agent = Uuid::from_slice(&e.agent).ok().and_then(|uuid| self.agents.get(&uuid));
                let agent = agent.filter(|a| a.has_children());
                let until = |a: &super::Agent| seconds(a.lease_ends_at).saturating_add(SKEW);
                agent.map(|a| made(Target::Agent(a.uuid).subject(), u64::MAX, until(a))).into_iter().collect()
            }
            Some(Body::Authorities(_)) => {
                let now = |s: &&super::authority::Slot| s.status == Status::Tainted && s.retired_at == record.at;
                let slots = self.authorities.slots.iter().filter(now);
                slots.map(|s| made(Target::Authority(s.key_id()).subject(), u64::MAX, s.keep_until)).collect()
            }
            _ => Vec::new(),
        }
    }
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
    })
}

/// A target as the record of a cut has it. `None` for an authority, which is tainted instead.
pub fn cut_target(target: &Target) -> Option<cut::Target> {
    Some(match target {
        Target::Agent(uuid) => cut::Target::Agent(uuid.as_bytes().to_vec()),
        Target::User(u) => cut::Target::User(record::User { iss: u.iss.clone(), sub: u.sub.clone() }),
        Target::TrustDomain => cut::Target::TrustDomain(true),
        Target::Delegation(id) => cut::Target::Delegation(id.0.to_vec()),
        Target::Workload(name) => cut::Target::Workload(name.to_string()),
        Target::Class(name) => cut::Target::Class(name.to_string()),
        Target::Key(key) => cut::Target::Key(key.to_vec()),
        Target::Authority(_) => return None,
    })
}

/// The `before` of a cut recorded at `revision`: `u64::MAX` for a target that never comes back, otherwise `revision` itself.
pub fn before(target: &Target, revision: u64) -> u64 {
    match target {
        Target::Agent(_) | Target::Delegation(_) | Target::Key(_) | Target::Authority(_) => u64::MAX,
        Target::User(_) | Target::Workload(_) | Target::Class(_) | Target::TrustDomain => revision,
    }
}

/// The target that a record reopens.
pub(super) fn reopened(revision: u64, r: &record::Reopened) -> Result<Target, Misfit> {
    let misfit = |what| Misfit { revision, what };
    Ok(match r.target.as_ref().ok_or(misfit("nothing is reopened"))? {
        reopened::Target::User(u) => Target::User(User { iss: u.iss.clone(), sub: u.sub.clone() }),
        reopened::Target::Workload(name) => Target::Workload(name.parse().map_err(|_| misfit("workload"))?),
        reopened::Target::Class(name) => Target::Class(name.parse().map_err(|_| misfit("class"))?),
    })
}
