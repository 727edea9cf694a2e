//! The turn of an act: it belongs to the root workload of its caller, and within that to the user whom it is for.

use std::hash::{BuildHasher, Hash, RandomState};

use mayfly_verify::{User, Workload, WorkloadName};

use super::turns::{OPERATORS, STRANGERS, Turn};
use crate::caller::Caller;
use crate::state::{Agent, State};

/// The part of acts for the workload itself.
const OWN: u64 = 2;
/// The part of acts of autonomous agents.
const AUTONOMOUS: u64 = 3;

/// The beneficiary of an act, if it does not follow from the caller.
pub enum Behalf<'a> {
    /// The caller says so.
    Caller,
    /// A user of the calling workload.
    User(&'a User),
    /// An agent whose ticket a stranger brings.
    Agent(&'a Agent),
    /// A workload whose ticket a stranger brings.
    Workload(&'a WorkloadName),
}

/// Hashes the names of roots and of their parts with a random key, so that nobody can choose a name with the hash of another.
#[derive(Default)]
pub(super) struct Whose(RandomState);

impl Whose {
    /// The turn of an act of a caller.
    pub(super) fn turn(&self, state: &State, caller: &Caller, behalf: Behalf<'_>) -> Turn {
        match (caller, behalf) {
            (Caller::Operator { .. } | Caller::Auditor { .. }, _) => OPERATORS,
            (Caller::User { user, .. }, _) => Turn { root: self.number(user), part: OWN },
            (Caller::Workload { .. } | Caller::Foreign { .. }, behalf) => Turn {
                root: self.number(caller.workload()),
                part: if let Behalf::User(user) = behalf { self.number(user) } else { OWN },
            },
            (Caller::Agent { id, .. } | Caller::Bearer { id, .. }, _) => {
                state.agent(&id.uuid).map_or(STRANGERS, |agent| self.of_agent(agent))
            }
            (Caller::Stranger, Behalf::Agent(agent)) => self.of_agent(agent),
            (Caller::Stranger, Behalf::Workload(name)) => {
                Turn { root: self.number(Some(Workload::Own(name.clone()))), part: OWN }
            }
            (Caller::Stranger | Caller::Person { .. }, _) => STRANGERS,
        }
    }

    /// The turn for batches of a caller, so that its single acts do not wait behind them.
    pub(super) fn of_batches(&self, turn: Turn) -> Turn {
        Turn { part: self.number((turn.part, "batches")), ..turn }
    }

    fn of_agent(&self, agent: &Agent) -> Turn {
        let part = agent.delegation.as_ref().map_or(AUTONOMOUS, |delegation| self.number(&delegation.user));
        Turn { root: self.number(Some(&agent.mandate.workload)), part }
    }

    fn number(&self, name: impl Hash) -> u64 {
        self.0.hash_one(name).max(AUTONOMOUS + 1)
    }
}
