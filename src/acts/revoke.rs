//! Revoke: a cut, by an operator, a user, a workload or an agent; or a dry run that says what it would end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mayfly_verify::{ClassName, Target, User, Workload, WorkloadName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Issuer;
use crate::caller::Caller;
use crate::denial::near::near;
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::{Act, Chance, Check, Cutting, Judgement, Since, may_revoke};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::{Agent, Count, Owner, Seat, Standing, View, end_of_cut};

/// A revocation.
#[derive(Clone, Debug)]
pub struct Revoke {
    /// What is revoked.
    pub target: Target,
    /// For the trust domain: revoke only what was recorded before a time.
    pub since: Option<Since>,
    /// Record nothing.
    pub dry: bool,
    /// The reason. It is never shown to callers.
    pub reason: String,
    /// Leave a user, an issuer of users, a workload or a class open for new credentials.
    pub allow_new: bool,
}

/// The receipt of a revocation.
#[derive(Clone, Copy, Debug)]
pub struct Revoked {
    /// Revision of its record.
    pub revision: u64,
    /// Upper bound of the number of live agents that it ends.
    pub agents_at_most: u64,
    /// Whether new credentials are issued for the target.
    pub open_for_new: bool,
    /// Seconds for which a verifier that hears nothing may accept what was issued before.
    pub worst_case_seconds: u64,
    /// Unix microseconds.
    pub at: u64,
}

/// What is to be revoked.
pub enum What {
    /// A target.
    Target(Target),
    /// Everything that was recorded before a time, in Unix microseconds.
    Before(u64),
}

/// How it is to be revoked.
pub struct How {
    /// The reason. It is never shown to callers.
    pub reason: String,
    /// Leave a user, an issuer of users, a workload or a class open for new credentials.
    pub allow_new: bool,
}

/// Revokes a target. A user, an issuer of users, a workload or a class is closed by that, unless `allow_new`.
pub async fn revoke(issuer: &Issuer, caller: Caller, what: What, how: How) -> Result<Revoked, No> {
    let act = act(issuer, &caller, what, how, false).await?;
    issuer.pipeline.record(caller, act).await
}

/// Whether a target is a user of whom nothing is known, so that the name may be wrong. A user may be closed before their first
/// token, so this is no denial.
pub fn is_unknown_user(issuer: &Issuer, what: &What) -> bool {
    let What::Target(target @ Target::User(user)) = what else { return false };
    !issuer.ledger.read(|state| state.seats(Seat(Count::Below, state.subject(target))) > 0 || state.knows_user(user))
}

/// What a revocation would end, by the same judgement, with nothing recorded.
pub async fn would_end(issuer: &Arc<Issuer>, caller: Caller, what: What, how: How) -> Result<(Revoked, Reach), No> {
    let act = act(issuer, &caller, what, how, true).await?;
    // A dry run looks at every agent, so it takes a permit before the writer is asked.
    let place = issuer.counting.place(&caller)?;
    let target = act.target.clone();
    let before = act.since.map_or(u64::MAX, |since| since.revision);
    let revoked = issuer.pipeline.record(caller, act).await?;
    // The count stops when the caller hangs up.
    let waits = Arc::new(());
    let (counting, awaited) = (Arc::clone(issuer), Arc::downgrade(&waits));
    let counted = tokio::task::spawn_blocking(move || {
        let _place = place;
        reach(&counting, &target, before, || awaited.strong_count() > 0)
    });
    let counted = counted.await.map_err(|e| Fault::new("count", e))?;
    drop(waits);
    Ok((revoked, counted))
}

/// Whether an operator could revoke a target: the judgement of a revocation, with nothing recorded or counted.
pub async fn could(issuer: &Issuer, caller: &Caller, target: Target) -> Result<(), No> {
    let how = How { reason: String::new(), allow_new: false };
    let act = act(issuer, caller, What::Target(target), how, true).await?;
    issuer.pipeline.record(caller.clone(), act).await.map(drop)
}

/// Permits for dry runs, each of which looks at every agent: one for operators, and one for everybody else.
pub struct Counting {
    operators: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Default for Counting {
    fn default() -> Counting {
        Counting { operators: Arc::new(Semaphore::new(1)), others: Arc::new(Semaphore::new(1)) }
    }
}

impl Counting {
    pub(crate) fn place(&self, caller: &Caller) -> Result<OwnedSemaphorePermit, Denial> {
        let places = if matches!(caller, Caller::Operator { .. }) { &self.operators } else { &self.others };
        let busy = |_| Denial::new(Kind::Exhausted, "BUSY", "another dry run is being counted: ask again in a moment");
        Arc::clone(places).try_acquire_owned().map_err(busy)
    }
}

async fn act(issuer: &Issuer, caller: &Caller, what: What, how: How, dry: bool) -> Result<Revoke, No> {
    if how.reason.len() > 256 {
        return Err(Denial::malformed("REASON_TOO_LONG", "a reason has at most 256 bytes").into());
    }
    let (target, time) = match what {
        What::Target(target) => (sound(target)?, None),
        What::Before(time) if time > issuer.clock.now() => {
            return Err(Denial::malformed("TIME_IN_FUTURE", "`--before` must not be in the future").into());
        }
        What::Before(time) => (Target::TrustDomain, Some(time)),
    };
    // ORDER: the caller's right is checked before the journal is read, a permit is taken or the writer is asked. The ledger checks
    // again.
    issuer.ledger.read(|state| may_revoke(state, caller, &target))?;
    let since = match time {
        None => None,
        Some(time) => {
            let ledger = issuer.ledger.clone();
            let revision = tokio::task::spawn_blocking(move || ledger.revision_at(time)).await;
            Some(Since { revision: revision.map_err(|e| Fault::new("revoke", e))??, time })
        }
    };
    Ok(Revoke { target, since, dry, reason: how.reason, allow_new: how.allow_new })
}

/// A target whose parts have possible lengths.
pub(super) fn sound(target: Target) -> Result<Target, Denial> {
    match &target {
        Target::User(u) if u.iss.is_empty() || u.sub.is_empty() || u.iss.len() > 512 || u.sub.len() > 255 => {
            Err(Denial::malformed("USER_MALFORMED", "a user is an issuer URL and a subject, neither empty"))
        }
        Target::Issuer(iss) if iss.is_empty() || iss.len() > 512 => {
            Err(Denial::malformed("USER_MALFORMED", "an issuer of users is a URL of at most 512 bytes, or its configured name"))
        }
        _ => Ok(target),
    }
}

impl Record for Revoke {
    fn lane(&self) -> Lane {
        if self.dry { Lane::Question } else { Lane::Revocation }
    }
}

impl Act for Revoke {
    type Permit = Revoked;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Revoked, No> {
        let target = &self.target;
        // A key never comes back.
        let closes = !self.allow_new || matches!(target, Target::Key(_));
        let cutting = Cutting { target, since: self.since, reason: &self.reason, closes };
        // 1. May the caller revoke this?
        j.may_revoke(caller, target)?;
        // 2. What does it end?
        let below = j.view().seats(Seat(Count::Below, j.view().subject(target)));
        let (agents_at_most, worst_case_seconds) = match target {
            Target::Agent(uuid) => reach_of_agent(j, j.owned(caller, uuid)?, below),
            Target::Key(key) => reach_of_key(j, key),
            _ => {
                check_known(j, target, below)?;
                (below, j.rules().longest_credential())
            }
        };
        let lasting = matches!(target, Target::Agent(_) | Target::Delegation(_) | Target::Key(_));
        let open_for_new = !lasting && !j.view().is_closed(target) && !cutting.closes();
        let revoked = |revision, at| Revoked { revision, agents_at_most, open_for_new, worst_case_seconds, at };
        if self.dry {
            return Ok(revoked(j.view().revision(), j.at()));
        }
        // 3. Its record. Nothing is recorded if all credentials that it could end have expired, or if an earlier revocation covers
        // it: an agent, a delegation and a key never come back, an earlier time is part of a later one, and a closed target stays
        // closed.
        if let Target::Agent(uuid) = target
            && let Some(agent) = j.view().agent(uuid)
            && is_over(j, agent)
        {
            return Ok(revoked(j.view().revision(), j.at()));
        }
        if let Some(first) = j.view().target(target) {
            let within = |since: Since| since.time <= first.since;
            let again = first.closed || !cutting.closes() && j.view().last_cut(target) == Some(j.view().revision());
            let again = again && self.since.is_none() && !j.overrules(caller, target);
            if lasting || again || self.since.is_some_and(within) {
                return Ok(revoked(first.revision, first.why.at));
            }
        }
        // 4. A workload that is closed loses its own certificates: verifiers are told of their keys, which never come back.
        if let Target::Workload(Workload::Own(name)) = target
            && cutting.closes()
        {
            for key in j.view().keys_of(name, j.at()) {
                j.cut(caller, &Cutting { target: &Target::Key(key), since: None, reason: &self.reason, closes: true })?;
            }
        }
        // 5. Past a bound, an agent that loses one after the other of those below it is revoked itself.
        let revision = match j.crowded(target) {
            Some(above) => j.collapse(caller, &above)?,
            None => j.cut(caller, &cutting)?,
        };
        Ok(revoked(revision, j.at()))
    }
}

/// Whether a revocation of an agent would change nothing: something that it relies on was revoked and the agent is no longer
/// counted, or it can no longer act and its last credential has expired.
fn is_over(j: &Judgement<'_>, agent: &Agent) -> bool {
    match View::standing(j.view(), agent, j.at()) {
        Standing::Live => false,
        Standing::Cut => !agent.is_seated(),
        Standing::Expired | Standing::Ended | Standing::Orphaned => end_of_cut(agent, j.view().out()) <= j.now(),
    }
}

fn reach_of_agent(j: &Judgement<'_>, agent: &Agent, below: u64) -> (u64, u64) {
    let live = u64::from(View::standing(j.view(), agent, j.at()) == Standing::Live).saturating_add(below);
    // The agents below it count too: none of their credentials outlives its lease.
    let longest = if agent.has_children() { j.rules().longest_credential() } else { j.rules().jwt_life() };
    let ends_at = agent.svid_ends_at.max(j.now() + longest).min(agent.lease_ends_at);
    (live, ends_at.saturating_sub(j.now()))
}

/// A revoked key ends its own certificates, and no agents below their holder: those are revoked by the holder's name.
fn reach_of_key(j: &Judgement<'_>, key: &[u8; 32]) -> (u64, u64) {
    match j.view().owner(key) {
        Some(Owner::Agent(uuid)) => {
            let agent = j.view().agent(&uuid);
            let live = agent.is_some_and(|a| View::standing(j.view(), a, j.at()) == Standing::Live);
            let ends_at = agent.map_or(0, |a| a.svid_ends_at.min(a.lease_ends_at));
            (u64::from(live), ends_at.saturating_sub(j.now()))
        }
        Some(Owner::Workload(_, ends_at)) => (0, ends_at.saturating_sub(j.now())),
        None => (0, 0),
    }
}

/// An unknown name is probably a typing error, so the caller is told that nothing was revoked.
fn check_known(j: &Judgement<'_>, target: &Target, below: u64) -> Result<(), Denial> {
    j.checking(Check::TargetKnown);
    let listed = match target {
        Target::Delegation(id) => j.view().known_delegation(id).is_some(),
        Target::Workload(name) => {
            let own = j.rules().workloads.iter().any(|w| Workload::Own(w.clone()) == *name);
            own || j.rules().classes.values().any(|class| class.workloads.contains(name))
        }
        Target::Class(name) => j.rules().classes.contains_key(name),
        Target::Issuer(iss) => j.rules().issuers.contains_key(iss),
        // Users are not configured, so an unknown user can be closed before their first token.
        _ => true,
    };
    if listed || below > 0 || j.view().target(target).is_some() {
        return Ok(());
    }
    // Only operators revoke workloads and classes, so suggesting a similar name reveals nothing.
    let (code, what, hint) = match target {
        Target::Delegation(id) => ("DELEGATION_UNKNOWN", format!("delegation `{id}`"), String::new()),
        Target::Workload(name) => {
            let name = name.to_string();
            let hint = near(&name, j.rules().workloads.iter().map(WorkloadName::as_str));
            ("WORKLOAD_UNKNOWN", format!("workload `{name}`"), hint)
        }
        Target::Class(name) => {
            let hint = near(name.as_str(), j.rules().classes.keys().map(ClassName::as_str));
            ("CLASS_UNKNOWN", format!("class `{name}`"), hint)
        }
        Target::Issuer(iss) => ("USER_ISSUER_UNKNOWN", format!("issuer of users `{iss}`"), String::new()),
        _ => return Ok(()),
    };
    Err(Denial::new(Kind::NotFound, code, format!("there is no {what}, and nothing was revoked{hint}")))
}

/// How many live agents a revocation would end.
#[derive(Default)]
pub struct Reach {
    /// All of them.
    pub agents: u64,
    /// By class.
    pub classes: BTreeMap<ClassName, u64>,
    /// By user. Autonomous agents are in no entry.
    pub users: HashMap<User, u64>,
}

/// Agents that are looked at under one lock.
const LOOK: usize = 1000;

fn reach(issuer: &Issuer, target: &Target, before: u64, is_awaited: impl Fn() -> bool) -> Reach {
    let (mut reach, mut after) = (Reach::default(), None);
    let (subject, now) = (issuer.ledger.read(|state| state.subject(target)), issuer.clock.now());
    let hit = |agent: &Agent| match target {
        Target::Key(key) => agent.current.iter().chain(&agent.rare.next).any(|c| c.key == *key),
        _ => agent.stamps().any(|s| s.subject == subject && s.since < before),
    };
    loop {
        let seen = issuer.ledger.read(|state| {
            let mut seen = 0;
            for agent in state.agents_after(after).take(LOOK) {
                (seen, after) = (seen + 1, Some(agent.uuid));
                if hit(agent) && state.standing(agent, now) == Standing::Live {
                    reach.agents += 1;
                    *reach.classes.entry(agent.mandate.class.clone()).or_default() += 1;
                    if let Some(delegation) = &agent.delegation {
                        *reach.users.entry(delegation.user.clone()).or_default() += 1;
                    }
                }
            }
            seen
        });
        if seen < LOOK || !is_awaited() {
            return reach;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_never_take_the_operators_place_for_dry_runs() {
        let counting = Counting::default();
        let operator = Caller::Operator { name: "uid:0".into(), by: None };
        let taken = counting.place(&Caller::Stranger);
        assert!(taken.is_ok() && counting.place(&Caller::Stranger).is_err_and(|denial| denial.code == "BUSY"));
        let first = counting.place(&operator);
        assert!(first.is_ok() && counting.place(&operator).is_err_and(|denial| denial.code == "BUSY"));
        drop((taken, first));
        assert!(counting.place(&Caller::Stranger).is_ok() && counting.place(&operator).is_ok());
    }
}
