//! What if: the agents that a revocation would end, the subjects that would have no room under another limit, or what another set of
//! policies would take from agents. Nothing is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_verify::Target;
use parking_lot::Mutex;

use super::losses::{self, Losses};
use super::survey::{Found, survey, survey_slowly};
use crate::acts::{Issuer, revoke};
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::limits::{Limit, Spawner};
use crate::judge::{Judgement, Rules, Section, Source};
use crate::state::{Agent, State};

/// A hypothetical change.
pub enum If {
    /// A target is revoked.
    Revoke(Target),
    /// The limit with this name has this value.
    Limit(String, u64),
    /// The set of policies with these texts, by the names of their files, is in force.
    Policies(Vec<(String, String)>),
}

/// A subject of a limit that would have no room for one more agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starved {
    /// The subject, such as `user dev/demo`.
    pub whose: String,
    /// How much is used.
    pub used: u64,
    /// Number of live agents whose spawner could not spawn one more like them.
    pub agents: u64,
}

/// The answer.
pub struct Answer {
    /// The agents that would end, or that are counted for a subject without room.
    pub agents: Found,
    /// For a limit: the subjects without room, sorted by how much they have used.
    pub starved: Vec<Starved>,
    /// Where the limit is defined.
    pub source: Option<Source>,
    /// For policies: finds what each of the agents would lose.
    pub losses: Option<Losses>,
}

impl Answer {
    fn of(agents: Found) -> Answer {
        Answer { agents, starved: Vec::new(), source: None, losses: None }
    }
}

/// Answers an operator.
pub async fn what_if(issuer: &Arc<Issuer>, caller: &Caller, what: If) -> Result<Answer, No> {
    // An unknown name is probably a typing error, so it is an error and not an empty answer.
    if let If::Revoke(target) = &what {
        revoke::could(issuer, caller, target.clone()).await?;
    }
    let place = issuer.counting.place(caller)?;
    let (asking, awaited) = (Arc::clone(issuer), Arc::new(()));
    let waits = Arc::downgrade(&awaited);
    let answered = tokio::task::spawn_blocking(move || {
        let _place = place;
        let waited = || waits.strong_count() > 0;
        match what {
            If::Revoke(target) => {
                let subject = asking.ledger.read(|state| state.subject(&target));
                // Everything that relies on it now would be revoked.
                let relies = |_: &State, agent: &Agent| agent.stamps().any(|stamp| stamp.subject == subject);
                let agents = survey(&asking, relies, waited)?;
                Ok(Answer::of(agents))
            }
            If::Limit(name, most) => limit(&asking, &name, most, waited),
            If::Policies(texts) => policies(&asking, texts, waited),
        }
    });
    let answer = answered.await.map_err(|e| Fault::new("what if", e))?;
    drop(awaited);
    answer
}

fn limit(issuer: &Issuer, name: &str, most: u64, waited: impl Fn() -> bool) -> Result<Answer, No> {
    let rules = issuer.ledger.rules();
    let Some(limit) = rules.limits.iter().find(|limit| limit.name == name) else {
        let known: Vec<&str> = rules.limits.iter().map(|limit| limit.name.as_str()).collect();
        let known = if known.is_empty() { "none is".to_owned() } else { known.join(", ") };
        let message = format!("there is no limit `{name}`; configured: {known}");
        return Err(Denial::new(Kind::NotFound, "LIMIT_UNKNOWN", message).into());
    };
    let lowered = limit.of(most);
    // The subjects with their use, by their description. Each is looked up once.
    let counts: Mutex<BTreeMap<String, Starved>> = Mutex::default();
    let full = |state: &State, agent: &Agent| {
        let mut any = false;
        for (whose, used) in counted(state, issuer, &lowered, agent) {
            if used >= most {
                any = true;
                let mut counts = counts.lock();
                let starved = counts.entry(whose.clone()).or_insert(Starved { whose, used, agents: 0 });
                starved.used = used;
            }
        }
        any
    };
    let agents = survey(issuer, full, waited)?;
    let mut starved = counts.into_inner();
    // Agents are counted at the end, because the survey may visit an agent several times.
    for uuid in &agents.agents {
        let whose = issuer.ledger.read(|state| state.agent(uuid).map(|agent| counted(state, issuer, &lowered, agent)));
        for (whose, _) in whose.into_iter().flatten() {
            if let Some(starved) = starved.get_mut(&whose) {
                starved.agents += 1;
            }
        }
    }
    let mut starved: Vec<Starved> = starved.into_values().filter(|starved| starved.agents > 0).collect();
    starved.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.whose.cmp(&b.whose)));
    let source = issuer.explaining.places.of(Section::Limits, &limit.name, Some(limit.measure.as_str()));
    Ok(Answer { starved, source: Some(source), ..Answer::of(agents) })
}

fn policies(issuer: &Issuer, texts: Vec<(String, String)>, waited: impl Fn() -> bool) -> Result<Answer, No> {
    let set = losses::read(texts)?;
    let losses = Losses::new(&issuer.ledger.rules(), set, issuer.clock.now());
    let began = issuer.ledger.read(|state| state.revision);
    let mut agents = survey_slowly(issuer, |state, agent| !losses.of(state, agent, 1).is_empty(), waited)?;
    // A change of one agent changes the counts of others, which are not looked at again.
    agents.exact &= !losses.counts() || agents.revision == began;
    Ok(Answer { losses: Some(losses), ..Answer::of(agents) })
}

/// The subjects under which an agent is counted for a limit, and their use.
fn counted(state: &State, issuer: &Issuer, limit: &Limit, agent: &Agent) -> Vec<(String, u64)> {
    let spawner = Spawner {
        user: agent.delegation.as_ref().map(|delegation| delegation.user_subject()),
        workload: agent.mandate.workload_subject,
        class: agent.mandate.class_subject,
        agents: agent.lineage.as_ref().map_or(&[], |lineage| lineage.agents.as_slice()),
    };
    let rules = issuer.ledger.rules();
    Judgement::used_by(state, limit, &spawner, issuer.clock.now())
        .into_iter()
        .map(|(subject, used)| (words(&rules, agent, limit, subject), used))
        .collect()
}

/// A subject of a limit in words.
fn words(rules: &Rules, agent: &Agent, limit: &Limit, subject: mayfly_verify::Subject) -> String {
    use crate::judge::limits::Per;
    match limit.per {
        Per::User => agent.delegation.as_ref().map_or_else(String::new, |d| format!("user {}", rules.user_name(&d.user))),
        Per::Root | Per::Workload => format!("workload {}", agent.mandate.workload),
        Per::Class => format!("class {}", agent.mandate.class),
        Per::Parent => {
            let above = agent.ancestors().find(|above| Target::Agent(*above).unsalted() == subject);
            above.map_or_else(String::new, |above| format!("agent {above}"))
        }
    }
}
