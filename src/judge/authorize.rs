//! Evaluates the policies for a spawn, a mint, an exchange or a renewal, after classes, delegations and parents have allowed it.
//!
//! Without policies nothing is looked up. With policies, only attributes that some policy of the set uses are looked up.

use mayfly_verify::{AgentId, Target, Workload};

use super::budget::{Budget, Line, lines};
use super::first_use::is_first;
use super::policy::Class;
use super::{Check, Judgement, Note};
use crate::denial::Denial;
use crate::policies::{
    Action, AgentFacts, Ask, Decision, Default, Facts, Live, Mentions, Policies, Principal, Resource, UserFacts,
};
use crate::state::{Agent, Count, Delegation, Lineage, Seat, Unit};

/// The attributes of a requested agent that policies use.
pub struct Proposed<'a> {
    /// Its class.
    pub class: &'a Class,
    /// The workload at its root.
    pub workload: &'a Workload,
    /// The delegation that it would act under.
    pub delegation: Option<&'a Delegation>,
    /// Its ancestors that are agents. `None` if a workload spawns it.
    pub lineage: Option<&'a Lineage>,
    /// The scopes that it would get.
    pub scopes: &'a [String],
    /// The audiences that it would get.
    pub audiences: &'a [String],
    /// Unix seconds.
    pub lease_ends_at: u64,
}

/// A request of a live agent.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// Mint, exchange or renew.
    pub action: Action,
    /// The audience. `None` at a renewal, which is about the agent's class.
    pub audience: Option<&'a str>,
    /// The scopes that it would get.
    pub scopes: &'a [String],
    /// The audiences that it would get.
    pub audiences: &'a [String],
}

/// The subjects whose live agents are counted.
#[derive(Clone, Copy)]
struct Counted<'a> {
    workload: &'a Workload,
    delegation: Option<&'a Delegation>,
    class: &'a mayfly_verify::ClassName,
    parent: Option<uuid::Uuid>,
}

impl Judgement<'_> {
    /// Fails if policies forbid a spawn.
    pub fn policies_on_spawn(&self, new: &Proposed<'_>) -> Result<(), Denial> {
        self.each_set(
            |set, mentions| {
                let root = new.workload.to_string();
                let parent = new.lineage.and_then(|lineage| lineage.agents.split_first());
                let id = parent.map(|(parent, _)| self.spiffe_id(parent)).unwrap_or_default();
                let principal = match parent {
                    None => Principal::Workload(&root),
                    Some(((class, _), above)) => Principal::Agent(AgentFacts {
                        id: &id,
                        class: class.as_str(),
                        root: &root,
                        ancestors: self.ancestors(mentions, above),
                        depth: u32::try_from(above.len() + 1).unwrap_or(u32::MAX),
                    }),
                };
                let counted = Counted {
                    workload: new.workload,
                    delegation: new.delegation,
                    class: &new.class.name,
                    parent: parent.map(|((_, uuid), _)| *uuid),
                };
                let level = new.lineage.map_or(1, |lineage| lineage.agents.len() + 1);
                let mut facts = self.policy_facts(mentions, counted, new.scopes, new.audiences, new.lease_ends_at);
                facts.depth = u32::try_from(level).unwrap_or(u32::MAX);
                if mentions.context("left") {
                    facts.left = self.left(&new.class.name, new.workload, new.delegation, new.lineage);
                }
                if mentions.context("budget") {
                    let parent = parent.and_then(|((_, uuid), _)| self.view().agent(uuid));
                    facts.budget = self.budget_left(parent, Some(&new.class.budget));
                }
                let resource = Resource::Class(new.class.name.as_str(), &new.class.owner);
                set.decide(&Ask { action: Action::Spawn, principal, resource, facts })
            },
            Action::Spawn,
        )
    }

    /// Fails if policies forbid a request of a live agent.
    pub fn policies_on_use(&self, agent: &Agent, of: Use<'_>) -> Result<(), Denial> {
        self.each_set(
            |set, mentions| {
                let root = agent.mandate.workload.to_string();
                let id = agent.id(&self.rules().trust_domain).to_string();
                let above = agent.lineage.as_ref().map_or(&[][..], |lineage| &lineage.agents);
                let class = &agent.mandate.class;
                let principal = Principal::Agent(AgentFacts {
                    id: &id,
                    class: class.as_str(),
                    root: &root,
                    ancestors: self.ancestors(mentions, above),
                    depth: agent.depth(),
                });
                let counted = Counted {
                    workload: &agent.mandate.workload,
                    delegation: agent.delegation.as_deref(),
                    class,
                    parent: agent.parent(),
                };
                let mut facts = self.policy_facts(mentions, counted, of.scopes, of.audiences, agent.lease_ends_at);
                facts.depth = agent.depth();
                if mentions.context("budget") {
                    facts.budget = self.budget_left(Some(agent), None);
                }
                if mentions.context("first_use") {
                    facts.first_use = of.audience.map(|audience| is_first(agent, audience));
                }
                let owner = self.rules().classes.get(class).map_or("", |class| &class.owner);
                let resource = of.audience.map_or(Resource::Class(class.as_str(), owner), Resource::Audience);
                set.decide(&Ask { action: of.action, principal, resource, facts })
            },
            of.action,
        )
    }

    /// Evaluates the set in force, and leaves a note if the candidate set would have decided otherwise.
    fn each_set(&self, decide: impl Fn(&Policies, &Mentions) -> Decision, action: Action) -> Result<(), Denial> {
        let rules = self.rules();
        // Nothing is looked up for an action that no policy is about.
        let decide = |set: &Policies| set.mentions_of(action).map_or_else(|| set.unasked(), |mentions| decide(set, mentions));
        let decision = rules.policies.as_deref().map(|set| (set, decide(set)));
        if let Some(shadow) = rules.shadow.as_deref() {
            let (now, then) = (decision.as_ref().is_none_or(|(_, decision)| decision.allowed), decide(shadow));
            if now != then.allowed {
                let by = then.failed.first().or(then.policies.first()).and_then(|n| shadow.all().get(*n));
                let policy = by.map_or("no policy", |policy| &policy.id).to_owned();
                self.note(Note::ShadowDiffers { action, allowed: then.allowed, policy });
            }
        }
        let Some((set, decision)) = decision else { return Ok(()) };
        self.checking(Check::Policies);
        // The first policy that failed or decides becomes the last check, because a denial is attributed to the last check.
        for n in decision.policies.iter().rev() {
            self.checking(Check::Policy(*n));
        }
        if decision.allowed { Ok(()) } else { Err(self.refused(set, &decision)) }
    }

    fn refused(&self, set: &Policies, decision: &Decision) -> Denial {
        let at = |n: &usize| set.all().get(*n);
        if let Some(fault) = &decision.fault {
            return Denial::denied("POLICY_FAILED", format!("the policies could not be asked, so the answer is no: {fault}"));
        }
        if let Some((n, policy)) = decision.failed.first().and_then(|n| Some((*n, at(n)?))) {
            self.checking(Check::Policy(n));
            let message = format!(
                "policy `{}` of {} could not be evaluated, so the answer is no: its owner must mend it",
                policy.id, policy.owner
            );
            return Denial::denied("POLICY_FAILED", message).with("policy", &policy.id).with("owner", &policy.owner);
        }
        let denied = |id: &str, owner: &str, reason: &str, does: &str| {
            let message = format!("policy `{id}` of {owner} {does}: {reason}");
            Denial::denied("POLICY_DENIED", message).with("policy", id).with("owner", owner).with("policy_reason", reason)
        };
        match (decision.policies.first().and_then(at), set.default()) {
            (Some(policy), _) if policy.forbids => {
                let denial = denied(&policy.id, &policy.owner, &policy.reason, "forbids this");
                match &policy.contact {
                    Some(contact) => denial.with("contact", contact),
                    None => denial,
                }
            }
            (_, Default::Deny { owner, reason }) => denied("default", owner, reason, "permits only what another one does"),
            // Not reached: without a policy that forbids, the default permits.
            _ => Denial::denied("POLICY_FAILED", "the policies gave no answer"),
        }
    }

    fn spiffe_id(&self, (class, uuid): &(mayfly_verify::ClassName, uuid::Uuid)) -> String {
        AgentId { trust_domain: self.rules().trust_domain.clone(), class: class.clone(), uuid: *uuid }.to_string()
    }

    fn ancestors(&self, mentions: &Mentions, above: &[(mayfly_verify::ClassName, uuid::Uuid)]) -> Vec<String> {
        if mentions.ancestors() { above.iter().map(|agent| self.spiffe_id(agent)).collect() } else { Vec::new() }
    }

    /// The facts that all questions share. The depth is left at 0.
    fn policy_facts<'b>(
        &'b self,
        mentions: &Mentions,
        of: Counted<'b>,
        scopes: &'b [String],
        audiences: &'b [String],
        lease_ends_at: u64,
    ) -> Facts<'b> {
        let now = self.now();
        let signed_in = of.delegation.and_then(|delegation| delegation.signed_in_at);
        Facts {
            at: now,
            user: of.delegation.map(|delegation| self.user_facts(delegation)),
            depth: 0,
            scopes,
            audiences,
            lease: lease_ends_at.saturating_sub(now),
            live: if mentions.context("live") { self.live(of) } else { Live::default() },
            left: None,
            budget: [None; 3],
            acr: of.delegation.and_then(|delegation| delegation.acr.as_deref()),
            sign_in_age: signed_in.map(|at| now.saturating_sub(at)),
            first_use: None,
        }
    }

    fn user_facts<'b>(&'b self, delegation: &'b Delegation) -> UserFacts<'b> {
        let user = &delegation.user;
        let provider = self.rules().issuers.get(&user.iss).unwrap_or(&user.iss);
        UserFacts { provider, sub: &user.sub, groups: &delegation.groups }
    }

    /// What an agent may still spend of each unit. With `own`, what a new agent below it with that budget may.
    fn budget_left(&self, agent: Option<&Agent>, own: Option<&Budget>) -> [Option<u64>; 3] {
        Unit::ALL.map(|unit| {
            let lines = agent.map(|agent| lines(self.view(), self.rules(), agent, unit, self.at())).unwrap_or_default();
            lines.iter().filter_map(Line::left).chain(own.and_then(|own| own.of(unit))).min()
        })
    }

    fn live(&self, of: Counted<'_>) -> Live {
        let seats = |count, subject| self.view().seats(Seat(count, subject));
        let workload = self.view().subject(&Target::Workload(of.workload.clone()));
        let spawner = of.parent.map_or(workload, |parent| Target::Agent(parent).unsalted());
        Live {
            user: of.delegation.map_or(0, |delegation| seats(Count::Below, delegation.user_subject())),
            root: seats(Count::Below, workload),
            class: seats(Count::OfClass, self.view().subject(&Target::Class(of.class.clone()))),
            siblings: seats(Count::DirectlyBelow, spawner),
        }
    }
}
