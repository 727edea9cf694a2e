//! Serial numbers of refused certificates that have not expired, for CRLs.

use uuid::Uuid;

use super::{Standing, State, seconds};

impl State {
    /// Serial numbers of agents' certificates that are refused at `now` (Unix microseconds), among `most` agents from `after` on;
    /// and the agent to continue after. `None` means that all agents were visited. This costs about as much as `most` look-ups.
    pub fn revoked_serials(&self, after: Option<Uuid>, most: usize, now: u64) -> (Vec<[u8; 16]>, Option<Uuid>) {
        let mut serials = Vec::new();
        let mut last = None;
        for (seen, agent) in self.agents.after(after).enumerate() {
            if seen == most {
                return (serials, last);
            }
            last = Some(agent.uuid);
            // An agent whose certificates have expired needs no entry. This is the case for most agents that have ended.
            if seconds(agent.svid_ends_at) <= now {
                continue;
            }
            if self.standing(agent, now) == Standing::Live {
                // A single key of an agent can be revoked without its others.
                serials.extend(agent.certificates(now).filter(|c| self.key_revoked(&c.key)).map(|c| c.serial));
            } else {
                serials.extend(agent.serials(now));
            }
        }
        (serials, None)
    }

    /// The same for workloads: serial numbers of certificates whose key was revoked.
    pub fn revoked_workload_serials(&self, now: u64) -> Vec<[u8; 16]> {
        let refused = self.workload_keys.iter().filter(|(key, known)| seconds(known.ends_at) > now && self.key_revoked(key));
        refused.flat_map(|(_, known)| known.serials.iter().copied()).collect()
    }
}
