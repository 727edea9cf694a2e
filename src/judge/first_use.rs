//! The first token of an agent for an audience. Policies may look at that; it is recorded only while one does, in force or in the shadow.

use uuid::Uuid;

use super::Judgement;
use crate::caller::Caller;
use crate::denial::No;
use crate::journal::record::{self, record::Body};
use crate::state::{Agent, USED_AUDIENCES};

/// Whether an agent has had no token for an audience, as far as that is recorded.
pub(super) fn is_first(agent: &Agent, audience: &str) -> bool {
    !agent.rare.used.iter().any(|used| **used == *audience)
}

impl Judgement<'_> {
    /// Records the audiences for which an agent gets its first token now.
    pub fn note_first_uses(&mut self, caller: &Caller, agent: Uuid, audiences: &[String]) -> Result<(), No> {
        let rules = self.rules();
        let looked_at = [&rules.policies, &rules.shadow].into_iter().flatten().any(|set| set.mentions().context("first_use"));
        // Nothing can be said of a token for this issuer, about which no policy is asked.
        let for_us = rules.client_audience.as_ref().is_some_and(|us| audiences == std::slice::from_ref(us));
        if !looked_at || for_us {
            return Ok(());
        }
        for audience in audiences {
            let known = self.view().agent(&agent);
            if known.is_some_and(|known| is_first(known, audience) && known.rare.used.len() < USED_AUDIENCES) {
                let first = record::FirstUse { agent: agent.as_bytes().to_vec(), audience: audience.clone() };
                self.push(caller, Body::FirstUse(first))?;
            }
        }
        Ok(())
    }
}
