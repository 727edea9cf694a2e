//! Since when an agent may not act any more, by whom that was decided, and why.

use std::sync::Arc;

use super::{Agent, Standing, State, Why, seconds};

impl State {
    /// Since when, by whom and why an agent may not act any more, as far as the remaining records say. `None` for a live one.
    /// `standing` is its standing at the same time.
    pub fn over(&self, agent: &Agent, standing: Standing) -> Option<Arc<Why>> {
        let by_time = |at: u64, reason: &str| Some(Arc::new(Why { reason: reason.to_owned(), by: String::new(), at }));
        match standing {
            Standing::Live => None,
            Standing::Ended => {
                Some(Arc::new(Why { reason: String::new(), by: agent.rare.ended_by.clone(), at: agent.rare.ended_at }))
            }
            Standing::Expired => by_time(agent.acts_until(), "its certificate or its lease has ended"),
            // The first of the cuts that revoke it.
            Standing::Cut => {
                let cuts =
                    agent.stamps().filter_map(|stamp| self.cuts.get(&stamp.subject).filter(|cut| stamp.since < cut.before));
                let targets = cuts.filter_map(|cut| self.told.get(&cut.revision));
                let whys = targets.filter_map(|target| self.standings.get(target)).map(|standing| &standing.why);
                whys.min_by_key(|why| why.at).cloned()
            }
            Standing::Orphaned => {
                let above = agent.ancestors().filter_map(|above| self.agents.get(&above)).map(|above| {
                    let at = if above.rare.ended.is_some() {
                        above.rare.ended_at
                    } else {
                        seconds(above.svid_ends_at.min(above.lease_ends_at))
                    };
                    (at, above.uuid)
                });
                above.min().and_then(|(at, uuid)| by_time(at, &format!("agent {uuid} above it has ended or expired")))
            }
        }
    }
}
