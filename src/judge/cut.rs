//! Records a cut, for a caller who revokes or for the issuer itself.

use mayfly_verify::{AgentId, Target};

use super::{Judgement, Note};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Fault, No};
use crate::journal::record::{self, record::Body};
use crate::state::{Agent, CUT_KEEP, KEEP, Owner, SKEW, View, before, cut_target, end_of_cut, seconds};

/// See [`Judgement::crowded`]: a child is revoked in place of its parent if the revocations below the child are at least one part
/// in this many of the bound.
const PART: usize = 16;

/// A requested cut.
pub struct Cutting<'a> {
    /// What is revoked.
    pub target: &'a Target,
    /// For the trust domain: revoke only what was recorded before a time. `None` means everything so far.
    pub since: Option<Since>,
    /// The reason. It is never shown to callers.
    pub reason: &'a str,
    /// Issue nothing new for the target until it is reopened.
    pub closes: bool,
}

/// A time, and the revision that separates records from before it from later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The first revision that was not recorded before the time; if there is none, the next revision.
    pub revision: u64,
    /// Unix microseconds, not in the future.
    pub time: u64,
}

impl<'a> Cutting<'a> {
    /// A cut that the issuer makes by itself.
    pub fn by_issuer(target: &'a Target, reason: &'a str) -> Cutting<'a> {
        Cutting { target, since: None, reason, closes: false }
    }

    /// Whether nothing new is issued for the target: a key, a user, an issuer of users, a workload or a class if that is asked for.
    ///
    /// A key that is closed is refused for good. One that the issuer revokes by itself is not: a hostile workload could make it
    /// remember as many keys as it likes, so such a key is forgotten with its certificate.
    pub fn closes(&self) -> bool {
        self.closes && (self.target.reopens() || matches!(self.target, Target::Key(_)))
    }
}

impl Judgement<'_> {
    /// Records a cut. Returns its revision.
    pub fn cut(&mut self, caller: &Caller, cutting: &Cutting<'_>) -> Result<u64, No> {
        let target = cutting.target;
        let (keep_until, verifiers_until) = self.kept(target);
        // INVARIANT: the last cut of a target has everything about its revocation, because rows before it are dropped.
        let closes = cutting.closes() || target.reopens() && self.view().is_closed(target);
        let by = match caller {
            Caller::Operator { .. } | Caller::Stranger => String::new(),
            other => other.scope(),
        };
        let body = record::Cut {
            before: cutting.since.map_or_else(|| before(target, self.view().revision() + 1), |since| since.revision),
            closes,
            keep_until,
            verifiers_until,
            reason: cutting.reason.to_owned(),
            by,
            time: cutting.since.map_or(0, |since| since.time),
            target: Some(cut_target(target).ok_or_else(|| Fault::new("revoke", "authorities are tainted, not cut"))?),
        };
        self.push(caller, Body::Cut(body))
    }

    /// The agent to revoke instead of `target`, because so many agents below an ancestor have been ended or revoked one by one that
    /// publishing more would fill the feed. `None` means that the target itself is revoked.
    ///
    /// It is the ancestor, or its child on the way to the target if a good part of these agents are below that child. So several
    /// children cannot make their parent be revoked together.
    pub fn crowded(&self, target: &Target) -> Option<AgentId> {
        let Target::Agent(uuid) = target else { return None };
        let most = self.rules().taken_back;
        let mut below: Option<&Agent> = None;
        for above in self.view().agent(uuid)?.ancestors().filter_map(|above| self.view().agent(&above)) {
            if above.rare.taken_back.len() >= most {
                let part = below.filter(|below| below.rare.taken_back.len() >= (most / PART).max(1));
                return Some(part.unwrap_or(above).id(&self.rules().trust_domain));
            }
            below = Some(above);
        }
        None
    }

    /// Whether an ancestor of this agent has ended so many agents one by one that verifiers are not notified of more. This does not
    /// apply to operators, workloads and users, who have rate limits of their own and no credential of the tree.
    pub fn ends_crowded(&self, caller: &Caller, agent: &Agent) -> bool {
        let most = u32::try_from(self.rules().taken_back).unwrap_or(u32::MAX);
        let mut above = agent.ancestors().filter_map(|above| self.view().agent(&above));
        matches!(caller, Caller::Agent { .. }) && above.any(|above| above.rare.ended_below >= most)
    }

    /// Revokes an agent because too many agents below it were ended or revoked one by one. Returns the revision.
    pub fn collapse(&mut self, caller: &Caller, above: &AgentId) -> Result<u64, No> {
        self.note(Note::Collapsed(above.clone()));
        let target = Target::Agent(above.uuid);
        self.cut(caller, &Cutting::by_issuer(&target, "too many agents below it were taken back"))
    }

    /// How long a cut is kept. The issuer keeps it until the last delegation, ticket or lease that it revokes has ended (Unix
    /// microseconds), and verifiers until the last credential that it revokes has expired (Unix seconds).
    fn kept(&self, target: &Target) -> (u64, u64) {
        let out = self.view().out();
        let skew = SKEW / SECOND;
        // Nothing more is issued under the target, so the last credential has been issued already.
        let last = out.last().max(self.now()).saturating_add(skew);
        let everything = {
            let lease = seconds(self.rules().longest_lease()).max(CUT_KEEP);
            // A delegation lasts as long as its token, whatever classes say, and a lease as long as its class said when it was
            // given.
            self.at().saturating_add(lease).max(self.view().lasts_until()).saturating_add(SKEW)
        };
        match target {
            // The first record of an epoch of the journal is one of these, and is kept for good.
            Target::TrustDomain => (u64::MAX, u64::MAX),
            Target::Agent(uuid) => match self.view().agent(uuid) {
                Some(agent) => {
                    let lease = if agent.has_children() { agent.lease_ends_at } else { 0 };
                    let ends = end_of_cut(agent, out);
                    // The cut is kept as long as the agent is in the state.
                    let until = agent.forgotten_at().max(seconds(lease.max(ends))).saturating_add(SKEW);
                    (until, ends)
                }
                None => (everything, last),
            },
            Target::Delegation(id) => match self.view().known_delegation(id) {
                Some(delegation) => {
                    // An agent under the delegation may live longer than the delegation, if its user extended the agent's lease.
                    let longer = if self.view().is_prolonged(id) { self.view().lasts_until() } else { 0 };
                    (delegation.ends_at.max(longer).saturating_add(KEEP).saturating_add(SKEW), last)
                }
                None => (everything, last),
            },
            Target::Key(key) => {
                let ends = match self.view().owner(key) {
                    Some(Owner::Agent(uuid)) => self.view().agent(&uuid).map_or(0, |agent| agent.svid_ends_at),
                    Some(Owner::Workload(_, ends_at)) => ends_at,
                    None => self.now(),
                };
                (seconds(ends).saturating_add(SKEW), ends.saturating_add(skew))
            }
            // The cut is kept until the last token that was issued has expired.
            Target::Token(_) => {
                let ends = out.tokens.max(self.now());
                (seconds(ends).saturating_add(SKEW), ends.saturating_add(skew))
            }
            _ => (everything, last),
        }
    }
}
