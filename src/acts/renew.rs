//! Renew: the next certificate of the caller, a workload or an agent.

use super::redeem::{self, Permit, Source};
use super::{Certified, Issuer};
use crate::authority::Seal;
use crate::caller::Caller;
use crate::csr::Key;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Admission, BACKDATE, Chance, Check, Judgement, Use};
use crate::ledger::{Either, Recorded};
use crate::pipeline::Issue;
use crate::policies::Action;
use crate::state::{Generation, Owner, State};

/// Certificates that an agent may have renewed and never used.
const UNUSED: usize = 16;

/// A renewal.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The key that is to be certified.
    pub key: Key,
}

/// The caller's next certificate.
pub async fn renew(issuer: &Issuer, caller: Caller, csr: Vec<u8>) -> Result<Certified, No> {
    issuer.pipeline.issue(caller, Renew { key: Key::Request(csr) }).await
}

impl Act for Renew {
    type Permit = Permit;

    fn renews(&self) -> bool {
        true
    }

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<Permit, No> {
        let key = self.key.proved()?.digest();
        j.check_key(&key)?;
        match caller {
            Caller::Workload { name, key: old, serial, .. } => {
                workload(j, old, serial, &key)?;
                redeem::certify(j, caller, name, key, Source::Renewal(*old), chance).map(Either::First)
            }
            Caller::Agent { .. } => agent(j, caller, key, chance).map(Either::Second),
            _ => Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads and agents renew").into()),
        }
    }
}

/// Checks that a workload's certificate is the current one of its line of renewals, and may be renewed to this key.
fn workload(j: &Judgement<'_>, old: &[u8; 32], serial: &[u8], key: &[u8; 32]) -> Result<(), Denial> {
    j.checking(Check::Generation);
    let (number, line) = j.view().line(old).ok_or_else(past)?;
    if line.generation(serial) != Generation::Current {
        return Err(past());
    }
    if line.unused() >= UNUSED {
        return Err(unused());
    }
    // A key that is certified in another line of renewals belongs to another process.
    match j.view().line(key) {
        Some((other, _)) if other != number => {
            Err(Denial::new(Kind::Conflict, "KEY_IN_USE", "this key is certified already: make a new one"))
        }
        _ => Ok(()),
    }
}

fn past() -> Denial {
    Denial::denied("GENERATION_PAST", "this connection is from before the last renewal: connect with the renewed certificate")
}

fn unused() -> Denial {
    let message = "too many renewed certificates were never used: use the last one first";
    Denial::new(Kind::Exhausted, "RENEWALS_UNUSED", message)
}

/// The next generation of an agent's certificate. Its authority is decided again and never grows; its lease stays.
fn agent(j: &mut Judgement<'_>, caller: &Caller, key: [u8; 32], chance: &Chance) -> Result<Admission, No> {
    let Caller::Agent { id, serial, .. } = caller else { return Err(Fault::new("renew", "the caller is no agent").into()) };
    let agent = j.view().agent(&id.uuid).ok_or_else(|| Fault::new("renew", "the caller is gone"))?;
    j.checking(Check::Generation);
    if agent.generation(serial) != Generation::Current {
        return Err(past().into());
    }
    if agent.rare.replaced.len() >= UNUSED {
        return Err(unused().into());
    }
    // The agent's current key may be certified again; any other key must be new.
    let current = agent.current.as_ref().is_some_and(|certificate| certificate.key == key);
    j.check_owner(&key, |owner| current && owner == Owner::Agent(id.uuid))?;
    let life = j.rules().classes.get(&agent.mandate.class).map_or(0, |class| class.svid_ttl);
    let kept = j.authority_left(agent)?;
    let of = Use { action: Action::Renew, audience: None, scopes: &kept.scopes, audiences: &kept.audiences };
    j.policies_on_use(agent, of)?;
    let narrowed = kept.scopes != agent.mandate.scopes || kept.audiences != agent.mandate.audiences;
    let ends_at = j.svid_end(life, agent.lease_ends_at)?;
    j.subject(agent)?;
    let body = record::Renewed {
        agent: id.uuid.as_bytes().to_vec(),
        key: key.to_vec(),
        serial: chance.serial().to_vec(),
        begins_at: j.now().saturating_sub(BACKDATE),
        ends_at,
        narrowed,
        scopes: if narrowed { kept.scopes } else { Vec::new() },
        audiences: if narrowed { kept.audiences } else { Vec::new() },
    };
    j.push(caller, Body::Renewed(body))?;
    j.last_certificate(&id.uuid)
}

impl Issue for Renew {
    type Answer = Certified;

    fn prove(&mut self) -> Result<(), Denial> {
        self.key.prove()
    }

    fn sign(&self, permit: Recorded<Permit>, seal: &Seal) -> Result<Certified, Fault> {
        redeem::sign(permit, &self.key, seal)
    }

    fn look_again(answer: &Certified, state: &State) -> Result<(), Denial> {
        redeem::look_again(answer, state)
    }
}
