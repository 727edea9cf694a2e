//! Who can: the live agents that may use a scope now, and the classes, spawners and providers through which there could be more.

use std::sync::Arc;

use mayfly_verify::{ClassName, Mode, Target, User};

use super::survey::{Found, PAGE, survey_at};
use crate::acts::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, No};
use crate::judge::policy::{Class, decide_again};
use crate::judge::{Rules, Section, Source};
use crate::ledger::Ledger;
use crate::state::{Agent, State, View};

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The scope.
    pub scope: String,
    /// An audience that they may mint tokens for too; empty for any.
    pub audience: String,
    /// For whom; `None`: anybody.
    pub user: Option<User>,
    /// Their class. `None` for any.
    pub class: Option<ClassName>,
}

/// A way to get an agent with the scope.
#[derive(Clone, Debug)]
pub struct Could {
    /// Of this class.
    pub class: ClassName,
    /// Whether the agent would act for a user or for nobody.
    pub mode: Mode,
    /// The name of the provider of its users; empty for autonomous agents.
    pub provider: String,
    /// The audience of the users' tokens.
    pub audience: String,
    /// The possible spawners: `workload/<name>`, a SPIFFE ID or `class/<name>`.
    pub spawners: Vec<String>,
    /// Where the scope is allowed in the class.
    pub source: Source,
}

/// The answer.
pub struct Answer {
    /// The agents that may use the scope now.
    pub now: Found,
    /// The ways to get further agents.
    pub could: Vec<Could>,
}

/// Answers an operator.
pub async fn who_can(issuer: &Arc<Issuer>, caller: &Caller, question: Question) -> Result<Answer, No> {
    if question.scope.is_empty() || question.scope.len() > 128 || question.audience.len() > 256 {
        let message = "name a scope of 1 to 128 characters, and an audience of at most 256";
        return Err(Denial::malformed("FILTER_MALFORMED", message).into());
    }
    let place = issuer.counting.place(caller)?;
    let (asking, awaited) = (Arc::clone(issuer), Arc::new(()));
    let waits = Arc::downgrade(&awaited);
    let answered = tokio::task::spawn_blocking(move || {
        let _place = place;
        let rules = asking.ledger.rules();
        let now = now(&asking.ledger, &rules, asking.clock.now(), &question, || waits.strong_count() > 0)?;
        let could = asking.ledger.read(|state| could(&asking, state, &question));
        Ok::<_, Fault>(Answer { now, could })
    });
    let answer = answered.await.map_err(|e| Fault::new("who can", e))??;
    drop(awaited);
    Ok(answer)
}

/// The live agents that may use the scope at a time, in Unix microseconds. Blocks; `awaited` says whether the client still waits.
pub fn now(ledger: &Ledger, rules: &Rules, at: u64, question: &Question, awaited: impl Fn() -> bool) -> Result<Found, Fault> {
    survey_at(ledger, at, PAGE, |state, agent| may(state, rules, agent, question), awaited)
}

/// Whether a live agent may use the scope: it has the scope, and its class and those of its ancestors still allow it.
fn may(state: &State, rules: &Rules, agent: &Agent, question: &Question) -> bool {
    // Checked first, because this is cheap and rules out most agents.
    if !agent.mandate.scopes.contains(&question.scope) {
        return false;
    }
    let user = agent.delegation.as_ref().map(|delegation| &delegation.user);
    if question.class.as_ref().is_some_and(|class| agent.mandate.class != *class)
        || question.user.is_some() && user != question.user.as_ref()
        || user.is_some_and(|user| !rules.issuers.contains_key(&user.iss))
    {
        return false;
    }
    let left = |agent: &Agent| {
        let class = rules.classes.get(&agent.mandate.class);
        decide_again(class, &agent.mandate.scopes, &agent.mandate.audiences).is_ok_and(|kept| {
            kept.scopes.contains(&question.scope) && (question.audience.is_empty() || kept.audiences.contains(&question.audience))
        })
    };
    left(agent) && agent.ancestors().filter_map(|above| state.agent(&above)).all(left)
}

/// The ways to get such an agent: each class that allows the scope, with its open spawners and the providers whose tokens they may
/// present.
fn could(issuer: &Issuer, state: &State, question: &Question) -> Vec<Could> {
    let (rules, places) = (issuer.ledger.rules(), &issuer.explaining.places);
    let mut all = Vec::new();
    let closed =
        |user: &User| [Target::User(user.clone()), Target::Issuer(user.iss.clone())].iter().any(|target| state.is_closed(target));
    if question.user.as_ref().is_some_and(closed) {
        return all;
    }
    let allows = |class: &&Class| {
        question.class.as_ref().is_none_or(|wanted| class.name == *wanted)
            && class.scopes.contains(&question.scope)
            && (question.audience.is_empty() || class.audiences.contains(&question.audience))
            && !state.is_closed(&Target::Class(class.name.clone()))
    };
    for class in rules.classes.values().filter(allows) {
        let source = places.of(Section::Classes, class.name.as_str(), Some("scopes"));
        let open: Vec<_> = class.workloads.iter().filter(|w| !state.is_closed(&Target::Workload((*w).clone()))).collect();
        let row = |mode, provider: &str, audience: &str, spawners: Vec<String>| Could {
            class: class.name.clone(),
            mode,
            provider: provider.to_owned(),
            audience: audience.to_owned(),
            spawners,
            source: source.clone(),
        };
        if class.modes.contains(&Mode::Delegated) {
            for provider in &issuer.explaining.providers {
                let theirs = question.user.as_ref().is_none_or(|user| user.iss == provider.iss);
                let allowed = provider.scopes.as_ref().is_none_or(|scopes| scopes.contains(&question.scope));
                let by = open.iter().filter(|workload| provider.workloads.contains(workload));
                let by: Vec<String> = by.map(|workload| spawner(workload)).collect();
                if theirs && allowed && !by.is_empty() {
                    all.push(row(Mode::Delegated, &provider.name, &provider.audience, by));
                }
            }
        }
        if class.modes.contains(&Mode::Autonomous) && question.user.is_none() && !open.is_empty() {
            all.push(row(Mode::Autonomous, "", "", open.iter().map(|workload| spawner(workload)).collect()));
        }
        // A child can have the scope only if its parent can, so a spawning class must allow it too.
        let above =
            class.classes.iter().filter(|parent| rules.classes.get(*parent).is_some_and(|p| p.scopes.contains(&question.scope)));
        let above: Vec<String> = above.map(|parent| format!("class/{parent}")).collect();
        if !above.is_empty() {
            let modes = class.modes.iter().filter(|mode| **mode == Mode::Delegated || question.user.is_none());
            all.extend(modes.map(|mode| row(*mode, "", "", above.clone())));
        }
    }
    all
}

fn spawner(workload: &mayfly_verify::Workload) -> String {
    match workload {
        mayfly_verify::Workload::Own(name) => format!("workload/{name}"),
        foreign @ mayfly_verify::Workload::Foreign(_) => foreign.to_string(),
    }
}
