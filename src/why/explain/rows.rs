//! The rows of an explanation: the inputs of each check, where they are defined, and who owns them.

use std::sync::Arc;

use mayfly_verify::{ClassName, Target, Workload};

use super::told::{Row, Used};
use crate::caller::Caller;
use crate::clock::{SECOND, rfc3339};
use crate::judge::budget::{Line, lines};
use crate::judge::policy::Asked;
use crate::judge::{Check, Defined, Judgement, Places, Rules, Section, Source, Usage};
use crate::state::{Agent, Delegation, Unit, View};

/// The subjects of the checks of one verdict.
pub(super) struct Matter<'a> {
    pub(super) places: &'a Places,
    pub(super) caller: &'a Caller,
    /// Whether an operator asks, who is also told who revoked something and why.
    pub(super) operator: bool,
    pub(super) class: Option<&'a ClassName>,
    pub(super) workload: Option<Workload>,
    /// The user, and the delegation that is recorded already.
    pub(super) user: Option<mayfly_verify::User>,
    pub(super) delegation: Option<&'a Delegation>,
    pub(super) asked: Option<&'a Asked>,
    pub(super) audience: Option<&'a str>,
    /// The agent that is explained, or that spawns.
    pub(super) agent: Option<&'a Agent>,
    pub(super) uses: &'a [Usage],
}

/// The rows of the checks of a verdict.
pub(super) fn rows(j: &Judgement<'_>, matter: &Matter<'_>, checks: &[Check], allowed: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (at, check) in checks.iter().enumerate() {
        let passed = allowed || at + 1 < checks.len();
        let (saw, source) = matter.row(j, *check);
        let row = Row { check: check.as_str(), passed, saw, source };
        // A check that has several parts is one row.
        match rows.last_mut() {
            Some(last) if last.check == row.check && last.saw == row.saw => *last = row,
            _ => rows.push(row),
        }
    }
    rows
}

/// The policies among the checks, by their ids.
pub(super) fn policies(j: &Judgement<'_>, checks: &[Check]) -> Vec<(String, Source)> {
    let index = |check: &Check| if let Check::Policy(index) = check { Some(*index) } else { None };
    checks.iter().filter_map(index).filter_map(|index| policy(j, index)).collect()
}

fn policy(j: &Judgement<'_>, index: usize) -> Option<(String, Source)> {
    let policy = j.rules().policies.as_ref()?.all().get(index)?;
    let key = format!("policy {}", policy.id);
    Some((policy.id.clone(), Source { at: policy.place(), key, owner: policy.owner.clone() }))
}

/// The budgets from which an agent spends, its own first: the amounts that are spent or reserved in each account with a limit.
pub(super) fn budgets(j: &Judgement<'_>, places: &Places, agent: &Agent) -> Vec<Used> {
    let used = |line: Line| {
        let limit = line.limit?;
        let unit = line.unit.as_str();
        let whose = if line.agent == agent.uuid { String::new() } else { format!(" of agent {}", line.agent) };
        let source = places.of(Section::Classes, line.class.as_str(), Some("budget"));
        let used = Some(line.spent.saturating_add(line.held));
        Some(Used { name: format!("budget.{unit}{whose}"), per: "agent", measure: unit, used, limit, source })
    };
    Unit::ALL.into_iter().flat_map(|unit| lines(j.view(), j.rules(), agent, unit, j.at())).filter_map(used).collect()
}

/// A limit with what is used of it.
pub(super) fn used(j: &Judgement<'_>, places: &Places, of: &Usage) -> Option<Used> {
    let limit = j.rules().limits.get(of.limit)?;
    let source = places.of(Section::Limits, &limit.name, Some(limit.measure.as_str()));
    let (per, measure) = (limit.per.as_str(), limit.measure.as_str());
    Some(Used { name: limit.name.clone(), per, measure, used: Some(of.used), limit: of.most, source })
}

impl Matter<'_> {
    /// A key of the class.
    pub(super) fn class(&self, key: Option<&str>) -> Source {
        match self.class {
            Some(class) => self.places.of(Section::Classes, class.as_str(), key),
            None => self.places.elsewhere("classes"),
        }
    }

    /// The delegation, or the user token that would record one.
    pub(super) fn grant(&self, rules: &Rules) -> Source {
        let owner = self.user.as_ref().map(|user| format!("user {}", rules.user_name(user)));
        // The grant of a child is its parent.
        match (self.delegation.filter(|_| self.asked.is_none() || self.agent.is_none()), self.agent) {
            (Some(delegation), _) => self.places.record(format!("delegation {}", delegation.id), owner.as_deref()),
            (None, Some(agent)) => {
                let class = self.places.of(Section::Classes, agent.mandate.class.as_str(), None);
                self.places.record(format!("admission r{} of agent {}", agent.revision, agent.uuid), Some(&class.owner))
            }
            (None, None) => self.places.record("user token".to_owned(), owner.as_deref()),
        }
    }

    fn workload(&self) -> Source {
        match &self.workload {
            Some(Workload::Own(name)) => self.places.of(Section::Workloads, name.as_str(), None),
            Some(Workload::Foreign(_)) | None => self.places.elsewhere("foreign"),
        }
    }

    /// The caller and its source: for an agent its admission, or the revocation if it was revoked.
    fn caller(&self, j: &Judgement<'_>) -> (String, Source) {
        let (Caller::Agent { id, .. } | Caller::Bearer { id, .. }) = self.caller else {
            return (self.caller.scope(), self.workload());
        };
        let Some(agent) = j.view().agent(&id.uuid) else {
            return (id.to_string(), self.places.record("journal".to_owned(), None));
        };
        let class = self.places.of(Section::Classes, agent.mandate.class.as_str(), None);
        let standing = View::standing(j.view(), agent, j.at());
        let Some(why) = j.view().base().over(agent, standing) else {
            // It presents nothing itself: whoever looks for its certificate finds that of its parent.
            let part = if agent.is_keyless() { ", without a key: its parent presents" } else { "" };
            return (
                format!("{id}, live{part}"),
                self.places.record(format!("admission r{}", agent.revision), Some(&class.owner)),
            );
        };
        let since = rfc3339(why.at / SECOND);
        let said = standing.refusal().map_or("", |(_, message)| message);
        let saw = if self.operator && !why.reason.is_empty() {
            format!("{id}: {said}, since {since}: {}", why.reason)
        } else {
            format!("{id}: {said}, since {since}")
        };
        let by = if self.operator && !why.by.is_empty() { Some(why.by.as_str()) } else { None };
        let record = match revocation_of(j, agent) {
            Some((revision, target)) => format!("revocation r{revision} of {target}"),
            None => format!("admission r{}, which has ended", agent.revision),
        };
        (saw, self.places.record(record, by.or(Some(&class.owner))))
    }

    /// Whether a target is open, and the record that says so.
    fn open(&self, j: &Judgement<'_>, target: &Target, what: &str, otherwise: Source) -> (String, Source) {
        match j.view().target(target) {
            Some(standing) if standing.closed => {
                let by = if self.operator { Some(standing.why.by.as_str()) } else { None };
                let source = self.places.record(format!("revocation r{}", standing.revision), by);
                let why = if self.operator { format!(": {}", standing.why.reason) } else { String::new() };
                (format!("{what} was revoked{why}"), source)
            }
            _ => (format!("{what} is open"), otherwise),
        }
    }

    fn row(&self, j: &Judgement<'_>, check: Check) -> (String, Source) {
        let class = self.class.map(ToString::to_string).unwrap_or_default();
        match check {
            Check::Caller => self.caller(j),
            Check::Request => {
                ("no request id: nothing is asked for again".to_owned(), self.places.record("protocol".to_owned(), None))
            }
            Check::ClassKnown => {
                let known = self.class.is_some_and(|class| j.rules().classes.contains_key(class));
                (format!("class `{class}` is {}configured", if known { "" } else { "not " }), self.class(None))
            }
            Check::ClassOpen => match self.class {
                Some(name) => self.open(j, &Target::Class(name.clone()), &format!("class `{class}`"), self.class(None)),
                None => (String::new(), self.class(None)),
            },
            Check::WorkloadOpen | Check::WorkloadKnown => match &self.workload {
                Some(name) => self.open(j, &Target::Workload(name.clone()), &format!("workload `{name}`"), self.workload()),
                None => (String::new(), self.workload()),
            },
            Check::Grant => self.granted(j),
            Check::Authority | Check::AuthorityLeft => (self.authority(j), self.class(None)),
            Check::Audience => {
                let audience = self.audience.unwrap_or("the audience");
                (format!("{audience} among the audiences of class `{class}`"), self.class(Some("audiences")))
            }
            Check::Limit(index) => self.limit(j, index),
            Check::Lifetime => {
                let until = self.agent.map_or(0, |agent| agent.lease_ends_at);
                let saw = if until == 0 {
                    "lease, class and signing authority".to_owned()
                } else {
                    format!("a lease until {}", rfc3339(until))
                };
                (saw, self.class(Some("svid_ttl")))
            }
            _ => {
                let source = match check.defined_in() {
                    Defined::Class | Defined::ClassAndGrant => self.class(None),
                    Defined::Configuration => self.places.elsewhere("configuration"),
                    Defined::Policies => self.places.elsewhere("policy"),
                    Defined::Policy(index) => {
                        policy(j, index).map_or_else(|| self.places.elsewhere("policy"), |(_, source)| source)
                    }
                    Defined::Journal => self.places.record("journal".to_owned(), None),
                    Defined::Protocol | Defined::Limit(_) => self.places.record("protocol".to_owned(), None),
                };
                (check.looks_at().to_owned(), source)
            }
        }
    }

    fn granted(&self, j: &Judgement<'_>) -> (String, Source) {
        let Some(user) = &self.user else {
            return ("nobody: the agent would be autonomous".to_owned(), self.class(Some("modes")));
        };
        let name = j.rules().issuers.get(&user.iss);
        let Some(name) = name else {
            return (format!("the provider `{}` is not configured", user.iss), self.places.elsewhere("issuers"));
        };
        let until = self.delegation.map(|d| format!(", until {}", rfc3339(d.ends_at / SECOND))).unwrap_or_default();
        let target = Target::User(user.clone());
        let source = self.grant(j.rules());
        let what = match self.delegation {
            Some(d) => format!("user {name}/{} with delegation {}{until}: the user", user.sub, d.id),
            None => format!("user {name}/{} with a token: the user", user.sub),
        };
        if let Some(killed) = self.delegation.filter(|d| d.stamps().iter().any(|stamp| j.view().kills(stamp))) {
            let of_issuer = Target::Issuer(user.iss.clone());
            let revoked =
                [&Target::Delegation(killed.id), &target, &of_issuer].into_iter().find_map(|target| j.view().target(target));
            if let Some(standing) = revoked.filter(|standing| !standing.closed) {
                let by = if self.operator { Some(standing.why.by.as_str()) } else { None };
                return (
                    format!("delegation {} was revoked", killed.id),
                    self.places.record(format!("revocation r{}", standing.revision), by),
                );
            }
        }
        let of_issuer = Target::Issuer(user.iss.clone());
        if j.view().is_closed(&of_issuer) {
            return self.open(
                j,
                &of_issuer,
                &format!("{}: the issuer of users {name}", what.trim_end_matches(": the user")),
                source,
            );
        }
        self.open(j, &target, &what, source)
    }

    fn authority(&self, j: &Judgement<'_>) -> String {
        let list = |items: &[String]| if items.is_empty() { "everything that is allowed".to_owned() } else { items.join(" ") };
        let class = self.class.and_then(|class| j.rules().classes.get(class));
        let allows =
            class.map_or_else(|| "nothing".to_owned(), |class| class.scopes.iter().cloned().collect::<Vec<_>>().join(" "));
        match (self.asked, self.agent) {
            (Some(asked), _) => {
                let lease = if asked.lease > 0 { format!(", a lease of {} s", asked.lease) } else { String::new() };
                let depth = asked.depth.map(|depth| format!(", {depth} levels below")).unwrap_or_default();
                format!(
                    "asked for {}{lease}{depth}; class `{}` allows {allows}",
                    list(&asked.scopes),
                    self.class.map(ToString::to_string).unwrap_or_default()
                )
            }
            (None, Some(agent)) => {
                format!("holds {}; class `{}` allows {allows} now", list(&agent.mandate.scopes), agent.mandate.class)
            }
            (None, None) => String::new(),
        }
    }

    fn limit(&self, j: &Judgement<'_>, index: usize) -> (String, Source) {
        let Some(limit) = j.rules().limits.get(index) else { return (String::new(), self.places.elsewhere("limits")) };
        let source = self.places.of(Section::Limits, &limit.name, Some(limit.measure.as_str()));
        let (measure, per) = (limit.measure.as_str(), limit.per.as_str());
        let saw = match self.uses.iter().find(|of| of.limit == index) {
            Some(of) if self.operator || !matches!(per, "user" | "class") => {
                format!("{measure} per {per}: {} of {} used", of.used, of.most)
            }
            Some(of) => format!("{measure} per {per}: at most {}", of.most),
            None => format!("{measure} per {per}: does not apply"),
        };
        (saw, source)
    }
}

/// The revocation that ended an agent: its revision, and its target.
fn revocation_of(j: &Judgement<'_>, agent: &Agent) -> Option<(u64, String)> {
    let granted =
        |d: &Arc<Delegation>| [Target::User(d.user.clone()), Target::Issuer(d.user.iss.clone()), Target::Delegation(d.id)];
    let user = agent.delegation.iter().flat_map(granted);
    let above = agent.ancestors().map(Target::Agent);
    let all = [
        Target::Agent(agent.uuid),
        Target::Class(agent.mandate.class.clone()),
        Target::Workload(agent.mandate.workload.clone()),
        Target::TrustDomain,
    ];
    let targets = all.into_iter().chain(user).chain(above);
    let stamps: Vec<_> = agent.stamps().filter(|stamp| j.view().kills(stamp)).collect();
    let killing = targets.filter(|target| stamps.iter().any(|stamp| stamp.subject == j.view().subject(target)));
    let records =
        killing.filter_map(|target| j.view().target(&target).map(|standing| (standing.revision, named(&target, j.rules()))));
    records.min()
}

/// A target in words.
pub(super) fn named(target: &Target, rules: &Rules) -> String {
    match target {
        Target::User(user) => format!("user {}", rules.user_name(user)),
        Target::Issuer(iss) => format!("the issuer of users {iss}"),
        Target::Delegation(id) => format!("delegation {id}"),
        Target::Workload(workload) => format!("workload {workload}"),
        Target::Class(class) => format!("class {class}"),
        Target::Agent(uuid) => format!("agent {uuid}"),
        Target::Key(key) => format!("key {}", hex::encode(key)),
        Target::TrustDomain => "the trust domain".to_owned(),
        _ => "this target".to_owned(),
    }
}
