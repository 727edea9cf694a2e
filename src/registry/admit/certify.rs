//! Admit credentials: tickets and their redemption, renewals, tokens.

use std::sync::Arc;

use mayfly_verify::{Stamp, Target, Workload, WorkloadName};
use uuid::Uuid;

use super::{BACKDATE, Batch, UNUSED, authority, key_in_use, random, request_record, serial};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::policy;
use crate::registry::proposal::{Certification, Mint, Outcome, RequestId};
use crate::registry::state::{Agent, Certificate, Generation, Holder, Owner, Standing, Token, audiences_of, fixed, seconds};

impl Batch<'_> {
    pub(super) fn mint(&mut self, caller: &Caller, audiences: &[String], request: Option<&RequestId>) -> Result<Outcome, No> {
        let Caller::Agent { id, .. } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "only agents mint JWT-SVIDs for themselves").into());
        };
        if let Some(done) = self.done(request)? {
            let token = done.token.ok_or_else(|| Fault::new("mint", "a request without its token"))?;
            return Ok(Outcome::Minted(self.mint_of(*token)?));
        }
        let agent = self.agent(&id.uuid).ok_or_else(|| Fault::new("mint", "the caller is gone"))?;
        let class = self.rules.classes.get(&agent.mandate.class);
        audiences.iter().try_for_each(|audience| policy::decide_mint(class, &agent.mandate.audiences, audience))?;
        let kept = self.kept(agent)?;
        let narrowed = (kept.scopes != agent.mandate.scopes).then_some(kept.scopes);
        let minted = self.minted(id.uuid, audiences, agent.lease_ends_at, request, narrowed)?;
        let revision = self.push(caller, Body::Minted(minted.clone()))?;
        let token = token_of(&minted, id.uuid, revision)?;
        Ok(Outcome::Minted(self.mint_of(token)?))
    }

    pub(super) fn minted(
        &self,
        agent: Uuid,
        audiences: &[String],
        lease: u64,
        request: Option<&RequestId>,
        narrowed: Option<Vec<String>>,
    ) -> Result<record::Minted, No> {
        let now = self.at / SECOND;
        let (audience, further) = audiences.split_first().ok_or_else(|| Fault::new("mint", "no audience"))?;
        Ok(record::Minted {
            agent: agent.as_bytes().to_vec(),
            audience: audience.clone(),
            further_audiences: further.to_vec(),
            jti: random::<16>()?.to_vec(),
            issued_at: now,
            ends_at: now.saturating_add(self.rules.jwt_ttl).min(lease).min(self.signer(authority::Kind::Jwt)?.ends_at),
            request: request.map(request_record),
            narrowed: narrowed.is_some(),
            scopes: narrowed.unwrap_or_default(),
        })
    }

    pub(super) fn mint_of(&self, token: Token) -> Result<Mint, No> {
        let agent = self.agent(&token.agent).ok_or_else(|| Fault::new("mint", "the agent is gone"))?;
        let scopes = token.narrowed.as_ref().unwrap_or(&agent.mandate.scopes);
        let binding = agent.binding(&self.rules.trust_domain, self.base.incarnation, token.revision, scopes);
        let authority = Arc::clone(&self.signer(authority::Kind::Jwt)?.id);
        Ok(Mint { id: agent.id(&self.rules.trust_domain), token, binding: Arc::new(binding), authority })
    }

    pub(super) fn ticket(&mut self, caller: &Caller, workload: &WorkloadName, hash: [u8; 32], ttl: u64) -> Result<Outcome, No> {
        if !self.rules.workloads.contains(workload) {
            let message = format!("workload `{workload}` is not configured: add it to `workloads` in the file");
            return Err(Denial::new(Kind::NotFound, "WORKLOAD_UNKNOWN", message).into());
        }
        self.check_workload(&Workload::Own(workload.clone()))?;
        let ends_at = self.at.saturating_add(seconds(ttl));
        let made = record::TicketMade { hash: hash.to_vec(), workload: workload.to_string(), ends_at };
        let revision = self.push(caller, Body::TicketMade(made))?;
        Ok(Outcome::Ticketed { ends_at, revision })
    }

    pub(super) fn redeem(&mut self, hash: [u8; 32], key: [u8; 32]) -> Result<Outcome, No> {
        // One answer for all that is wrong with a secret: a guesser learns nothing.
        let refused = || {
            Denial::denied("TICKET_REFUSED", "the ticket is unknown, over, or was redeemed with another key: ask for a fresh one")
        };
        let ticket = self.top.tickets.get(&hash).or_else(|| self.base.tickets.get(&hash)).ok_or_else(refused)?.clone();
        self.check_key(&key)?;
        let workload = match ticket.holder {
            Holder::Agent(uuid) => return self.redeem_agent(uuid, key).map_err(|no| no.unwrap_or_else(|| refused().into())),
            Holder::Workload(name) => name,
        };
        if self.at >= ticket.ends_at || !self.rules.workloads.contains(&workload) {
            return Err(refused().into());
        }
        // DESIGN 6: the rule that judges agents judges tickets.
        let target = Target::Workload(Workload::Own(workload.clone()));
        let stamp = |target: &Target| Stamp { subject: target.subject(), since: ticket.revision };
        if self.closed(&target) || self.killed(&[stamp(&target), stamp(&Target::TrustDomain)]) {
            return Err(refused().into());
        }
        if let Some(certificate) = &ticket.redeemed {
            // Same key, same answer; another key is somebody who should not have the secret.
            if certificate.key == key {
                let authority = Arc::clone(&self.signer(authority::Kind::X509)?.id);
                return Ok(Outcome::Certified(Certification { workload, certificate: certificate.clone(), authority }));
            }
            tracing::warn!(%workload, "a ticket was presented again with another key");
            return Err(refused().into());
        }
        self.certify(&Caller::Stranger, &workload, key, Some(hash), None)
    }

    /// The first certificate of an agent that came with a ticket; no reason means what every guesser hears.
    pub(super) fn redeem_agent(&mut self, uuid: Uuid, key: [u8; 32]) -> Result<Outcome, Option<No>> {
        let agent = self.agent(&uuid).ok_or(None)?;
        if self.standing(agent) != Standing::Live {
            return Err(None);
        }
        if let Some(certificate) = &agent.current {
            // Same key, same answer, as long as that certificate is the last.
            if certificate.key == key && agent.rare.next.is_none() && agent.used_since == certificate.revision {
                let admission = self.admission(agent, Some(certificate.clone())).map_err(|no| Some(no.into()))?;
                return Ok(Outcome::Renewed(admission));
            }
            tracing::warn!(agent = %uuid, "a ticket was presented again with another key");
            return Err(None);
        }
        if self.owner(&key).is_some() {
            return Err(Some(key_in_use().into()));
        }
        let class = self.rules.classes.get(&agent.mandate.class).ok_or(None)?;
        let ends_at = self.svid_end(class.svid_ttl, agent.lease_ends_at).map_err(Some)?;
        let body = record::Redeemed {
            agent: uuid.as_bytes().to_vec(),
            key: key.to_vec(),
            serial: serial().map_err(|e| Some(e.into()))?.to_vec(),
            begins_at: (self.at / SECOND).saturating_sub(BACKDATE),
            ends_at,
        };
        self.push(&Caller::Stranger, Body::Redeemed(body)).map_err(Some)?;
        self.last_certificate(&uuid).map_err(Some)
    }

    pub(super) fn renew(&mut self, caller: &Caller, key: [u8; 32]) -> Result<Outcome, No> {
        self.check_key(&key)?;
        match caller {
            Caller::Workload { name, key: old, .. } => self.certify(caller, &name.clone(), key, None, Some(*old)),
            Caller::Agent { id, serial, .. } => self.renew_agent(caller, id.uuid, serial, key),
            _ => Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads and agents renew").into()),
        }
    }

    /// The next generation of an agent's certificate. Decided again: never wider than now allowed, and the lease stays.
    pub(super) fn renew_agent(&mut self, caller: &Caller, uuid: Uuid, with: &[u8], key: [u8; 32]) -> Result<Outcome, No> {
        let agent = self.agent(&uuid).ok_or_else(|| Fault::new("renew", "the caller is gone"))?;
        if agent.generation(with) != Generation::Current {
            let message = "this connection is from before the last renewal: connect with the renewed certificate";
            return Err(Denial::denied("GENERATION_PAST", message).into());
        }
        if agent.rare.replaced.len() >= UNUSED {
            let message = "too many renewed certificates were never used: use the last one first";
            return Err(Denial::new(Kind::Exhausted, "RENEWALS_UNUSED", message).into());
        }
        // Its own key again, or one that nobody has.
        let own = agent.current.as_ref().is_some_and(|c| c.key == key);
        if !own && self.owner(&key).is_some() {
            return Err(key_in_use().into());
        }
        let class = self.rules.classes.get(&agent.mandate.class);
        let kept = self.kept(agent)?;
        let narrowed = kept.scopes != agent.mandate.scopes || kept.audiences != agent.mandate.audiences;
        let ends_at = self.svid_end(class.map_or(0, |c| c.svid_ttl), agent.lease_ends_at)?;
        let body = record::Renewed {
            agent: uuid.as_bytes().to_vec(),
            key: key.to_vec(),
            serial: serial()?.to_vec(),
            begins_at: (self.at / SECOND).saturating_sub(BACKDATE),
            ends_at,
            narrowed,
            scopes: if narrowed { kept.scopes } else { Vec::new() },
            audiences: if narrowed { kept.audiences } else { Vec::new() },
        };
        self.push(caller, Body::Renewed(body))?;
        self.last_certificate(&uuid)
    }

    /// What is left of an agent's authority today: its own ∩ its class ∩ everybody above.
    pub(super) fn kept(&self, agent: &Agent) -> Result<policy::Kept, Denial> {
        let mut kept =
            policy::decide_again(self.rules.classes.get(&agent.mandate.class), &agent.mandate.scopes, &agent.mandate.audiences)?;
        for above in agent.ancestors().filter_map(|uuid| self.agent(&uuid)) {
            let class = self.rules.classes.get(&above.mandate.class);
            let allowed = policy::decide_again(class, &above.mandate.scopes, &above.mandate.audiences)?;
            kept.scopes.retain(|s| allowed.scopes.contains(s));
            kept.audiences.retain(|a| allowed.audiences.contains(a));
        }
        if kept.scopes.is_empty() && !agent.mandate.scopes.is_empty() {
            return Err(Denial::denied("NOTHING_LEFT", "those above the agent may no longer do any of what it may"));
        }
        Ok(kept)
    }

    pub(super) fn last_certificate(&self, uuid: &Uuid) -> Result<Outcome, No> {
        let agent = self.agent(uuid).ok_or_else(|| Fault::new("certify", "the agent is gone"))?;
        Ok(Outcome::Renewed(self.admission(agent, agent.last().cloned())?))
    }

    pub(super) fn certify(
        &mut self,
        caller: &Caller,
        workload: &WorkloadName,
        key: [u8; 32],
        ticket: Option<[u8; 32]>,
        renewed_from: Option<[u8; 32]>,
    ) -> Result<Outcome, No> {
        self.check_workload(&Workload::Own(workload.clone()))?;
        match self.owner(&key) {
            None => {}
            Some(Owner::Workload(owner, _)) if owner == workload && ticket.is_none() => {}
            Some(_) => return Err(key_in_use().into()),
        }
        let now = self.at / SECOND;
        let authority = Arc::clone(&self.signer(authority::Kind::X509)?.id);
        let certificate = Certificate {
            key,
            serial: serial()?,
            begins_at: now.saturating_sub(BACKDATE),
            ends_at: self.svid_end(self.rules.workload_ttl, u64::MAX)?,
            revision: self.top.revision + 1,
        };
        let body = record::Certified {
            workload: workload.to_string(),
            key: key.to_vec(),
            serial: certificate.serial.to_vec(),
            begins_at: certificate.begins_at,
            ends_at: certificate.ends_at,
            ticket: ticket.map(Vec::from).unwrap_or_default(),
            renewed_from: renewed_from.map(Vec::from).unwrap_or_default(),
        };
        self.push(caller, Body::Certified(body))?;
        Ok(Outcome::Certified(Certification { workload: workload.clone(), certificate, authority }))
    }
}

pub(super) fn token_of(minted: &record::Minted, agent: Uuid, revision: u64) -> Result<Token, Fault> {
    let jti = fixed(&minted.jti).ok_or_else(|| Fault::new("mint", "jti"))?;
    let (issued_at, ends_at) = (minted.issued_at, minted.ends_at);
    let narrowed = minted.narrowed.then(|| minted.scopes.clone());
    Ok(Token { agent, audiences: audiences_of(minted), jti, issued_at, ends_at, narrowed, revision })
}
