//! Inspect: the agents that a caller may see, and what was revoked.

use mayfly_verify::Target;
use uuid::Uuid;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::Denial;
use crate::judge::{sees, unknown_agent};
use crate::state::{Agent, Standing, TargetStanding};

/// Agents on one page at most.
pub const PAGE: usize = 1000;

/// A page of agents in order of id, the id to continue after, and the revision at which it was read.
pub fn list(
    issuer: &Issuer,
    caller: &Caller,
    after: Option<Uuid>,
    size: usize,
    all: bool,
) -> (Vec<(Agent, Standing)>, Option<Uuid>, u64) {
    let now = issuer.clock.now();
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    issuer.ledger.read(|state| {
        let mut page = Vec::new();
        let mut last = None;
        // The look is bounded even if most agents belong to others: a page may be short and not the last.
        for (seen, agent) in state.agents_after(after).enumerate() {
            if seen == 10 * PAGE {
                return (page, last, state.revision);
            }
            let standing = state.standing(agent, now);
            if sees(caller, agent) && (all || standing == Standing::Live) {
                // T13: a full page goes on only where the caller may see more, and from what it has seen.
                if page.len() == size {
                    let last = page.last().map(|(agent, _): &(Agent, _)| agent.uuid);
                    return (page, last, state.revision);
                }
                page.push((agent.clone(), standing));
            }
            last = Some(agent.uuid);
        }
        (page, None, state.revision)
    })
}

/// One agent. T13: an agent that the caller may not see looks as if it did not exist.
pub fn get(issuer: &Issuer, caller: &Caller, agent: Uuid) -> Result<(Agent, Standing), Denial> {
    let now = issuer.clock.now();
    issuer
        .ledger
        .read(|state| state.agent(&agent).filter(|a| sees(caller, a)).map(|a| (a.clone(), state.standing(a, now))))
        .ok_or_else(unknown_agent)
}

/// A revocation, as its target is now.
pub struct Made {
    /// What was revoked.
    pub target: Target,
    /// Its standing.
    pub standing: TargetStanding,
    /// Whatever has relied on it since before this revision is dead.
    pub before: u64,
}

/// A page of what was revoked in the order of the records, the revision to continue after, and the revision at which it was read.
pub fn cuts(issuer: &Issuer, after: u64, size: usize) -> (Vec<Made>, Option<u64>, u64) {
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    issuer.ledger.read(|state| {
        let made = |(target, standing, before): (&Target, &TargetStanding, u64)| Made {
            target: target.clone(),
            standing: standing.clone(),
            before,
        };
        let mut page: Vec<Made> = state.standings_after(after).take(size + 1).map(made).collect();
        let more = page.len() > size;
        page.truncate(size);
        let next = page.last().filter(|_| more).map(|made| made.standing.revision);
        (page, next, state.revision)
    })
}
