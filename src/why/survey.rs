//! Survey: finds the live agents with some property, exactly as of one revision, while other requests wait at most for the time of
//! one page.
//!
//! ```text
//! pages of the agents, each under a lock of its own
//! then the records since the first page: the agents that they affect are checked again
//! until there are no further records: the answer is exact as of that revision
//! ```

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::acts::Issuer;
use crate::denial::Fault;
use crate::journal::{self, record::cut, record::record::Body};
use crate::ledger::Ledger;
use crate::state::{Agent, Standing, State};

/// Agents that are visited under one lock.
pub(super) const PAGE: usize = 100;
/// Rows that are read at once.
const ROWS: usize = 1000;
/// Most rounds of following new records before the answer is returned as it is.
const ROUNDS: usize = 64;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The live agents with the property, in order of id.
    pub agents: BTreeSet<Uuid>,
    /// The revision as of which the answer holds.
    pub revision: u64,
    /// Whether it holds exactly. It does not if records came faster than they could be followed.
    pub exact: bool,
    /// The time for decisions about expiry, Unix microseconds.
    pub at: u64,
}

/// The agents that new records affect.
#[derive(Default)]
struct Touched {
    agents: BTreeSet<Uuid>,
    /// Set if any agent may be affected.
    all: bool,
}

/// Visits every agent, as long as `awaited` says that the client waits. `has` is called for live agents only, under the lock of the
/// state. Blocks.
pub fn survey(issuer: &Issuer, has: impl Fn(&State, &Agent) -> bool, awaited: impl Fn() -> bool) -> Result<Found, Fault> {
    survey_at(&issuer.ledger, issuer.clock.now(), PAGE, has, awaited)
}

/// The same where `has` takes long: it is called for one agent under a lock.
pub(super) fn survey_slowly(
    issuer: &Issuer,
    has: impl Fn(&State, &Agent) -> bool,
    awaited: impl Fn() -> bool,
) -> Result<Found, Fault> {
    survey_at(&issuer.ledger, issuer.clock.now(), 1, has, awaited)
}

/// The same at a time, in Unix microseconds, with `page` agents under one lock.
pub(super) fn survey_at(
    ledger: &Ledger,
    at: u64,
    page: usize,
    has: impl Fn(&State, &Agent) -> bool,
    awaited: impl Fn() -> bool,
) -> Result<Found, Fault> {
    let look = |state: &State, agent: &Agent| state.standing(agent, at) == Standing::Live && has(state, agent);
    let mut found = Found { at, ..Found::default() };
    let mut after = None;
    found.revision = ledger.read(|state| state.revision);
    loop {
        let last = ledger.read(|state| {
            let mut last = None;
            for agent in state.agents_after(after).take(page) {
                if look(state, agent) {
                    found.agents.insert(agent.uuid);
                }
                last = Some(agent.uuid);
            }
            last
        });
        match last {
            Some(_) if awaited() => after = last,
            _ => break,
        }
    }
    for _ in 0..ROUNDS {
        let (touched, known) = touched_since(ledger, found.revision)?;
        found.revision = known;
        let again: Vec<Uuid> = touched.agents.into_iter().chain(found.agents.iter().copied().filter(|_| touched.all)).collect();
        let mut at_head = false;
        // The state is read at least once, even if nothing was affected, to find out whether there are new records.
        let pages = if again.is_empty() { 1 } else { again.len().div_ceil(page) };
        for n in 0..pages {
            ledger.read(|state| {
                at_head = state.revision == known;
                for uuid in again.iter().skip(n * page).take(page) {
                    if state.agent(uuid).is_some_and(|agent| look(state, agent)) {
                        found.agents.insert(*uuid);
                    } else {
                        found.agents.remove(uuid);
                    }
                }
            });
        }
        if at_head && pages == 1 || !awaited() {
            found.exact = at_head && pages == 1;
            return Ok(found);
        }
    }
    Ok(found)
}

/// The agents that the records after a revision affect, and the last of these records.
fn touched_since(ledger: &Ledger, revision: u64) -> Result<(Touched, u64), Fault> {
    let mut touched = Touched::default();
    let mut known = revision;
    loop {
        let rows = ledger.rows(known + 1, ROWS)?;
        if rows.is_empty() {
            return Ok((touched, known));
        }
        for (revision, row) in rows {
            known = revision;
            let record = journal::decode(&row).map_err(|e| Fault::new("survey", e))?;
            let one = match record.body {
                Some(Body::Admitted(admitted)) => Some(admitted.agent),
                Some(Body::Redeemed(redeemed)) => Some(redeemed.agent),
                Some(Body::Renewed(renewed)) => Some(renewed.agent),
                Some(Body::Used(used)) => Some(used.agent),
                Some(Body::FirstUse(first)) => Some(first.agent),
                Some(Body::Extended(extended)) => Some(extended.agent),
                Some(Body::Ended(ended)) => {
                    touched.all |= has_children(ledger, &ended.agent);
                    Some(ended.agent)
                }
                Some(Body::Cut(cut)) => match cut.target {
                    Some(cut::Target::Agent(agent)) => {
                        touched.all |= has_children(ledger, &agent);
                        Some(agent)
                    }
                    Some(cut::Target::Key(_) | cut::Target::Token(_)) | None => None,
                    Some(_) => {
                        touched.all = true;
                        None
                    }
                },
                _ => None,
            };
            touched.agents.extend(one.and_then(|uuid| Uuid::from_slice(&uuid).ok()));
        }
    }
}

fn has_children(ledger: &Ledger, agent: &[u8]) -> bool {
    let Ok(uuid) = Uuid::from_slice(agent) else { return false };
    ledger.read(|state| state.agent(&uuid).is_some_and(Agent::has_children))
}
