//! Explain: why something is allowed or denied, where that is defined, and what would change the answer. Nothing is recorded or
//! signed, and no limit is charged.
//!
//! ```text
//! spawn ── case ── judged on the state ── rows, parts, uses          the explanation
//!            └─ candidates ── flip: judged again with each set       what would change the answer
//! agent, credential ── `Hold` judged as the agent ── the same
//! ```

mod agent;
pub mod candidates;
pub mod change;
mod decision;
pub mod evaluate;
pub mod flip;
mod parts;
mod question;
mod rows;
pub mod search;
mod steps;
pub mod told;

use std::sync::Arc;

use crate::acts::Issuer;
use crate::acts::spawn::{self, Spawn, SpawnRequest};
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::{Check, Judgement, Places, Usage};
use crate::state::State;
use candidates::{candidates, matters, uses};
use change::{Case, Change};
use rows::Matter;
use told::Explanation;

/// Most sets of changes that are judged for one explanation.
const SETS: usize = 512;
/// How often an explanation is started again because there were new records.
const AGAIN: usize = 3;

/// What is to be explained.
pub enum What {
    /// An agent, by its SPIFFE ID or UUID.
    Agent(String),
    /// The certificates of an X.509-SVID in DER, the leaf first.
    Certificates(Vec<Vec<u8>>),
    /// A JWT-SVID or an access token.
    Token(String),
    /// A decision, by its id in the history.
    Decision(String),
    /// A spawn, which is not carried out.
    Spawn(Box<SpawnRequest>),
}

/// Explains, within the limits of what the caller may know.
pub async fn explain(issuer: &Arc<Issuer>, caller: Caller, what: What) -> Result<Explanation, No> {
    let _turn = issuer.explaining.turn(&caller).await?;
    let operator = caller.reads_everything();
    let explained = match what {
        What::Agent(id) => agent::agent(issuer, &caller, &id)?,
        What::Certificates(chain) => agent::certificates(issuer, &caller, &chain)?,
        What::Token(token) => agent::token(issuer, &caller, &token).await?,
        What::Decision(id) => decision::decision(issuer, &caller, &id).await?,
        What::Spawn(request) => spawn(issuer, caller, *request).await?,
    };
    Ok(if operator { explained } else { explained.for_caller() })
}

async fn spawn(issuer: &Arc<Issuer>, caller: Caller, request: SpawnRequest) -> Result<Explanation, No> {
    // An operator who is a workload asks as the workload, because operators cannot spawn.
    let caller = match caller {
        Caller::Operator { by: Some(by), .. } | Caller::Auditor { by: Some(by), .. } if by.workload().is_some() => *by,
        Caller::Operator { .. } | Caller::Auditor { .. } => {
            let message = "operators spawn nothing: ask as the workload or the agent that would, with its identity";
            return Err(Denial::denied("ROLE_NOT_ALLOWED", message).into());
        }
        other => other,
    };
    let act = match spawn::question(issuer, &caller, &request).await {
        Ok(act) => act,
        // The token itself is refused, and nothing else can be judged without its user.
        Err(No::Denial(denial)) if denial.kind == Kind::Denied => return Ok(refused_token(issuer, &caller, request, denial)),
        Err(other) => return Err(other),
    };
    let issuer = Arc::clone(issuer);
    let explained = tokio::task::spawn_blocking(move || {
        let case = issuer.ledger.read(|state| Case::new(act, caller, &issuer.ledger.rules(), state, issuer.clock.now()));
        let read = |look: &mut dyn FnMut(&State)| issuer.ledger.read(|state| look(state));
        of_case(&case, &issuer.explaining.places, read)
    });
    Ok(explained.await.map_err(|e| Fault::new("explain", e))??)
}

/// Explains a case, and what would change a denial. `read` gives access to the state for one judgement at a time. If the state
/// changes in between, the explanation starts again.
pub fn of_case(case: &Case, places: &Places, read: impl Fn(&mut dyn FnMut(&State))) -> Result<Explanation, Fault> {
    for attempt in 0..=AGAIN {
        let mut first = None;
        read(&mut |state| first = Some(look(case, places, state)));
        let (mut explained, changes, check) = first.ok_or_else(|| Fault::new("explain", "the state was not read"))??;
        let Some(denial) = explained.denial.clone() else { return Ok(explained) };
        let mut moved = false;
        let found = flip::smallest(
            changes.len(),
            (check, denial),
            SETS,
            |change, (check, _)| changes.get(change).is_some_and(|change| matters(change, *check, &case.rules)),
            |set| {
                let turned = case.with(set.iter().filter_map(|n| changes.get(*n)));
                let mut judged = Ok(());
                read(&mut |state| {
                    moved |= state.revision != explained.revision;
                    judged = outcome(&turned, state);
                });
                judged
            },
        );
        // The last attempt is returned as it is. Each set in it was proved, but not all at the same revision.
        if moved && attempt < AGAIN {
            continue;
        }
        let steps = |set: &Vec<usize>| {
            set.iter().filter_map(|n| changes.get(*n)).map(|change| steps::step(change, case, places)).collect()
        };
        explained.flip = found.sets.iter().map(steps).collect();
        explained.complete = found.complete && !moved;
        return Ok(explained);
    }
    Err(Fault::new("explain", "no attempt was the last"))
}

/// The verdict on a case without an explanation: the check that failed and the denial.
pub fn outcome(case: &Case, state: &State) -> Result<(), (Check, Denial)> {
    case.judge(state, |_, verdict| match &verdict.result {
        Err(No::Denial(denial)) => Err((verdict.checks.last().copied().unwrap_or(Check::Caller), denial.clone())),
        // A fault is not about the request, so no change of the request helps.
        Err(No::Fault(_)) => Err((Check::TargetKnown, Denial::new(Kind::Exhausted, "BUSY", "the judgement failed"))),
        Ok(_) => Ok(()),
    })
}

type Looked = Result<(Explanation, Vec<Change>, Check), Fault>;

/// Judges a case on a state, and explains the verdict.
fn look(case: &Case, places: &Places, state: &State) -> Looked {
    case.judge(state, |j, verdict| {
        let denial = match &verdict.result {
            Ok(_) => None,
            Err(No::Denial(denial)) => Some(denial.clone()),
            Err(No::Fault(fault)) => return Err(Fault::new("explain", fault)),
        };
        let check = verdict.checks.last().copied().unwrap_or(Check::Caller);
        let changes = if denial.is_some() { candidates(j, case) } else { Vec::new() };
        Ok((tell(j, case, places, &verdict.checks, denial), changes, check))
    })
}

fn tell(j: &Judgement<'_>, case: &Case, places: &Places, checks: &[Check], denial: Option<Denial>) -> Explanation {
    let uses = uses(j, case);
    let matter = matter(j, case, places, &uses);
    let (scopes, audiences) = parts::of_spawn(j, &matter, case.granted());
    // Spends of the new agent are charged to its parent's budget too.
    let budgets = matter.agent.map(|parent| rows::budgets(j, places, parent)).unwrap_or_default();
    Explanation {
        about: about(&case.act, &case.caller),
        checks: rows::rows(j, &matter, checks, denial.is_none()),
        scopes,
        audiences,
        limits: uses.iter().filter_map(|of| rows::used(j, places, of)).chain(budgets).collect(),
        policies: rows::policies(j, checks),
        denial,
        complete: true,
        revision: j.view().base().revision,
        at: j.at(),
        ..Explanation::default()
    }
}

/// The subjects of the checks of a spawn.
fn matter<'a>(j: &'a Judgement<'_>, case: &'a Case, places: &'a Places, uses: &'a [Usage]) -> Matter<'a> {
    let parent = case.parent(j);
    let inherited = parent.and_then(|parent| parent.delegation.as_deref());
    Matter {
        places,
        caller: &case.caller,
        operator: false,
        class: Some(&case.act.class),
        workload: parent.map(|parent| parent.mandate.workload.clone()).or_else(|| case.caller.workload()),
        user: inherited.map(|delegation| delegation.user.clone()).or_else(|| case.user().cloned()),
        delegation: inherited.or(case.known.as_deref()),
        asked: Some(&case.act.asked),
        audience: case.act.audience.as_deref(),
        agent: parent,
        uses,
    }
}

fn about(act: &Spawn, caller: &Caller) -> String {
    format!("spawn of class {} by {}", act.class, caller.scope())
}

/// The explanation of a spawn whose user token is refused before anything is judged.
fn refused_token(issuer: &Issuer, caller: &Caller, request: SpawnRequest, denial: Denial) -> Explanation {
    let act = spawn::asked(request, None);
    issuer.ledger.read(|state| {
        let case = Case::new(act, caller.clone(), &issuer.ledger.rules(), state, issuer.clock.now());
        case.judge(state, |j, _| {
            let checks = [Check::Caller, Check::Request, Check::ClassKnown, Check::Grant];
            let mut explained = tell(j, &case, &issuer.explaining.places, &checks, Some(denial));
            if let Some(row) = explained.checks.last_mut() {
                row.saw = "a user token that was not accepted".to_owned();
                row.source = issuer.explaining.places.elsewhere("issuers");
            }
            // No changes were tried, because without a user nothing can be judged.
            explained.complete = false;
            explained
        })
    })
}
