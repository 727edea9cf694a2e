//! Inspect: what is known of agents, to those who may see them.

use uuid::Uuid;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Kind};
use crate::registry::state::{Agent, Standing};

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

fn visible(caller: &Caller, agent: &Agent) -> bool {
    match caller {
        Caller::Operator { .. } => true,
        Caller::Workload { .. } | Caller::Foreign { .. } => caller.is(&agent.workload),
        Caller::Agent { id, .. } => id.uuid == agent.uuid || agent.ancestors().any(|above| above == id.uuid),
        Caller::Stranger => false,
    }
}
