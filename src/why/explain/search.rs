//! Search: the subjects, resources or actions for which the answer to a question is yes. The agents are visited page by page, each
//! page under a lock of its own, so that a search delays others only for the time of a page.

use std::collections::BTreeSet;

use mayfly_verify::{ClassName, User, Workload};
use uuid::Uuid;

use super::evaluate::{EXCHANGE, MINT, Question, Resource, SPAWN, Subject, answer, hears, hears_all};
use crate::acts::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Kind, No};
use crate::judge::Rules;
use crate::state::{Agent, Standing, State};

/// Agents that are visited under one lock.
const PAGE: usize = 100;
/// Agents that one search visits before it returns a token to continue.
const LOOKED_AT: usize = 20_000;
/// Most distinct users of live agents.
const USERS: usize = 100_000;

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Agents that may.
    Agents,
    /// Users of live agents who could.
    Users,
    /// Configured workloads that could.
    Workloads,
    /// Audiences at which it may be done.
    Audiences,
    /// Classes that may be spawned.
    Classes,
    /// What may be done.
    Actions,
}

/// Some of what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// SPIFFE IDs and names, as in questions.
    pub items: Vec<String>,
    /// The position after which the search continues. `None` if there is no more.
    pub next: Option<String>,
}

/// Searches after a position, for at most `most` results. The part of `question` that is searched for is ignored. Blocks; `awaited`
/// says whether the client still waits.
pub fn search(
    issuer: &Issuer,
    caller: &Caller,
    wanted: Wanted,
    question: &Question,
    (after, limit): (Option<&str>, usize),
    awaited: impl Fn() -> bool,
) -> Result<Found, No> {
    let rules = issuer.ledger.rules();
    let known: BTreeSet<String> = match wanted {
        Wanted::Agents => return agents(issuer, &rules, caller, question, (after, limit), awaited),
        Wanted::Users if !hears_all(&rules, caller) => BTreeSet::new(),
        Wanted::Users => users(issuer, &rules, &awaited)?,
        Wanted::Workloads => workloads(&rules),
        Wanted::Classes => rules.classes.keys().map(ToString::to_string).collect(),
        Wanted::Audiences => {
            issuer.ledger.read(|state| of_agent(state, &rules, caller, question, |agent| agent.mandate.audiences.clone()))
        }
        Wanted::Actions => match &question.resource {
            Resource::Class(_) => [SPAWN.to_owned()].into(),
            Resource::Audience(_) => issuer.ledger.read(|state| {
                of_agent(state, &rules, caller, question, |agent| {
                    let fixed = [MINT, EXCHANGE].map(str::to_owned);
                    agent.mandate.scopes.iter().cloned().chain(fixed).chain(rules.actions.keys().cloned()).collect()
                })
            }),
        },
    };
    let mut found = Found::default();
    let mut last = None;
    for name in known.into_iter().filter(|name| after.is_none_or(|after| name.as_str() > after)) {
        if found.items.len() == limit || !awaited() {
            found.next = last;
            return Ok(found);
        }
        if let Some(asked) = with(&rules, question, wanted, &name)
            && issuer.ledger.read(|state| answer(issuer, state, &rules, caller, &asked))?.allowed
        {
            found.items.push(name.clone());
        }
        last = Some(name);
    }
    Ok(found)
}

/// The question with one candidate filled in. `None` if there can be no such question.
fn with(rules: &Rules, question: &Question, wanted: Wanted, name: &str) -> Option<Question> {
    let mut asked = question.clone();
    match wanted {
        Wanted::Agents => asked.subject = Subject::Agent(name.parse().ok()?),
        Wanted::Users => asked.subject = Subject::User(user(rules, name)?),
        Wanted::Workloads => asked.subject = Subject::Workload(name.parse().ok()?),
        Wanted::Audiences => asked.resource = Resource::Audience(name.to_owned()),
        Wanted::Classes => asked.resource = Resource::Class(name.parse::<ClassName>().ok()?),
        Wanted::Actions => name.clone_into(&mut asked.action),
    }
    Some(asked)
}

/// The user named `<provider>/<sub>`, with the configured name of a provider.
pub fn user(rules: &Rules, name: &str) -> Option<User> {
    let (provider, sub) = name.split_once('/')?;
    let iss = rules.issuers.iter().find(|(_, known)| *known == provider).map(|(iss, _)| iss.clone())?;
    (!sub.is_empty() && sub.len() <= 256).then(|| User { iss, sub: sub.to_owned() })
}

fn workloads(rules: &Rules) -> BTreeSet<String> {
    let listed = rules.classes.values().flat_map(|class| &class.workloads);
    let foreign = listed.filter(|workload| matches!(workload, Workload::Foreign(_))).map(ToString::to_string);
    rules.workloads.iter().map(ToString::to_string).chain(foreign).collect()
}

/// Results about the agent of the question, if the caller may ask about it.
fn of_agent(
    state: &State,
    rules: &Rules,
    caller: &Caller,
    question: &Question,
    names: impl Fn(&Agent) -> Vec<String>,
) -> BTreeSet<String> {
    let Subject::Agent(uuid) = &question.subject else { return BTreeSet::new() };
    let agent = state.agent(uuid).filter(|agent| hears(rules, caller, agent, Some(&question.resource)));
    agent.map(names).into_iter().flatten().collect()
}

/// The users of live agents, each once.
fn users(issuer: &Issuer, rules: &Rules, awaited: impl Fn() -> bool) -> Result<BTreeSet<String>, No> {
    let (at, mut after, mut users) = (issuer.clock.now(), None, BTreeSet::new());
    while awaited() {
        let last = issuer.ledger.read(|state| {
            let mut last = None;
            for agent in state.agents_after(after).take(PAGE) {
                if let Some(delegation) = &agent.delegation
                    && state.standing(agent, at) == Standing::Live
                    && let Some(provider) = rules.issuers.get(&delegation.user.iss)
                {
                    users.insert(format!("{provider}/{}", delegation.user.sub));
                }
                last = Some(agent.uuid);
            }
            last
        });
        if users.len() > USERS {
            let message = format!("agents live of more than {USERS} users: ask about each of them");
            return Err(Denial::new(Kind::Exhausted, "BUSY", message).into());
        }
        match last {
            Some(_) => after = last,
            None => break,
        }
    }
    Ok(users)
}

fn agents(
    issuer: &Issuer,
    rules: &Rules,
    caller: &Caller,
    question: &Question,
    (after, limit): (Option<&str>, usize),
    awaited: impl Fn() -> bool,
) -> Result<Found, No> {
    let mut place = after.and_then(|after| after.parse::<Uuid>().ok());
    let mut found = Found::default();
    for _ in 0..LOOKED_AT / PAGE {
        let mut full = false;
        let more = issuer.ledger.read(|state| {
            let mut more = false;
            for agent in state.agents_after(place).take(PAGE) {
                (more, place) = (true, Some(agent.uuid));
                if hears(rules, caller, agent, Some(&question.resource)) && may_matter(rules, agent, question) {
                    let asked = Question { subject: Subject::Agent(agent.uuid), ..question.clone() };
                    if answer(issuer, state, rules, caller, &asked)?.allowed {
                        found.items.push(agent.id(&issuer.trust_domain).to_string());
                    }
                }
                full = found.items.len() == limit;
                if full {
                    break;
                }
            }
            Ok::<_, No>(more)
        })?;
        if !more {
            return Ok(found);
        }
        if full || !awaited() {
            break;
        }
    }
    found.next = place.map(|uuid| uuid.to_string());
    Ok(found)
}

/// A cheap filter: whether the answer for an agent can be yes. Its mandate rules most agents out.
fn may_matter(rules: &Rules, agent: &Agent, question: &Question) -> bool {
    let mandate = &agent.mandate;
    match &question.resource {
        Resource::Class(_) => mandate.depth_left > 0,
        Resource::Audience(audience) => {
            let scope = ![MINT, EXCHANGE].contains(&question.action.as_str()) && !rules.actions.contains_key(&question.action);
            (mandate.audiences.contains(audience) || rules.client_audience.as_ref() == Some(audience))
                && (!scope || mandate.scopes.contains(&question.action))
        }
    }
}
