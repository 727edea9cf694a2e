//! Checks the generation of a caller's certificate: the first use of a renewed certificate is recorded, and a replaced one on a new
//! connection shows that somebody holds a copy.

use mayfly_verify::{AgentId, Target, Workload, WorkloadName};

use super::{Check, Cutting, Judgement, Note, who};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::state::Generation;

/// For how long a workload's certificate is still accepted after its successor was used, in microseconds, because a program may
/// have read the folder just before the renewal. It does not apply to renewals, which are made under the folder's lock.
const GRACE: u64 = 10 * SECOND;

impl Judgement<'_> {
    /// Checks the caller again on the state that the batch is judged on. Records the first use of a renewed certificate, and
    /// revokes a caller whose certificate was evidently copied. `renews` says whether the caller wants its certificate renewed.
    pub(super) fn caller(&mut self, caller: &Caller, renews: bool) -> Result<(), No> {
        self.checking(Check::Caller);
        let generation = who(&self.overlay, self.rules, caller, self.at)?;
        let holder = caller.holder();
        match (holder, generation) {
            (_, Generation::Current) => Ok(()),
            (_, Generation::Replaced) => {
                let message = "a later renewal replaced this certificate: use the certificate of that renewal";
                Err(Denial::new(Kind::Unauthenticated, "GENERATION_REPLACED", message).into())
            }
            (Caller::Agent { id, .. }, Generation::Next) => {
                let used = record::Used { agent: id.uuid.as_bytes().to_vec() };
                self.push(holder, Body::Used(used)).map(drop)
            }
            (Caller::Agent { id, serial, opened, .. }, Generation::Past) => self.past_of_agent(id, serial, *opened),
            (Caller::Workload { name, key, serial, .. }, Generation::Next) => {
                let line = self.view().line(key).map_or(0, |(number, _)| number);
                let used = record::WorkloadUsed { workload: name.to_string(), line, serial: serial.clone() };
                self.push(holder, Body::WorkloadUsed(used)).map(drop)
            }
            (Caller::Workload { name, key, serial, .. }, Generation::Past) => self.past_of_workload(name, key, serial, renews),
            // Other callers have no certificate of ours.
            _ => Ok(()),
        }
    }

    fn past_of_agent(&mut self, id: &AgentId, serial: &[u8], opened: u64) -> Result<(), No> {
        // T15: a pooled connection of an honest agent was opened while its certificate was the current one. On a newer connection
        // the replaced certificate is used by a thief, or by the agent itself after a thief has renewed. The two cannot be told
        // apart, so the agent is revoked. T108: the time that counts is when this certificate was replaced, not the last renewal,
        // so a silent connection is not excused.
        let agent = self.overlay.agent(&id.uuid);
        let replaced = agent.map_or(0, |agent| agent.replaced_at(serial).unwrap_or(agent.used_since));
        if opened < replaced {
            return Ok(());
        }
        self.note(Note::CertificateReused(id.clone()));
        let target = Target::Agent(id.uuid);
        self.cut(&Caller::Stranger, &Cutting::by_issuer(&target, "a past certificate was used on a new connection"))?;
        Err(reused(
            "a certificate from before the renewal was used on a new connection: somebody holds a copy, so the agent was revoked",
        ))
    }

    /// T226: a process that renews a replaced certificate on a new connection holds a copy of the workload's identity, or its own
    /// was copied. Neither these cases nor the agents of the two holders can be told apart, so the line of certificates and every
    /// agent that the workload spawned are revoked. Any other call with a replaced certificate may come from a program that has not
    /// read its folder again, so it is only refused.
    fn past_of_workload(&mut self, name: &WorkloadName, key: &[u8; 32], serial: &[u8], renews: bool) -> Result<(), No> {
        let (number, line) = self.view().line(key).ok_or_else(|| past("the certificate is not known any more"))?;
        let replaced = line.replaced_at(serial).map_or(0, |(_, at)| at);
        if !renews {
            if self.at < replaced.saturating_add(GRACE) {
                return Ok(());
            }
            self.note(Note::WorkloadCertificatePast(name.clone()));
            return Err(
                past("this certificate was renewed, and the renewed one is in use: read the identity's folder again").into()
            );
        }
        self.note(Note::WorkloadCertificateReused(name.clone()));
        let reason = "a past certificate of the workload was renewed";
        for key in self.view().keys_of_line(number, self.at) {
            self.cut(&Caller::Stranger, &Cutting::by_issuer(&Target::Key(key), reason))?;
        }
        let target = Target::Workload(Workload::Own(name.clone()));
        self.cut(&Caller::Stranger, &Cutting::by_issuer(&target, reason))?;
        Err(reused(
            "a certificate that had been renewed already was renewed again: somebody holds a copy of this identity, so it was \
             revoked with the agents of the workload, and must join again",
        ))
    }
}

fn reused(message: &str) -> No {
    Denial::new(Kind::Unauthenticated, "CREDENTIAL_REUSED", message).into()
}

fn past(message: &str) -> Denial {
    Denial::denied("GENERATION_PAST", message)
}
