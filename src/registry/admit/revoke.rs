//! Admit ends, cuts and reopenings.

use mayfly_verify::{DelegationId, Target, Workload};
use uuid::Uuid;

use super::{Batch, unknown_agent};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body, reopened};
use crate::registry::proposal::{Outcome, Since};
use crate::registry::state::{Agent, CUT_KEEP, Count, Owner, SKEW, Seat, Standing, before, cut_target, seconds};

/// A cut that is asked for.
pub(super) struct Cutting<'a> {
    /// Of whom or what.
    pub(super) target: &'a Target,
    /// Of the trust domain: what is from before a time.
    pub(super) since: Option<Since>,
    /// Record nothing.
    pub(super) dry: bool,
    /// Why.
    pub(super) reason: &'a str,
    /// Nothing new for it until it is reopened.
    pub(super) closes: bool,
}

impl<'a> Cutting<'a> {
    /// The issuer's own.
    pub(super) fn of(target: &'a Target, reason: &'a str) -> Cutting<'a> {
        Cutting { target, since: None, dry: false, reason, closes: false }
    }
}

impl Batch<'_> {
    pub(super) fn end(&mut self, caller: &Caller, agent: Option<Uuid>) -> Result<Outcome, No> {
        let uuid = match (agent, caller) {
            (Some(uuid), _) => uuid,
            (None, Caller::Agent { id, .. }) => id.uuid,
            (None, _) => return Err(Denial::malformed("AGENT_MISSING", "say which agent is to end").into()),
        };
        let known = self.of(caller, &uuid)?;
        let id = known.id(&self.rules.trust_domain);
        if let Some(revision) = known.rare.ended {
            return Ok(Outcome::Ended { agent: id, revision });
        }
        let by = match caller {
            Caller::Operator { .. } => String::new(),
            other => other.scope(),
        };
        let revision = self.push(caller, Body::Ended(record::Ended { agent: uuid.as_bytes().to_vec(), by }))?;
        Ok(Outcome::Ended { agent: id, revision })
    }

    /// The agent, if it is the caller's to end and to revoke.
    fn of(&self, caller: &Caller, uuid: &Uuid) -> Result<&Agent, Denial> {
        let may = |agent: &&Agent| match caller {
            Caller::Operator { .. } => true,
            Caller::Agent { id, .. } => id.uuid == agent.uuid || agent.ancestors().any(|above| above == id.uuid),
            Caller::Workload { .. } | Caller::Foreign { .. } => caller.is(&agent.mandate.workload),
            Caller::User(user) => agent.delegation.as_ref().is_some_and(|d| d.user == *user),
            Caller::Stranger => false,
        };
        // T13: what is not the caller's looks as if it were not there.
        self.agent(uuid).filter(may).ok_or_else(unknown_agent)
    }

    pub(super) fn revoke(&mut self, caller: &Caller, cutting: &Cutting<'_>) -> Result<Outcome, No> {
        let target = cutting.target;
        self.check_may(caller, target)?;
        let below = self.seats(Seat(Count::Below, target.subject()));
        let (agents_at_most, worst_case_seconds) = match target {
            Target::Agent(uuid) => self.reach_of_agent(self.of(caller, uuid)?, below),
            Target::Key(key) => self.reach_of_key(key),
            _ => {
                self.check_known(target, below)?;
                (below, self.longest())
            }
        };
        let lasting = matches!(target, Target::Agent(_) | Target::Delegation(_) | Target::Key(_));
        let open_for_new = !lasting && !self.closed(target) && !closes(cutting);
        if cutting.dry {
            let (revision, at) = (self.top.revision, self.at);
            return Ok(Outcome::Revoked { revision, agents_at_most, open_for_new, worst_case_seconds, at });
        }
        let (revision, at) = match self.target(target) {
            // Those never come back, and an earlier time is part of a later one: once is enough.
            Some(first) if lasting || cutting.since.is_some_and(|s| s.time <= first.since) => (first.revision, first.why.at),
            _ => (self.cut(caller, cutting)?, self.at),
        };
        Ok(Outcome::Revoked { revision, agents_at_most, open_for_new, worst_case_seconds, at })
    }

    /// Operators revoke anything. Whose an agent is says `of`, which hides those of others.
    fn check_may(&self, caller: &Caller, target: &Target) -> Result<(), Denial> {
        match (caller, target) {
            (Caller::Operator { .. }, _) | (_, Target::Agent(_)) => Ok(()),
            (Caller::User(user), Target::User(of)) if user == of => Ok(()),
            (Caller::User(user), Target::Delegation(id)) => {
                let known = self.top.delegations.get(id).or_else(|| self.base.delegations.get(id));
                if known.is_some_and(|d| d.user == *user) { Ok(()) } else { Err(unknown_delegation(id)) }
            }
            (Caller::User(_), _) => Err(Denial::denied(
                "ROLE_NOT_ALLOWED",
                "you may revoke yourself, your delegations and the agents that act for you",
            )),
            _ => Err(Denial::denied("ROLE_NOT_ALLOWED", "only operators revoke anything but agents")),
        }
    }

    fn reach_of_agent(&self, agent: &Agent, below: u64) -> (u64, u64) {
        let live = u64::from(self.standing(agent) == Standing::Live).saturating_add(below);
        // Of what lives below it too: no credential there outlives its lease.
        let longest = if agent.has_children() { self.longest() } else { self.rules.jwt_ttl };
        let ends_at = agent.svid_ends_at.max(self.at / SECOND + longest).min(agent.lease_ends_at);
        (live, self.worst_case(ends_at))
    }

    /// A key takes its own certificates with it, and nothing below them: who holds it is cut by name.
    fn reach_of_key(&self, key: &[u8; 32]) -> (u64, u64) {
        match self.owner(key) {
            Some(Owner::Agent(uuid)) => {
                let agent = self.agent(&uuid);
                let live = agent.is_some_and(|a| self.standing(a) == Standing::Live);
                (u64::from(live), agent.map_or(0, |a| self.worst_case(a.svid_ends_at.min(a.lease_ends_at))))
            }
            Some(Owner::Workload(_, ends_at)) => (0, self.worst_case(ends_at)),
            None => (0, 0),
        }
    }

    /// A name that nobody knows is a slip of the pen: whoever revokes must hear that nothing happened.
    fn check_known(&self, target: &Target, below: u64) -> Result<(), Denial> {
        let (known, code, what) = match target {
            Target::Delegation(id) => {
                let known = self.top.delegations.contains_key(id) || self.base.delegations.contains_key(id);
                let known = known || below > 0 || self.target(target).is_some();
                return if known { Ok(()) } else { Err(unknown_delegation(id)) };
            }
            Target::Workload(name) => {
                let own = self.rules.workloads.iter().any(|w| Workload::Own(w.clone()) == *name);
                let listed = self.rules.classes.values().any(|class| class.workloads.contains(name));
                (own || listed, "WORKLOAD_UNKNOWN", format!("workload `{name}`"))
            }
            Target::Class(name) => (self.rules.classes.contains_key(name), "CLASS_UNKNOWN", format!("class `{name}`")),
            // Nobody lists users: one may be closed before they come.
            _ => return Ok(()),
        };
        if known || below > 0 || self.target(target).is_some() {
            return Ok(());
        }
        Err(Denial::new(Kind::NotFound, code, format!("there is no {what}: nothing was revoked")))
    }

    pub(super) fn cut(&mut self, caller: &Caller, cutting: &Cutting<'_>) -> Result<u64, No> {
        let target = cutting.target;
        // Kept until the last thing it can hit has ended: a delegation lasts as long as its token, whatever classes say, and a
        // lease as long as its class said when it was given.
        let lease = self.rules.classes.values().map(|c| c.max_lease).max().unwrap_or(0);
        let known = self.base.lasts_until().max(self.top.lasts_until());
        let keep_until = match target {
            // The first record of a life of the journal is one of those, and is kept for good.
            Target::TrustDomain => u64::MAX,
            _ => self.at.saturating_add(seconds(lease).max(CUT_KEEP)).max(known).saturating_add(SKEW),
        };
        // INVARIANT: the last record of a target says all of it; the rows before it are dropped.
        let closes = closes(cutting)
            || (matches!(target, Target::User(_) | Target::Workload(_) | Target::Class(_)) && self.closed(target));
        let by = match caller {
            Caller::Operator { .. } | Caller::Stranger => String::new(),
            other => other.scope(),
        };
        let body = record::Cut {
            before: cutting.since.map_or_else(|| before(target, self.top.revision + 1), |since| since.revision),
            closes,
            keep_until,
            reason: cutting.reason.to_owned(),
            by,
            time: cutting.since.map_or(0, |since| since.time),
            target: Some(cut_target(target).ok_or_else(|| Fault::new("revoke", "authorities are tainted, not cut"))?),
        };
        self.push(caller, Body::Cut(body))
    }

    pub(super) fn reopen(&mut self, caller: &Caller, target: &Target) -> Result<Outcome, No> {
        let (record, code, what) = match target {
            Target::User(u) => {
                let user = record::User { iss: u.iss.clone(), sub: u.sub.clone() };
                (reopened::Target::User(user), "USER_NOT_CLOSED", format!("user `{}` of `{}`", u.sub, u.iss))
            }
            Target::Workload(w) => (reopened::Target::Workload(w.to_string()), "WORKLOAD_NOT_CLOSED", format!("workload `{w}`")),
            Target::Class(c) => (reopened::Target::Class(c.to_string()), "CLASS_NOT_CLOSED", format!("class `{c}`")),
            _ => return Err(Fault::new("reopen", "this never comes back").into()),
        };
        if !self.closed(target) {
            let message = format!("{what} is not closed: there is nothing to reopen");
            return Err(Denial::new(Kind::NotFound, code, message).into());
        }
        let revision = self.push(caller, Body::Reopened(record::Reopened { target: Some(record) }))?;
        Ok(Outcome::Reopened { revision, at: self.at })
    }
}

/// Nothing new for it: of a key for good, of what can be reopened when that is asked for.
fn closes(cutting: &Cutting<'_>) -> bool {
    match cutting.target {
        Target::Key(_) => true,
        Target::User(_) | Target::Workload(_) | Target::Class(_) => cutting.closes,
        _ => false,
    }
}

fn unknown_delegation(id: &DelegationId) -> Denial {
    Denial::new(Kind::NotFound, "DELEGATION_UNKNOWN", format!("there is no delegation `{id}`: nothing was revoked"))
}
