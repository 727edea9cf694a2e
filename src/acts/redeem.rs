//! Redeem: a ticket's secret and a key become a first certificate, of a workload or of an agent.

use std::num::NonZeroU64;

use mayfly_verify::{Stamp, Target, Workload, WorkloadName, sha256};
use uuid::Uuid;

use super::{Certified, Issuer};
use crate::assertion::Attested;
use crate::authority::Seal;
use crate::caller::Caller;
use crate::csr::Key;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Admission, BACKDATE, Certification, Chance, Check, Judgement, Note, release};
use crate::ledger::{Either, Recorded};
use crate::pipeline::{Behalf, Issue};
use crate::state::{Agent, Certificate, Holder, Owner, Standing, State, Ticket, View, fixed, seconds};

use std::sync::Arc;

/// Certified keys of one workload that may be valid at once. They are revoked together, in one commit.
const KEYS: usize = 1000;

/// The redemption of a ticket.
#[derive(Clone, Debug)]
pub struct Redeem {
    /// SHA-256 of the ticket's secret.
    pub hash: [u8; 32],
    /// The key that is to be certified.
    pub key: Key,
}

/// A permit for the certificate of a workload, or of an agent.
pub type Permit = Either<Certification, Admission>;

/// A certificate for a ticket's secret.
pub async fn redeem(issuer: &Issuer, secret: &[u8], csr: Vec<u8>) -> Result<Certified, No> {
    if secret.len() != 32 {
        return Err(Denial::malformed("TICKET_MALFORMED", "the secret of a ticket has 32 bytes").into());
    }
    // T03: a ticket is found by the hash of its exact bytes; its record says who may redeem it.
    let act = Redeem { hash: sha256(secret), key: Key::Request(csr) };
    // No signature is verified for a stranger who has no valid ticket.
    act.look(issuer)?;
    issuer.throttle_redemption(&act.hash)?;
    issuer.pipeline.issue(Caller::Stranger, act).await
}

impl Redeem {
    /// Refuses a ticket that is unknown, has ended, or was redeemed with another key, before anything is verified for it or waits
    /// for it. Every other ticket is for the ledger to judge.
    fn look(&self, issuer: &Issuer) -> Result<(), Denial> {
        let key = self.key.claimed()?;
        let rules = issuer.ledger.rules();
        let (judged, notes) = issuer.ledger.read(|state| {
            let at = issuer.clock.now().max(state.at);
            let ticket = state.ticket(&self.hash).ok_or_else(refused)?;
            let used = match &ticket.holder {
                Holder::Workload(_) if at >= ticket.ends_at => return Err(refused()),
                Holder::Workload(_) => ticket.redeemed.is_some(),
                Holder::Agent(uuid) => {
                    let live = |agent: &&Agent| state.standing(agent, at) == Standing::Live;
                    state.agent(uuid).filter(live).ok_or_else(refused)?.current.is_some()
                }
            };
            if !used {
                return Ok((Ok(()), Vec::new()));
            }
            // The ticket was redeemed before: either this is a retry with the same key, or somebody has a copy of the secret. It is
            // judged as usual, but not recorded.
            let mut judgement = Judgement::new(state, &rules, at);
            let claimed = Redeem { hash: self.hash, key: Key::known_by_digest(key) };
            let verdict = judgement.verdict(&claimed, &Caller::Stranger, &Chance::new([0; Chance::LEN]));
            Ok::<_, Denial>((verdict.result.map(drop), judgement.finish().1))
        })?;
        match judged {
            // Only a denial that is about the ticket is answered here. Denials that are about the key need proof of the key first.
            Err(No::Denial(denial)) if denial.code == refused().code => {
                notes.iter().for_each(|note| tracing::warn!("{note}"));
                Err(denial)
            }
            _ => Ok(()),
        }
    }
}

impl Act for Redeem {
    type Permit = Permit;

    fn judge(&self, j: &mut Judgement<'_>, _: &Caller, chance: &Chance) -> Result<Permit, No> {
        let key = self.key.proved()?.digest();
        j.checking(Check::Ticket);
        let ticket = j.view().ticket(&self.hash).ok_or_else(refused)?.clone();
        j.check_key(&key)?;
        j.checking(Check::Ticket);
        match &ticket.holder {
            Holder::Agent(uuid) => agent(j, *uuid, key, chance).map(Either::Second),
            Holder::Workload(name) => workload(j, name, &ticket, self.hash, key, chance).map(Either::First),
        }
    }
}

/// The one denial for every secret that is not accepted, so that a caller who guesses learns nothing.
fn refused() -> Denial {
    let message = "the ticket is unknown, has ended, or was redeemed with another key: ask for a fresh one";
    Denial::denied("TICKET_REFUSED", message)
}

fn workload(
    j: &mut Judgement<'_>,
    name: &WorkloadName,
    ticket: &Ticket,
    hash: [u8; 32],
    key: [u8; 32],
    chance: &Chance,
) -> Result<Certification, No> {
    if j.at() >= ticket.ends_at || !j.rules().workloads.contains(name) {
        return Err(refused().into());
    }
    // A ticket is revoked with its workload or its trust domain, as an agent is.
    let target = Target::Workload(Workload::Own(name.clone()));
    let stamp = |target: &Target| Stamp { subject: j.view().subject(target), since: ticket.revision };
    // A revoked operator must not come back by a token that it made before.
    let maker = ticket.by.as_ref().map(|by| stamp(&Target::Workload(Workload::Own(by.clone()))));
    let killed = maker.iter().chain(&[stamp(&target), stamp(&Target::TrustDomain)]).any(|stamp| j.view().kills(stamp));
    if killed || j.view().is_closed(&target) {
        return Err(refused().into());
    }
    if let Some(certificate) = &ticket.redeemed {
        // The same key gets the same answer. Another key belongs to somebody who should not have the secret.
        if certificate.key == key {
            let authority = Arc::clone(&j.signer(crate::state::authority::Kind::X509)?.id);
            return Ok(Certification::new(name.clone(), certificate.clone(), authority));
        }
        j.note(Note::WorkloadTicketReused(name.clone()));
        return Err(refused().into());
    }
    certify(j, &Caller::Stranger, name, key, Source::Ticket(hash), chance)
}

/// The first certificate of an agent that came with a ticket.
fn agent(j: &mut Judgement<'_>, uuid: Uuid, key: [u8; 32], chance: &Chance) -> Result<Admission, No> {
    let agent = j.view().agent(&uuid).ok_or_else(refused)?;
    if View::standing(j.view(), agent, j.at()) != Standing::Live {
        return Err(refused().into());
    }
    if let Some(certificate) = &agent.current {
        // The same key gets the same answer, as long as that certificate is the last.
        if certificate.key == key && agent.rare.next.is_none() && agent.used_since == certificate.revision.get() {
            return Ok(j.admission(agent, Some(certificate.clone()))?);
        }
        j.note(Note::AgentTicketReused(uuid));
        return Err(refused().into());
    }
    j.check_owner(&key, |_| false)?;
    let class = j.rules().classes.get(&agent.mandate.class).ok_or_else(refused)?;
    let ends_at = j.svid_end(class.svid_ttl, agent.lease_ends_at)?;
    j.subject(agent)?;
    let body = record::Redeemed {
        agent: uuid.as_bytes().to_vec(),
        key: key.to_vec(),
        serial: chance.serial().to_vec(),
        begins_at: j.now().saturating_sub(BACKDATE),
        ends_at,
    };
    j.push(&Caller::Stranger, Body::Redeemed(body))?;
    j.last_certificate(&uuid)
}

/// Where a workload's certificate comes from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A ticket, by the SHA-256 of its secret.
    Ticket([u8; 32]),
    /// A renewal by the key with this SHA-256.
    Renewal([u8; 32]),
    /// The token of a platform.
    Token {
        /// The key under which the use of the token is recorded.
        hash: [u8; 32],
        /// SHA-256 of the whole token.
        token: [u8; 32],
        /// What it says.
        attested: &'a Attested,
    },
}

/// A certificate for a workload.
pub(super) fn certify(
    j: &mut Judgement<'_>,
    caller: &Caller,
    workload: &WorkloadName,
    key: [u8; 32],
    source: Source<'_>,
    chance: &Chance,
) -> Result<Certification, No> {
    j.check_workload(&Workload::Own(workload.clone()))?;
    let renewal = matches!(source, Source::Renewal(_));
    j.check_owner(&key, |owner| renewal && matches!(owner, Owner::Workload(of, _) if of == workload))?;
    if j.view().keys_of(workload, j.at()).len() >= KEYS {
        let message = format!("workload `{workload}` has {KEYS} certified keys that have not expired: wait until one does");
        return Err(Denial::new(Kind::Exhausted, "LIMIT_REACHED", message).with("limit", "keys of a workload").into());
    }
    let authority = Arc::clone(&j.signer(crate::state::authority::Kind::X509)?.id);
    let ends_at = j.svid_end(j.rules().workload_ttl, u64::MAX)?;
    // Nothing is denied from here on.
    if let Source::Token { hash, token, attested } = source {
        let made = record::TicketMade {
            hash: hash.to_vec(),
            workload: workload.to_string(),
            ends_at: seconds(attested.ends_at),
            token: token.to_vec(),
            issuer: attested.iss.clone(),
            subject: attested.sub.clone(),
        };
        j.push(caller, Body::TicketMade(made))?;
    }
    let certificate = Certificate {
        key,
        serial: chance.serial(),
        begins_at: j.now().saturating_sub(BACKDATE),
        ends_at,
        revision: NonZeroU64::MIN.saturating_add(j.view().revision()),
    };
    let (ticket, renewed_from) = match source {
        Source::Ticket(hash) | Source::Token { hash, .. } => (hash.to_vec(), Vec::new()),
        Source::Renewal(by) => (Vec::new(), by.to_vec()),
    };
    let line = fixed(&renewed_from).and_then(|from| j.view().line(&from)).map_or(0, |(number, _)| number);
    let body = record::Certified {
        workload: workload.to_string(),
        key: key.to_vec(),
        serial: certificate.serial.to_vec(),
        begins_at: certificate.begins_at,
        ends_at: certificate.ends_at,
        ticket,
        renewed_from,
        line,
    };
    j.push(caller, Body::Certified(body))?;
    Ok(Certification::new(workload.clone(), certificate, authority))
}

impl Issue for Redeem {
    type Answer = Certified;

    /// A redemption queues with the requests of the workload or agent that the ticket is for, not behind other strangers.
    fn behalf<'a>(&'a self, state: &'a State) -> Behalf<'a> {
        match state.ticket(&self.hash).map(|ticket| &ticket.holder) {
            Some(Holder::Agent(uuid)) => state.agent(uuid).map_or(Behalf::Caller, Behalf::Agent),
            Some(Holder::Workload(name)) => Behalf::Workload(name),
            None => Behalf::Caller,
        }
    }

    fn prove(&mut self) -> Result<(), Denial> {
        self.key.prove()
    }

    fn sign(&self, permit: Recorded<Permit>, seal: &Seal) -> Result<Certified, Fault> {
        sign(permit, &self.key, seal)
    }

    fn look_again(answer: &Certified, state: &State) -> Result<(), Denial> {
        look_again(answer, state)
    }
}

/// Signs the certificate of a workload or an agent.
pub(super) fn sign(permit: Recorded<Permit>, key: &Key, seal: &Seal) -> Result<Certified, Fault> {
    let key = key.proved()?;
    match permit.either() {
        Either::First(permit) => seal.workload(permit, key).map(|(permit, signed)| Certified::Workload(permit, signed)),
        Either::Second(permit) => seal.agent(permit, key).map(|(permit, signed)| Certified::Agent(Box::new(permit), signed)),
    }
}

/// Whether a signed certificate may still leave.
pub(super) fn look_again(answer: &Certified, state: &State) -> Result<(), Denial> {
    match answer {
        Certified::Workload(permit, _) => release::certification(state, permit),
        Certified::Agent(admission, _) => release::admission(state, admission),
    }
}
