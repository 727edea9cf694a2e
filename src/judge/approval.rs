//! Approvals: the rules of a class for acts that need a person's approval, who may answer, and what an approval covers.

use std::collections::BTreeSet;

use mayfly_verify::User;

use super::action::Action;
use super::{Check, Judgement, Rules};
use crate::caller::Caller;
use crate::denial::{Denial, Kind};
use crate::state::{Agent, Approval, Status, View};

/// One entry of `approve` of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRule {
    /// What needs approval.
    pub what: What,
    /// The audiences of the tokens that approvals give. The class need not list them among its own.
    pub audiences: BTreeSet<String>,
    /// Actions within this one need no approval. `None` means that all of them do.
    pub up_to: Option<Action>,
    /// Who may answer. Empty means the user for whom the agent acts.
    pub by: Vec<Person>,
    /// Longest time that a question may wait, in seconds.
    pub expires: u64,
    /// Seconds for which an approval can be used once it was given.
    pub lasts: u64,
    /// For how many tokens an approval is.
    pub uses: u32,
}

/// The scope or type of action that needs approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A scope, which the agents of the class have in no other way.
    Scope(String),
    /// Actions of a type.
    Action(String),
}

/// A person by the operator's name for their provider, and their subject there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The configured name of the provider.
    pub provider: String,
    /// The subject.
    pub sub: String,
}

/// How many questions may wait at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Of one agent.
    pub per_agent: u64,
    /// Of all agents of one user together.
    pub per_user: u64,
    /// Of everybody.
    pub total: u64,
}

/// The request of an agent that needs approval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub audience: String,
    /// Sorted, each once.
    pub scopes: Vec<String>,
    /// The actions.
    pub actions: Vec<Action>,
}

/// The terms on which an agent may ask for an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether somebody must approve.
    pub needed: bool,
    /// Who may answer. Empty means the user for whom the agent acts.
    pub by: Vec<Person>,
    /// Seconds for which the question waits at most.
    pub expires: u64,
    /// Seconds for which the approval can be used.
    pub lasts: u64,
    /// For how many tokens it is.
    pub uses: u32,
}

impl What {
    fn is_scope(&self, scope: &str) -> bool {
        matches!(self, What::Scope(own) if own == scope)
    }

    fn is_action(&self, of: &str) -> bool {
        matches!(self, What::Action(own) if own == of)
    }
}

/// Decides on which terms an agent may ask for an approval. `own` are the rules of its class, `above` those of the class of each
/// ancestor: an agent may ask for nothing that one of its ancestors could not ask for.
pub fn decide(own: &[ApprovalRule], above: &[&[ApprovalRule]], wanted: &Wanted) -> Result<Terms, Denial> {
    let mut terms: Option<Terms> = None;
    let scopes = wanted.scopes.iter().map(|scope| (format!("scope `{scope}`"), None, scope.as_str()));
    let actions = wanted.actions.iter().map(|action| (format!("an action `{}`", action.of()), Some(action), action.of()));
    for (name, action, item) in scopes.chain(actions) {
        let covers = |rule: &&ApprovalRule| {
            let what = if action.is_some() { rule.what.is_action(item) } else { rule.what.is_scope(item) };
            what && rule.audiences.contains(&wanted.audience)
        };
        let of = |rules: &[ApprovalRule]| rules.iter().find(covers).cloned();
        let rules: Option<Vec<ApprovalRule>> = above.iter().map(|rules| of(rules)).collect();
        let (Some(rule), Some(above)) = (of(own), rules) else {
            let audience: String = wanted.audience.chars().take(256).collect();
            let message = format!("{name} at `{audience}` is not among what this agent and those above it may ask approval for");
            return Err(Denial::denied("ACTION_NOT_ALLOWED", message));
        };
        let free = |rule: &ApprovalRule| action.zip(rule.up_to.as_ref()).is_some_and(|(action, most)| action.within(most));
        let needed = !free(&rule) || !above.iter().all(free);
        let next = Terms { needed, by: rule.by, expires: rule.expires, lasts: rule.lasts, uses: rule.uses };
        terms = Some(match terms.take() {
            None => next,
            Some(before) if before.by != next.by => {
                let message = "different people approve these: ask for each of them alone";
                return Err(Denial::denied("ACTION_NOT_ALLOWED", message));
            }
            Some(before) => Terms {
                needed: before.needed || next.needed,
                by: next.by,
                expires: before.expires.min(next.expires),
                lasts: before.lasts.min(next.lasts),
                uses: before.uses.min(next.uses),
            },
        });
    }
    terms.ok_or_else(|| Denial::malformed("ACTION_MALFORMED", "say for which actions or scopes an approval is needed"))
}

/// Whether a user may answer the question of `agent`.
pub fn may_answer(rules: &Rules, agent: &Agent, approval: &Approval, user: &User) -> bool {
    answerers(rules, agent, approval).contains(user)
}

/// The people who may answer the question of `agent`: the user for whom it acts, or those whom its class names.
pub fn answerers(rules: &Rules, agent: &Agent, approval: &Approval) -> Vec<User> {
    let Some(class) = rules.classes.get(&agent.mandate.class) else { return Vec::new() };
    let covers = |rule: &&ApprovalRule| {
        let scope = approval.scopes.iter().any(|scope| rule.what.is_scope(scope));
        (scope || approval.types.iter().any(|of| rule.what.is_action(of))) && rule.audiences.contains(&approval.audience)
    };
    let Some(rule) = class.approve.iter().find(covers) else { return Vec::new() };
    if rule.by.is_empty() {
        return approval.user.iter().cloned().collect();
    }
    let named = |person: &Person| {
        let (iss, _) = rules.issuers.iter().find(|(_, name)| **name == person.provider)?;
        Some(User { iss: iss.clone(), sub: person.sub.clone() })
    };
    rule.by.iter().filter_map(named).collect()
}

/// Whether a caller may know of an approval of an agent.
pub fn sees(rules: &Rules, caller: &Caller, agent: &Agent, approval: &Approval) -> bool {
    match caller {
        Caller::User { user, .. } => approval.user.as_ref() == Some(user) || may_answer(rules, agent, approval, user),
        _ => super::sees(caller, agent),
    }
}

/// The status of an approval at `at` (Unix microseconds). It is that of its records, unless its agent or the person who approved it
/// was revoked.
pub fn standing(view: &impl View, approval: &Approval, at: u64) -> Status {
    let status = approval.status(at);
    let lives = view.agent(&approval.agent).is_some_and(|agent| view.standing(agent, at) == crate::state::Standing::Live);
    let revoked = approval.answer.as_ref().is_some_and(|answer| {
        let target = mayfly_verify::Target::User(answer.by.clone());
        view.is_closed(&target) || view.revoked_at(&target).is_some_and(|since| since >= answer.at)
    });
    match status {
        Status::Pending | Status::Approved if !lives || revoked => Status::Revoked,
        status => status,
    }
}

impl Judgement<'_> {
    /// The terms on which an agent may ask for an approval, under the present rules.
    pub fn terms(&self, agent: &Agent, wanted: &Wanted) -> Result<Terms, Denial> {
        if let Some(delegation) = &agent.delegation {
            self.check_issuer(&delegation.user)?;
        }
        self.checking(Check::Approval);
        let classes = &self.rules().classes;
        let gone = || Denial::denied("CLASS_UNKNOWN", "the agent's class is no longer configured");
        let rules = |of: &Agent| classes.get(&of.mandate.class).map(|class| class.approve.as_slice()).ok_or_else(gone);
        let above = agent.ancestors().filter_map(|uuid| self.view().agent(&uuid)).map(rules).collect::<Result<Vec<_>, _>>()?;
        let terms = decide(rules(agent)?, &above, wanted)?;
        let limit = agent.delegation.as_ref().and_then(|delegation| delegation.scopes.as_ref());
        if let Some(excess) = wanted.scopes.iter().find(|scope| limit.is_some_and(|limit| !limit.contains(scope))) {
            let message = format!("scope `{excess}` is more than the user's delegation allows");
            return Err(Denial::denied("SCOPE_NOT_ALLOWED", message).with("excess", format!("scope:{excess}")));
        }
        if terms.by.is_empty() && agent.delegation.is_none() {
            let message = "the agent acts for nobody, and its class names nobody who approves: its owner can add `by`";
            return Err(Denial::denied("ACTION_NOT_ALLOWED", message));
        }
        Ok(terms)
    }

    /// An approval that its agent uses now, for one of its audiences. The record of the token counts the use.
    pub fn approved(&self, agent: &Agent, id: &[u8; 16]) -> Result<&Approval, Denial> {
        self.checking(Check::Approval);
        // T13: an approval of another agent looks as if it did not exist.
        let known = self.view().approval(id).filter(|approval| approval.agent == agent.uuid);
        let approval = known.ok_or_else(unknown_approval)?;
        // T182: the view includes the batch so far, so of two uses in one batch the second is denied.
        match standing(self.view(), approval, self.at()) {
            Status::Approved => Ok(approval),
            status => Err(not_approved(status)),
        }
    }
}

/// The denial for an approval that cannot be used or answered because of its status.
pub fn not_approved(status: Status) -> Denial {
    match status {
        Status::Pending => Denial::new(Kind::Precondition, "APPROVAL_PENDING", "nobody has answered yet: wait, and ask again"),
        Status::Denied => Denial::denied("APPROVAL_DENIED", "the approval was denied"),
        Status::Used => Denial::denied("APPROVAL_USED", "the approval was used as often as it was given for: ask for another"),
        // An approval that was given cannot be answered again.
        Status::Approved => {
            let message = "the approval was answered before: an answer is given once";
            Denial::new(Kind::Conflict, "APPROVAL_ANSWERED", message)
        }
        Status::Expired => {
            Denial::denied("APPROVAL_EXPIRED", "nobody answered in time, or the approval was not used in time: ask again")
        }
        Status::Revoked => {
            let message =
                "the agent, its user or who approved was revoked, or the agent has ended: nothing comes of this any more";
            Denial::denied("APPROVAL_EXPIRED", message)
        }
    }
}

/// The answer for an approval that does not exist, or of which the caller may not know.
pub fn unknown_approval() -> Denial {
    Denial::new(Kind::NotFound, "APPROVAL_UNKNOWN", "there is no such approval, or none that you may see")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::super::action::{ActionType, Catalogue, Field};
    use super::*;

    fn action(amount: &str) -> Action {
        let payment = ActionType { fields: [("amount".to_owned(), Field::Number)].into(), ..ActionType::default() };
        let catalogue: Catalogue = [("payment".to_owned(), payment)].into();
        Action::read(&catalogue, &json!({ "type": "payment", "amount": amount })).unwrap()
    }

    fn rule(up_to: Option<&str>) -> ApprovalRule {
        ApprovalRule {
            what: What::Action("payment".into()),
            audiences: ["https://bank.example".to_owned()].into(),
            up_to: up_to.map(action),
            by: vec![],
            expires: 600,
            lasts: 300,
            uses: 1,
        }
    }

    fn pays(amount: &str) -> Wanted {
        Wanted { audience: "https://bank.example".into(), scopes: vec![], actions: vec![action(amount)] }
    }

    fn needed(own: &[ApprovalRule], above: &[&[ApprovalRule]], wanted: &Wanted) -> Result<bool, &'static str> {
        decide(own, above, wanted).map(|terms| terms.needed).map_err(|denial| denial.code)
    }

    #[test]
    fn an_action_within_the_threshold_of_every_class_needs_no_approval() {
        let (low, high, none) = ([rule(Some("5"))], [rule(Some("50"))], [rule(None)]);
        assert_eq!(needed(&low, &[], &pays("5.00")), Ok(false));
        assert_eq!(needed(&low, &[], &pays("5.01")), Ok(true));
        assert_eq!(needed(&high, &[&low], &pays("6")), Ok(true), "the class of the agent above asks too");
        assert_eq!(needed(&high, &[&none], &pays("0")), Ok(true));
        let both = Wanted { actions: vec![action("1"), action("9")], ..pays("1") };
        assert_eq!(needed(&low, &[], &both), Ok(true), "one of them is enough");
    }

    #[test]
    fn t181_what_an_agent_above_could_not_ask_for_an_agent_below_cannot_either() {
        let rules = [rule(None)];
        assert_eq!(needed(&rules, &[&rules], &pays("1")), Ok(true));
        assert_eq!(needed(&rules, &[&rules, &[]], &pays("1")), Err("ACTION_NOT_ALLOWED"));
        let elsewhere = Wanted { audience: "https://shop.example".into(), ..pays("1") };
        assert_eq!(needed(&rules, &[], &elsewhere), Err("ACTION_NOT_ALLOWED"));
        let scope = Wanted { scopes: vec!["payment".into()], actions: vec![], ..pays("1") };
        assert_eq!(needed(&rules, &[], &scope), Err("ACTION_NOT_ALLOWED"), "a scope is no type of actions");
        assert_eq!(needed(&rules, &[], &Wanted { actions: vec![], ..pays("1") }), Err("ACTION_MALFORMED"));
    }

    #[test]
    fn the_strictest_terms_of_all_that_is_asked_for_hold() {
        let scope = |by: Vec<Person>| ApprovalRule { what: What::Scope("s".into()), uses: 3, lasts: 60, by, ..rule(None) };
        let wanted = Wanted { scopes: vec!["s".into()], ..pays("1") };
        let terms = decide(&[rule(None), scope(vec![])], &[], &wanted).unwrap();
        assert_eq!((terms.uses, terms.lasts, terms.needed), (1, 60, true));
        let other = vec![Person { provider: "corp".into(), sub: "alice".into() }];
        let denial = decide(&[rule(None), scope(other)], &[], &wanted).unwrap_err();
        assert_eq!(denial.code, "ACTION_NOT_ALLOWED", "one question is answered by one of the same people");
    }
}
