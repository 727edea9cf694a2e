//! Admit ends, cuts and reopenings.

use mayfly_verify::{Target, User};
use uuid::Uuid;

use super::{Batch, unknown_agent};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::registry::proposal::Outcome;
use crate::registry::state::{Agent, CUT_KEEP, Count, SKEW, Seat, Standing, seconds};

impl Batch<'_> {
    pub(super) fn end(&mut self, caller: &Caller, agent: Option<Uuid>) -> Result<Outcome, No> {
        let uuid = match (agent, caller) {
            (Some(uuid), _) => uuid,
            (None, Caller::Agent { id, .. }) => id.uuid,
            (None, _) => return Err(Denial::malformed("AGENT_MISSING", "say which agent is to end").into()),
        };
        let may = |agent: &&Agent| match caller {
            Caller::Operator { .. } => true,
            Caller::Agent { id, .. } => id.uuid == agent.uuid || agent.ancestors().any(|above| above == id.uuid),
            Caller::Workload { .. } | Caller::Foreign { .. } => caller.is(&agent.workload),
            Caller::Stranger => false,
        };
        // T13: what is not the caller's looks as if it were not there.
        let known = self.agent(&uuid).filter(may).ok_or_else(unknown_agent)?;
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

    pub(super) fn revoke_agent(&mut self, caller: &Caller, uuid: Uuid, reason: &str) -> Result<Outcome, No> {
        let agent = self.agent(&uuid).ok_or_else(unknown_agent)?;
        let below = self.seats(Seat(Count::Below, Target::Agent(uuid).subject()));
        let live = u64::from(self.standing(agent) == Standing::Live).saturating_add(below);
        // Of what lives below it too: no credential there outlives its lease.
        let longest = if agent.has_children() { self.longest() } else { self.rules.jwt_ttl };
        let worst = self.worst_case(agent.svid_ends_at.max(self.at / SECOND + longest).min(agent.lease_ends_at));
        // An agent never comes back: its cut has no end.
        let target = record::cut::Target::Agent(uuid.as_bytes().to_vec());
        let revision = self.cut(caller, target, u64::MAX, false, reason)?;
        Ok(Outcome::Revoked { revision, agents_at_most: live, open_for_new: false, worst_case_seconds: worst, at: self.at })
    }

    pub(super) fn revoke_user(&mut self, caller: &Caller, user: &User, reason: &str, closes: bool) -> Result<Outcome, No> {
        let agents_at_most = self.seats(Seat(Count::Below, Target::User(user.clone()).subject()));
        let longest = self.longest();
        let open = !closes && !self.user(user).is_some_and(|u| u.closed);
        let target = record::cut::Target::User(record::User { iss: user.iss.clone(), sub: user.sub.clone() });
        let revision = self.cut(caller, target, self.top.revision + 1, closes, reason)?;
        Ok(Outcome::Revoked { revision, agents_at_most, open_for_new: open, worst_case_seconds: longest, at: self.at })
    }

    pub(super) fn cut(
        &mut self,
        caller: &Caller,
        target: record::cut::Target,
        before: u64,
        closes: bool,
        reason: &str,
    ) -> Result<u64, No> {
        // Kept until the last thing it can hit has ended: no lease and no token outlives these.
        let lease = self.rules.classes.values().map(|c| c.max_lease).max().unwrap_or(0);
        let keep_until = self.at.saturating_add(seconds(lease).max(CUT_KEEP)).saturating_add(SKEW);
        let body = record::Cut { before, closes, keep_until, reason: reason.to_owned(), target: Some(target) };
        self.push(caller, Body::Cut(body))
    }

    pub(super) fn reopen(&mut self, caller: &Caller, user: &User) -> Result<Outcome, No> {
        if !self.user(user).is_some_and(|u| u.closed) {
            let message = format!("user `{}` of `{}` is not closed: there is nothing to reopen", user.sub, user.iss);
            return Err(Denial::new(Kind::NotFound, "USER_NOT_CLOSED", message).into());
        }
        let body = record::Reopened { user: Some(record::User { iss: user.iss.clone(), sub: user.sub.clone() }) };
        let revision = self.push(caller, Body::Reopened(body))?;
        Ok(Outcome::Reopened { revision, at: self.at })
    }
}
