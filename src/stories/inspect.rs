//! Inspect: what is known of agents, to those who may see them, and what was cut.

use mayfly_verify::Target;
use uuid::Uuid;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Kind};
use crate::registry::state::{Agent, Standing, TargetStanding};

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
    issuer.registry.read(|state| {
        let mut page = Vec::new();
        let mut last = None;
        // Bounded also where most agents are somebody else's: a page may be short and still go on.
        for (seen, agent) in state.agents_after(after).enumerate() {
            if seen == 10 * PAGE {
                return (page, last, state.revision);
            }
            let standing = state.standing(agent, now);
            if visible(caller, agent) && (all || standing == Standing::Live) {
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

/// One agent. T13: what the caller may not see looks as if it were not there.
pub fn get(issuer: &Issuer, caller: &Caller, agent: Uuid) -> Result<(Agent, Standing), Denial> {
    let now = issuer.clock.now();
    issuer
        .registry
        .read(|state| state.agent(&agent).filter(|a| visible(caller, a)).map(|a| (a.clone(), state.standing(a, now))))
        .ok_or_else(|| Denial::new(Kind::NotFound, "AGENT_UNKNOWN", "there is no such agent, or none that you may see"))
}

/// A cut as its target stands.
pub struct Made {
    /// Of whom or what.
    pub target: Target,
    /// How it stands.
    pub standing: TargetStanding,
    /// What relies on it since an earlier revision is dead.
    pub before: u64,
}

/// A page of what was cut, in the order of its records, the revision to continue after, and the one at which it was read.
pub fn cuts(issuer: &Issuer, after: u64, size: usize) -> (Vec<Made>, Option<u64>, u64) {
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    issuer.registry.read(|state| {
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

fn visible(caller: &Caller, agent: &Agent) -> bool {
    match caller {
        Caller::Operator { .. } => true,
        Caller::Workload { .. } | Caller::Foreign { .. } => caller.is(&agent.mandate.workload),
        Caller::Agent { id, .. } => id.uuid == agent.uuid || agent.ancestors().any(|above| above == id.uuid),
        Caller::Stranger | Caller::User(_) => false,
    }
}
