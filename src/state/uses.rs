//! The audiences for which an agent has had a token. They are recorded only while a policy looks at them, and kept as long as the agent.

use uuid::Uuid;

use super::{Misfit, State};
use crate::journal::record;

/// Audiences that are remembered of one agent. Any further one counts as new at each use, so a policy is asked once too often and never
/// once too seldom.
pub const MOST: usize = 64;

impl State {
    /// An agent has its first token for an audience. The row goes with the agent.
    pub(super) fn first_used(&mut self, revision: u64, first: &record::FirstUse) -> Result<(), Misfit> {
        let uuid = Uuid::from_slice(&first.agent).map_err(|_| Misfit { revision, what: "agent" })?;
        match self.agents.get_mut(&uuid) {
            Some(agent) => {
                agent.rare.used.push(first.audience.clone().into_boxed_str());
                agent.rare.rows.push(revision);
            }
            None => self.obsolete.push_back(revision),
        }
        Ok(())
    }
}
