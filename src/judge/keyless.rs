//! Agents without keys: who may spawn one, and who may ask for its tokens. Such an agent has no connection, so its parent asks on
//! the parent's own.

use mayfly_verify::Possession;
use uuid::Uuid;

use super::bound::Proved;
use super::{Check, Judgement};
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::state::{Agent, View};

/// An agent without a key, for which its parent asks.
#[derive(Clone, Copy, Debug)]
pub struct ForAgent {
    /// The agent.
    pub agent: Uuid,
    /// The certificate that the parent's connection proves.
    pub proved: Proved,
}

/// The certificate of a connection, to which the token of an agent without a key is bound.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// SHA-256 of its DER.
    pub certificate: [u8; 32],
    /// Unix seconds at which it expires.
    pub ends_at: u64,
}

impl Held {
    /// The certificate that a connection proves. Fails if it proves none.
    pub fn of(proved: &Proved) -> Result<Held, Denial> {
        let Proved { held: Possession { certificate, .. }, certificate_ends_at: ends_at } = *proved;
        Ok(Held { certificate: certificate.ok_or_else(only_by_certificate)?, ends_at })
    }
}

impl Judgement<'_> {
    /// The agent for which a caller asks: itself, or an agent without a key that it spawned itself.
    ///
    /// T256: nobody but the parent gets its credentials, not even an ancestor of the parent, because they are bound to the parent's
    /// certificate.
    pub fn asks_for(&self, caller: &Caller, for_agent: Option<Uuid>) -> Result<&Agent, No> {
        let gone = || No::from(Fault::new("keyless", "the caller is gone"));
        let Some(uuid) = for_agent else {
            let (Caller::Agent { id, .. } | Caller::Bearer { id, .. }) = caller else {
                return Err(Denial::denied("ROLE_NOT_ALLOWED", "only agents get tokens").into());
            };
            return self.view().agent(&id.uuid).ok_or_else(gone);
        };
        let agent = self.owned(caller, &uuid)?;
        let Caller::Agent { id, .. } = caller else { return Err(only_by_certificate().into()) };
        if !agent.is_keyless() {
            let message = "this agent has a key of its own: it gets its tokens itself";
            return Err(Denial::denied("KEYLESS_ONLY", message).into());
        }
        if agent.parent() != Some(id.uuid) {
            let message = "an agent without a key gets its tokens by the agent that spawned it, and by nobody else";
            return Err(Denial::denied("PARENT_ONLY", message).into());
        }
        // The denial must not look like the end of the caller, which stays live.
        match View::standing(self.view(), agent, self.at()).refusal() {
            Some((code, message)) => Err(Denial::denied(code, message).into()),
            None => Ok(agent),
        }
    }

    /// Whether a caller may spawn an agent without a key: only an agent whose connection proves a certificate, to which the tokens are
    /// bound.
    pub fn may_spawn_keyless(&self, caller: &Caller) -> Result<(), Denial> {
        self.checking(Check::Key);
        match caller {
            Caller::Agent { .. } => Ok(()),
            _ => {
                let message =
                    "an agent without a key is a part of the agent that spawns it: a workload spawns agents with keys or tickets";
                Err(Denial::denied("KEYLESS_PARENT", message))
            }
        }
    }
}

fn only_by_certificate() -> Denial {
    let message = "tokens of an agent without a key are bound to the certificate of its parent: ask on a connection with that";
    Denial::new(Kind::Denied, "PARENT_ONLY", message)
}
