//! End: an agent ends itself, or somebody ends it whom it belongs to.

use mayfly_verify::{AgentId, Target};
use uuid::Uuid;

use super::Issuer;
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Chance, Judgement};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::{Agent, SKEW, end_of_cut};

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
    /// Unix seconds until which verifiers accept its credentials. `None` if they are told of the end.
    pub accepted_until: Option<u64>,
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
            let accepted_until = (!known.has_children() && !known.rare.told).then(|| last_credential(j, known));
            return Ok(Ended { agent, revision, accepted_until });
        }
        if known.has_children()
            && let Some(above) = j.crowded(&Target::Agent(uuid))
        {
            let revision = j.collapse(caller, &above)?;
            return Ok(Ended { agent, revision, accepted_until: None });
        }
        // T150: an agent that ends very many agents below it must not fill the feed. Beyond a bound such an end is not published,
        // and the credentials last until they expire.
        let told = known.has_children() || !j.ends_crowded(caller, known);
        let accepted_until = (!told).then(|| last_credential(j, known));
        let by = match caller {
            Caller::Operator { .. } => String::new(),
            other => other.scope(),
        };
        // The tokens of an agent without a key are not counted per agent. None of them can expire later than the last token that
        // was minted for anybody.
        let tokens_until = if known.is_keyless() { j.view().out().tokens.max(j.now() + 1) } else { 0 };
        let body = record::Ended { agent: uuid.as_bytes().to_vec(), by, told, tokens_until };
        let revision = j.push(caller, Body::Ended(body))?;
        Ok(Ended { agent, revision, accepted_until })
    }
}

/// Unix seconds at which the last credential of an agent expires.
fn last_credential(j: &Judgement<'_>, agent: &Agent) -> u64 {
    end_of_cut(agent, j.view().out()).saturating_sub(SKEW / SECOND)
}
