//! Ownership: who may see an agent, who may end or revoke it, and which other targets a caller may revoke.

use mayfly_verify::{DelegationId, Target};
use uuid::Uuid;

use super::{Check, Judgement, check_token};
use crate::caller::Caller;
use crate::denial::{Denial, Kind};
use crate::state::{Agent, TargetStanding, View};

/// Whether a caller may end or revoke an agent.
pub fn owns(caller: &Caller, agent: &Agent) -> bool {
    match caller {
        Caller::Operator { .. } => true,
        Caller::Agent { id, .. } | Caller::Bearer { id, .. } => {
            id.uuid == agent.uuid || agent.ancestors().any(|above| above == id.uuid)
        }
        Caller::Workload { .. } | Caller::Foreign { .. } => caller.is(&agent.mandate.workload),
        Caller::User { user, .. } => agent.delegation.as_ref().is_some_and(|delegation| delegation.user == *user),
        Caller::Stranger | Caller::Person { .. } | Caller::Auditor { .. } => false,
    }
}

/// Whether a caller may see an agent: everybody who may end it, and auditors.
pub fn sees(caller: &Caller, agent: &Agent) -> bool {
    caller.reads_everything() || owns(caller, agent)
}

impl Judgement<'_> {
    /// An agent that the caller may end or revoke. T13: an agent of somebody else looks as if it did not exist.
    pub fn owned(&self, caller: &Caller, uuid: &Uuid) -> Result<&Agent, Denial> {
        self.checking(Check::Ownership);
        self.view().agent(uuid).filter(|agent| owns(caller, agent)).ok_or_else(unknown_agent)
    }

    /// Checks that a caller may revoke a target: see [`may_revoke`].
    pub fn may_revoke(&self, caller: &Caller, target: &Target) -> Result<(), Denial> {
        self.checking(Check::Ownership);
        may_revoke(self.view(), caller, target)
    }
}

impl Judgement<'_> {
    /// Checks that a caller may reopen a target. An operator may reopen everything, and a user what they closed themselves, with a
    /// token from after that.
    pub fn may_reopen(&self, caller: &Caller, target: &Target) -> Result<(), Denial> {
        self.checking(Check::Ownership);
        let Caller::User { user, issued_at, .. } = caller else { return Ok(()) };
        if !matches!(target, Target::User(of) if of == user) {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "you may reopen yourself and nothing else"));
        }
        check_token(self.view(), user, *issued_at)?;
        // T160: only an operator may reopen what an operator closed, even if the user had closed it before.
        if self.view().target(target).is_some_and(|standing| standing.closed && standing.why.by != caller.scope()) {
            let message = "an operator closed you, or the issuer did: an operator must reopen you";
            return Err(Denial::denied("USER_CLOSED_BY_OPERATOR", message));
        }
        Ok(())
    }

    /// Whether a revocation by `caller` must be recorded although its target is closed already: the user closed themself, and could
    /// reopen what an operator wants to stay closed.
    pub fn overrules(&self, caller: &Caller, target: &Target) -> bool {
        let Target::User(user) = target else { return false };
        let themself = Caller::User { user: user.clone(), issued_at: 0, only_revokes: false };
        let by_themself = |standing: &TargetStanding| standing.closed && standing.why.by == themself.scope();
        matches!(caller, Caller::Operator { .. }) && self.view().target(target).is_some_and(by_themself)
    }
}

/// Whether a caller may revoke a target. Operators may revoke anything. T13: an agent of somebody else looks as if it did not
/// exist. This is cheap, so that it can be checked before expensive work.
pub fn may_revoke(view: &impl View, caller: &Caller, target: &Target) -> Result<(), Denial> {
    match (caller, target) {
        (Caller::Operator { .. }, _) => Ok(()),
        (_, Target::Agent(uuid)) => {
            if view.agent(uuid).is_some_and(|agent| owns(caller, agent)) {
                Ok(())
            } else {
                Err(unknown_agent())
            }
        }
        (Caller::User { user, .. }, Target::User(of)) if user == of => Ok(()),
        (Caller::User { user, .. }, Target::Delegation(id)) => {
            let theirs = view.known_delegation(id).is_some_and(|delegation| delegation.user == *user);
            if theirs { Ok(()) } else { Err(unknown_delegation(id)) }
        }
        (Caller::User { .. }, _) => {
            let message = "you may revoke yourself, your delegations and the agents that act for you";
            Err(Denial::denied("ROLE_NOT_ALLOWED", message))
        }
        _ => Err(Denial::denied("ROLE_NOT_ALLOWED", "only operators revoke anything but agents")),
    }
}

/// The answer for an agent that does not exist, or that is somebody else's.
pub(crate) fn unknown_agent() -> Denial {
    Denial::new(Kind::NotFound, "AGENT_UNKNOWN", "there is no such agent, or none that you may see")
}

/// The answer for a delegation that cannot be revoked because it does not exist, or is somebody else's.
pub(super) fn unknown_delegation(id: &DelegationId) -> Denial {
    Denial::new(Kind::NotFound, "DELEGATION_UNKNOWN", format!("there is no delegation `{id}`: nothing was revoked"))
}
