//! End: an agent ends, by itself or by somebody whose it is.

use mayfly_verify::{AgentId, Target};
use uuid::Uuid;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Chance, Judgement};
use crate::ledger::Lane;
use crate::pipeline::Record;

/// An end.
#[derive(Clone, Debug)]
pub struct End {
    /// The agent. `None` is the caller itself.
    pub agent: Option<Uuid>,
}

/// An agent that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The agent.
    pub agent: AgentId,
    /// Revision of the record that ended it.
    pub revision: u64,
}

/// Ends an agent; `None` is the caller itself.
pub async fn end(issuer: &Issuer, caller: Caller, agent: Option<Uuid>) -> Result<Ended, No> {
    issuer.pipeline.record(caller, End { agent }).await
}

impl Record for End {
    fn lane(&self) -> Lane {
        Lane::Revocation
    }
}

impl Act for End {
    type Permit = Ended;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Ended, No> {
        let uuid = match (self.agent, caller) {
            (Some(uuid), _) => uuid,
            (None, Caller::Agent { id, .. }) => id.uuid,
            (None, _) => return Err(Denial::malformed("AGENT_MISSING", "say which agent is to end").into()),
        };
        let known = j.owned(caller, &uuid)?;
        let agent = known.id(&j.rules().trust_domain);
        if let Some(revision) = known.rare.ended {
            return Ok(Ended { agent, revision });
        }
        // Verifiers are told of an end while there are agents below.
        if known.has_children()
            && let Some(above) = j.crowded(&Target::Agent(uuid))
        {
            let revision = j.collapse(caller, &above)?;
            return Ok(Ended { agent, revision });
        }
        let by = match caller {
            Caller::Operator { .. } => String::new(),
            other => other.scope(),
        };
        let revision = j.push(caller, Body::Ended(record::Ended { agent: uuid.as_bytes().to_vec(), by }))?;
        Ok(Ended { agent, revision })
    }
}
