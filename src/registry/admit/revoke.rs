//! Admit ends, cuts and reopenings.

use mayfly_verify::{Target, Workload};
use uuid::Uuid;

use super::{Batch, unknown_agent};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body, reopened};
use crate::registry::proposal::Outcome;
use crate::registry::state::{Agent, CUT_KEEP, Count, Owner, SKEW, Seat, Standing, before, cut_target, seconds};

impl Batch<'_> {
    pub(super) fn end(&mut self, caller: &Caller, agent: Option<Uuid>) -> Result<Outcome, No> {
        let uuid = match (agent, caller) {
            (Some(uuid), _) => uuid,
            (None, Caller::Agent { id, .. }) => id.uuid,
            (None, _) => return Err(Denial::malformed("AGENT_MISSING", "say which agent is to end").into()),
        };
        let known = self.of(caller, &uuid)?;
        let id = known.id(&self.rules.trust_domain);
        if let Some(revision) = known.ended {
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
            Caller::Workload { .. } | Caller::Foreign { .. } => caller.is(&agent.workload),
            Caller::Stranger => false,
        };
        // T13: what is not the caller's looks as if it were not there.
        self.agent(uuid).filter(may).ok_or_else(unknown_agent)
    }

    pub(super) fn revoke(&mut self, caller: &Caller, target: &Target, reason: &str, closes: bool) -> Result<Outcome, No> {
        let below = self.seats(Seat(Count::Below, target.subject()));
        let (agents_at_most, worst_case_seconds) = match target {
            Target::Agent(uuid) => self.reach_of_agent(self.of(caller, uuid)?, below),
            _ if !matches!(caller, Caller::Operator { .. }) => {
                return Err(Denial::denied("ROLE_NOT_ALLOWED", "only operators revoke anything but agents").into());
            }
            Target::Key(key) => self.reach_of_key(key),
            _ => {
                self.check_known(target, below)?;
                (below, self.longest())
            }
        };
        let lasting = matches!(target, Target::Agent(_) | Target::Delegation(_) | Target::Key(_));
        let (revision, at) = match self.target(target) {
            // Those never come back: once is enough.
            Some(first) if lasting => (first.revision, first.since),
            _ => (self.cut(caller, target, closes, reason)?, self.at),
        };
        let open_for_new = !lasting && !self.closed(target);
        Ok(Outcome::Revoked { revision, agents_at_most, open_for_new, worst_case_seconds, at })
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
                let agent = self.agent(uuid);
                let live = agent.is_some_and(|a| self.standing(a) == Standing::Live);
                (u64::from(live), agent.map_or(0, |a| self.worst_case(a.svid_ends_at.min(a.lease_ends_at))))
            }
            Some(Owner::Workload(_, ends_at)) => (0, self.worst_case(*ends_at)),
            None => (0, 0),
        }
    }

    /// A name that nobody knows is a slip of the pen: whoever revokes must hear that nothing happened.
    fn check_known(&self, target: &Target, below: u64) -> Result<(), Denial> {
        let (known, code, what) = match target {
            Target::Delegation(id) => {
                let known = self.top.delegations.contains_key(id) || self.base.delegations.contains_key(id);
                (known, "DELEGATION_UNKNOWN", format!("delegation `{id}`"))
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

    pub(super) fn cut(&mut self, caller: &Caller, target: &Target, closes: bool, reason: &str) -> Result<u64, No> {
        // Kept until the last thing it can hit has ended: a delegation lasts as long as its token, whatever classes say, and a
        // lease as long as its class said when it was given.
        let lease = self.rules.classes.values().map(|c| c.max_lease).max().unwrap_or(0);
        let known = self.base.lasts_until().max(self.top.lasts_until());
        let keep_until = self.at.saturating_add(seconds(lease).max(CUT_KEEP)).max(known).saturating_add(SKEW);
        let closes = match target {
            // For good: nobody reopens a key.
            Target::Key(_) => true,
            // INVARIANT: the last record of a target says all of it; the rows before it are dropped.
            Target::User(_) | Target::Workload(_) | Target::Class(_) => closes || self.closed(target),
            _ => false,
        };
        let by = match caller {
            Caller::Operator { .. } | Caller::Stranger => String::new(),
            other => other.scope(),
        };
        let body = record::Cut {
            before: before(target, self.top.revision + 1),
            closes,
            keep_until,
            reason: reason.to_owned(),
            by,
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
