//! Admit: what a request would record, judged against state plus the batch so far. Nothing is durable yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mayfly_verify::{ClassName, DelegationId, Stamp, Target, TrustDomain, User, WorkloadName, sha256};
use serde_json::json;
use uuid::Uuid;

use super::proposal::{Admission, Ask, Certification, Credential, Mint, Outcome, Proof, Proposal, RequestId, Spawn};
use super::state::{Agent, CUT_KEEP, Certificate, Delegation, Done, Generation, Holder, Lineage, Owner, SKEW, Standing};
use super::state::{Count, Seat, State, Ticket, Token, UserStanding, seconds, standing};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, Record, record::Body};
use crate::policy::limits::{self, Full, Limit, Measure, Per, Reading};
use crate::policy::{self, Class, Grant};

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Ours.
    pub trust_domain: TrustDomain,
    /// Every configured class.
    pub classes: BTreeMap<ClassName, Class>,
    /// Every configured workload.
    pub workloads: Vec<WorkloadName>,
    /// Every configured limit.
    pub limits: Vec<Limit>,
    /// Seconds a workload's certificate lasts.
    pub workload_ttl: u64,
    /// Seconds a JWT-SVID lasts.
    pub jwt_ttl: u64,
    /// Unix seconds at which the issuing certificate ends; no SVID outlives it (clause XL-13, T17).
    pub authority_ends_at: u64,
}

/// Certificates that an agent may have renewed and never used.
const UNUSED: usize = 16;

/// Seconds by which a certificate begins before it is signed, for clocks that are behind.
const BACKDATE: u64 = 10;

/// State, and over it the records of the batch so far.
pub(super) struct Batch<'a> {
    base: &'a State,
    // INVARIANT: holds a copy of everything in `base` that a record of this batch changed, so it is looked at first.
    top: State,
    rules: &'a Rules,
    at: u64,
    // Whose seats `top` has given back already.
    run_out: BTreeSet<Uuid>,
    pub(super) records: Vec<Record>,
}

impl<'a> Batch<'a> {
    /// An empty batch at `now` (unix microseconds), which never goes back.
    pub(super) fn new(base: &'a State, rules: &'a Rules, now: u64) -> Batch<'a> {
        let at = now.max(base.at);
        let mut top = State::over(base.incarnation, base.revision, base.at);
        // Seats are free to the moment, whether or not a record has said what time it is.
        let run_out = base.run_out(at);
        for agent in run_out.iter().filter_map(|uuid| base.agent(uuid)) {
            top.count(agent, -1);
        }
        Batch { base, top, rules, at, run_out, records: Vec::new() }
    }

    /// Judges one request; its records join the batch, or nothing does.
    pub(super) fn admit(&mut self, ask: &Ask) -> Result<Outcome, No> {
        self.check_caller(&ask.caller)?;
        match &ask.proposal {
            Proposal::Spawn(spawn) => self.spawn(&ask.caller, spawn),
            Proposal::Mint { audience, request } => self.mint(&ask.caller, audience, request.as_ref()),
            Proposal::End { agent } => self.end(&ask.caller, *agent),
            Proposal::Ticket { workload, hash, ttl } => self.ticket(&ask.caller, workload, *hash, *ttl),
            Proposal::Redeem { hash, key } => self.redeem(*hash, *key),
            Proposal::Renew { key } => self.renew(&ask.caller, *key),
            Proposal::Present => Ok(Outcome::Present),
            Proposal::RevokeAgent { agent, reason } => self.revoke_agent(&ask.caller, *agent, reason),
            Proposal::RevokeUser { user, reason, allow_new } => self.revoke_user(&ask.caller, user, reason, !allow_new),
            Proposal::Reopen { user } => self.reopen(&ask.caller, user),
            Proposal::Configure { classes, x509_authority, jwt_authority } => {
                let body = record::Configured {
                    classes: classes.to_vec(),
                    x509_authority: x509_authority.clone(),
                    jwt_authority: jwt_authority.clone(),
                };
                let revision = self.push(&ask.caller, Body::Configured(body))?;
                Ok(Outcome::Configured { revision })
            }
        }
    }

    // DESIGN 4: expiry, cuts and keys are checked per call; here once more, where the order is decided.
    fn check_caller(&mut self, caller: &Caller) -> Result<(), No> {
        let no = |code, message: &str| Err(Denial::new(Kind::Unauthenticated, code, message).into());
        match caller {
            Caller::Stranger | Caller::Operator { .. } => Ok(()),
            Caller::Workload { name, key } => match self.owner(key) {
                Some(Owner::Workload(owner, ends_at)) if owner == name && self.at < seconds(*ends_at) => {
                    if self.rules.workloads.contains(name) {
                        return Ok(());
                    }
                    no("WORKLOAD_UNKNOWN", "the workload is no longer configured")
                }
                _ => no("WORKLOAD_UNKNOWN", "this key is not certified for the workload: redeem a fresh join token"),
            },
            Caller::Agent { id, key, serial, incarnation, opened } => {
                let ours = *incarnation == self.base.incarnation && self.owner(key) == Some(&Owner::Agent(id.uuid));
                let Some(agent) = self.agent(&id.uuid).filter(|_| ours) else {
                    return no("AGENT_UNKNOWN", "this issuer does not know the agent");
                };
                self.standing(agent).refusal().map_or(Ok(()), |(code, message)| no(code, message))?;
                match agent.generation(serial) {
                    Generation::Current => Ok(()),
                    Generation::Next => {
                        let used = record::Used { agent: id.uuid.as_bytes().to_vec() };
                        self.push(caller, Body::Used(used)).map(drop)
                    }
                    Generation::Replaced => {
                        no("GENERATION_REPLACED", "a later renewal replaced this certificate: use what that one gave")
                    }
                    // T15: a pooled connection of an honest agent stands since before its renewal was used. A new one under the
                    // old certificate is somebody else's, or the agent's own copy: nobody can tell, so the agent is over.
                    Generation::Past if *opened < agent.used_since => Ok(()),
                    Generation::Past => {
                        tracing::warn!(agent = %id, "a certificate from before the renewal was used again: the agent is cut");
                        let target = record::cut::Target::Agent(id.uuid.as_bytes().to_vec());
                        self.cut(caller, target, u64::MAX, false, "a past certificate was used on a new connection")?;
                        let message = "a certificate from before the renewal was used on a new connection: somebody holds a copy, \
                                       so the agent was revoked";
                        no("CREDENTIAL_REUSED", message)
                    }
                }
            }
        }
    }

    fn spawn(&mut self, caller: &Caller, spawn: &Spawn) -> Result<Outcome, No> {
        if let Some(done) = self.done(spawn.request.as_ref())? {
            return self.spawned_before(&done, &spawn.credential);
        }
        let class = self.rules.classes.get(&spawn.class).ok_or_else(|| policy::unknown_class(&spawn.class))?;
        let now = self.at / SECOND;
        // Who asks, and what it may give.
        let (by, delegation, fresh, lineage, permit) = match caller {
            Caller::Workload { name, .. } => {
                let known = spawn.proof.as_ref().map(|proof| self.delegation(name, proof)).transpose()?;
                let grant = known.as_ref().map(|(d, _)| Grant {
                    user: &d.user,
                    scopes: d.scopes.as_deref(),
                    ends_at: d.ends_at / SECOND,
                });
                let permit = policy::decide_spawn(class, &policy::Standing::Workload(name, grant), &spawn.asked, now)?;
                let fresh = known.as_ref().is_some_and(|(_, fresh)| *fresh);
                (name.clone(), known.map(|(d, _)| d), fresh, None, permit)
            }
            Caller::Agent { id, .. } => {
                if spawn.proof.is_some() {
                    return Err(policy::token_of_agent().into());
                }
                let parent = self.agent(&id.uuid).ok_or_else(|| Fault::new("spawn", "the caller is gone"))?;
                let standing = policy::Standing::Agent(policy::Parent {
                    class: &parent.class,
                    mode: parent.mode(),
                    scopes: &parent.scopes,
                    audiences: &parent.audiences,
                    depth_left: parent.depth_left,
                    lease_ends_at: parent.lease_ends_at,
                });
                let permit = policy::decide_spawn(class, &standing, &spawn.asked, now)?;
                (parent.workload.clone(), parent.delegation.clone(), false, Some(parent.lineage_below()), permit)
            }
            _ => return Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads and agents spawn agents").into()),
        };
        if let Some(audience) = &spawn.audience {
            policy::decide_mint(Some(class), &permit.audiences, audience)?;
        }
        let (key, ticket, life) = match &spawn.credential {
            Credential::Key(key) if self.owner(key).is_some() => return Err(key_in_use().into()),
            Credential::Key(key) => (key.to_vec(), Vec::new(), class.svid_ttl),
            Credential::Ticket(hash, life) => (Vec::new(), hash.to_vec(), *life),
        };
        let svid_ends_at = self.svid_end(life, permit.lease_ends_at)?;
        let uuid = self.new_agent_id()?;
        let charges = self.charge(&by, delegation.as_deref(), lineage.as_deref(), class)?;
        let admitted = record::Admitted {
            agent: uuid.as_bytes().to_vec(),
            class: class.name.to_string(),
            workload: by.to_string(),
            parent: lineage.as_ref().and_then(|l| l.agents.first()).map(|(_, p)| p.as_bytes().to_vec()).unwrap_or_default(),
            delegation: delegation.as_ref().map(|d| d.id.0.to_vec()).unwrap_or_default(),
            key,
            scopes: permit.scopes,
            audiences: permit.audiences,
            depth_left: permit.depth_left,
            lease_ends_at: permit.lease_ends_at,
            svid_ends_at,
            svid_begins_at: now.saturating_sub(BACKDATE),
            serial: serial()?,
            request: spawn.request.as_ref().map(request_record),
            clipped: permit.clipped,
            ticket,
            charges,
        };
        // DESIGN 3: a binding that would exceed its size is a denial before commit.
        let next = self.top.revision + 1 + u64::from(fresh);
        let trial = Agent::admitted(next, self.at, &admitted, delegation.clone(), lineage).map_err(|e| Fault::new("admit", e))?;
        let binding = trial.binding(&self.rules.trust_domain, self.base.incarnation, next + 1, &trial.scopes);
        binding.check_size().map_err(|e| Denial::denied("BINDING_TOO_LARGE", e.to_string()))?;

        if let Some(d) = delegation.as_ref().filter(|_| fresh) {
            let body = record::Delegated {
                id: d.id.0.to_vec(),
                iss: d.user.iss.clone(),
                sub: d.user.sub.clone(),
                workload: d.workload.to_string(),
                proof: d.proof.to_vec(),
                token: d.token.to_vec(),
                scopes_limited: d.scopes.is_some(),
                scopes: d.scopes.clone().unwrap_or_default(),
                ends_at: d.ends_at,
            };
            self.push(caller, Body::Delegated(body))?;
        }
        self.push(caller, Body::Admitted(admitted))?;
        let mut token = None;
        if let Some(audience) = &spawn.audience {
            let minted = self.minted(uuid, audience, trial.lease_ends_at, spawn.request.as_ref(), None)?;
            let revision = self.push(caller, Body::Minted(minted.clone()))?;
            token = Some(token_of(&minted, uuid, revision)?);
        }
        self.spawned(&uuid, token)
    }

    /// Unix seconds at which a certificate of `life` seconds ends: not after the lease, nor after who signs it (T16, T17).
    fn svid_end(&self, life: u64, lease_ends_at: u64) -> Result<u64, No> {
        let now = self.at / SECOND;
        let ends_at = now.saturating_add(life).min(lease_ends_at).min(self.rules.authority_ends_at);
        if ends_at > now { Ok(ends_at) } else { Err(Fault::new("certify", "the issuing certificate has ended").into()) }
    }

    /// What a spawn uses up of every limit that it meets; all of it, or the refusal of the first that is full.
    fn charge(
        &self,
        root: &WorkloadName,
        delegation: Option<&Delegation>,
        lineage: Option<&Lineage>,
        class: &Class,
    ) -> Result<Vec<record::Charge>, Denial> {
        let mut charges = Vec::new();
        for limit in &self.rules.limits {
            let agents = lineage.map(|l| l.agents.as_slice()).unwrap_or_default();
            let targets: Vec<Target> = match limit.per {
                Per::User => delegation.iter().map(|d| Target::User(d.user.clone())).collect(),
                Per::Root => vec![Target::Workload(root.clone())],
                Per::Workload if agents.is_empty() => vec![Target::Workload(root.clone())],
                Per::Workload => vec![],
                // Only the spawner has children; what lives below counts for everybody above.
                Per::Parent if matches!(limit.measure, Measure::FanOut(_)) => {
                    agents.first().map(|(_, uuid)| Target::Agent(*uuid)).into_iter().collect()
                }
                Per::Parent => agents.iter().map(|(_, uuid)| Target::Agent(*uuid)).collect(),
                Per::Class => vec![Target::Class(class.name.clone())],
            };
            for target in targets {
                let subject = target.subject();
                let refuse = |full: Full| refused(limit, full);
                match limit.measure {
                    Measure::Live(most) => {
                        let count = match limit.per {
                            Per::Class => Count::OfClass,
                            Per::Workload => Count::DirectlyBelow,
                            _ => Count::Below,
                        };
                        limits::live(self.seats(Seat(count, subject)), most).map_err(refuse)?;
                    }
                    Measure::FanOut(most) => {
                        limits::live(self.seats(Seat(Count::DirectlyBelow, subject)), most).map_err(refuse)?;
                    }
                    Measure::Rate { period, burst } => {
                        let meter = meter(limit, &subject.0);
                        charges.push((meter, limits::rate(self.meter(&meter), period, burst, self.at).map_err(refuse)?));
                    }
                    Measure::Total { most, window } => {
                        let meter = meter(limit, &subject.0);
                        charges.push((meter, limits::total(self.meter(&meter), most, window, self.at).map_err(refuse)?));
                    }
                }
            }
        }
        let charge = |(meter, r): ([u8; 16], Reading)| record::Charge { meter: meter.to_vec(), value: r.value, until: r.until };
        Ok(charges.into_iter().map(charge).collect())
    }

    fn mint(&mut self, caller: &Caller, audience: &str, request: Option<&RequestId>) -> Result<Outcome, No> {
        let Caller::Agent { id, .. } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "only agents mint JWT-SVIDs for themselves").into());
        };
        if let Some(done) = self.done(request)? {
            let token = done.token.ok_or_else(|| Fault::new("mint", "a request without its token"))?;
            return Ok(Outcome::Minted(self.mint_of(token)?));
        }
        let agent = self.agent(&id.uuid).ok_or_else(|| Fault::new("mint", "the caller is gone"))?;
        let class = self.rules.classes.get(&agent.class);
        policy::decide_mint(class, &agent.audiences, audience)?;
        let kept = self.kept(agent)?;
        let narrowed = (kept.scopes != agent.scopes).then_some(kept.scopes);
        let minted = self.minted(id.uuid, audience, agent.lease_ends_at, request, narrowed)?;
        let revision = self.push(caller, Body::Minted(minted.clone()))?;
        let token = token_of(&minted, id.uuid, revision)?;
        Ok(Outcome::Minted(self.mint_of(token)?))
    }

    fn end(&mut self, caller: &Caller, agent: Option<Uuid>) -> Result<Outcome, No> {
        let uuid = match (agent, caller) {
            (Some(uuid), _) => uuid,
            (None, Caller::Agent { id, .. }) => id.uuid,
            (None, _) => return Err(Denial::malformed("AGENT_MISSING", "say which agent is to end").into()),
        };
        let may = |agent: &&Agent| match caller {
            Caller::Operator { .. } => true,
            Caller::Agent { id, .. } => id.uuid == agent.uuid || agent.ancestors().any(|above| above == id.uuid),
            Caller::Workload { name, .. } => *name == agent.workload,
            Caller::Stranger => false,
        };
        // T13: what is not the caller's looks as if it were not there.
        let known = self.agent(&uuid).filter(may).ok_or_else(unknown_agent)?;
        let id = known.id(&self.rules.trust_domain);
        if let Some(revision) = known.ended {
            return Ok(Outcome::Ended { agent: id, revision });
        }
        let by = match caller {
            Caller::Operator { .. } => String::new(),
            other => other.scope(),
        };
        let revision = self.push(caller, Body::Ended(record::Ended { agent: uuid.as_bytes().to_vec(), by }))?;
        Ok(Outcome::Ended { agent: id, revision })
    }

    fn ticket(&mut self, caller: &Caller, workload: &WorkloadName, hash: [u8; 32], ttl: u64) -> Result<Outcome, No> {
        if !self.rules.workloads.contains(workload) {
            let message = format!("workload `{workload}` is not configured: add it to `workloads` in the file");
            return Err(Denial::new(Kind::NotFound, "WORKLOAD_UNKNOWN", message).into());
        }
        let ends_at = self.at.saturating_add(seconds(ttl));
        let made = record::TicketMade { hash: hash.to_vec(), workload: workload.to_string(), ends_at };
        let revision = self.push(caller, Body::TicketMade(made))?;
        Ok(Outcome::Ticketed { ends_at, revision })
    }

    fn redeem(&mut self, hash: [u8; 32], key: [u8; 32]) -> Result<Outcome, No> {
        // One answer for all that is wrong with a secret: a guesser learns nothing.
        let refused = || {
            Denial::denied("TICKET_REFUSED", "the ticket is unknown, over, or was redeemed with another key: ask for a fresh one")
        };
        let ticket = self.top.tickets.get(&hash).or_else(|| self.base.tickets.get(&hash)).ok_or_else(refused)?.clone();
        let workload = match ticket.holder {
            Holder::Agent(uuid) => return self.redeem_agent(uuid, key).map_err(|no| no.unwrap_or_else(|| refused().into())),
            Holder::Workload(name) => name,
        };
        if self.at >= ticket.ends_at || !self.rules.workloads.contains(&workload) {
            return Err(refused().into());
        }
        if let Some(certificate) = &ticket.redeemed {
            // Same key, same answer; another key is somebody who should not have the secret.
            if certificate.key == key {
                return Ok(Outcome::Certified(Certification { workload, certificate: certificate.clone() }));
            }
            tracing::warn!(%workload, "a ticket was presented again with another key");
            return Err(refused().into());
        }
        self.certify(&Caller::Stranger, &workload, key, Some(hash), None)
    }

    /// The first certificate of an agent that came with a ticket; no reason means what every guesser hears.
    fn redeem_agent(&mut self, uuid: Uuid, key: [u8; 32]) -> Result<Outcome, Option<No>> {
        let agent = self.agent(&uuid).ok_or(None)?;
        if self.standing(agent) != Standing::Live {
            return Err(None);
        }
        if let Some(certificate) = &agent.current {
            // Same key, same answer, as long as that certificate is the last.
            if certificate.key == key && agent.next.is_none() && agent.used_since == certificate.revision {
                return Ok(Outcome::Renewed(self.admission(agent, Some(certificate.clone()))));
            }
            tracing::warn!(agent = %uuid, "a ticket was presented again with another key");
            return Err(None);
        }
        if self.owner(&key).is_some() {
            return Err(Some(key_in_use().into()));
        }
        let class = self.rules.classes.get(&agent.class).ok_or(None)?;
        let ends_at = self.svid_end(class.svid_ttl, agent.lease_ends_at).map_err(Some)?;
        let body = record::Redeemed {
            agent: uuid.as_bytes().to_vec(),
            key: key.to_vec(),
            serial: serial().map_err(|e| Some(e.into()))?,
            begins_at: (self.at / SECOND).saturating_sub(BACKDATE),
            ends_at,
        };
        self.push(&Caller::Stranger, Body::Redeemed(body)).map_err(Some)?;
        self.last_certificate(&uuid).map_err(Some)
    }

    fn renew(&mut self, caller: &Caller, key: [u8; 32]) -> Result<Outcome, No> {
        match caller {
            Caller::Workload { name, key: old } => self.certify(caller, &name.clone(), key, None, Some(*old)),
            Caller::Agent { id, serial, .. } => self.renew_agent(caller, id.uuid, serial, key),
            _ => Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads and agents renew").into()),
        }
    }

    /// The next generation of an agent's certificate. Decided again: never wider than now allowed, and the lease stays.
    fn renew_agent(&mut self, caller: &Caller, uuid: Uuid, with: &[u8], key: [u8; 32]) -> Result<Outcome, No> {
        let agent = self.agent(&uuid).ok_or_else(|| Fault::new("renew", "the caller is gone"))?;
        if agent.generation(with) != Generation::Current {
            let message = "this connection is from before the last renewal: connect with the renewed certificate";
            return Err(Denial::denied("GENERATION_PAST", message).into());
        }
        if agent.replaced.len() >= UNUSED {
            let message = "too many renewed certificates were never used: use the last one first";
            return Err(Denial::new(Kind::Exhausted, "RENEWALS_UNUSED", message).into());
        }
        // Its own key again, or one that nobody has.
        let own = agent.current.as_ref().is_some_and(|c| c.key == key);
        if !own && self.owner(&key).is_some() {
            return Err(key_in_use().into());
        }
        let class = self.rules.classes.get(&agent.class);
        let kept = self.kept(agent)?;
        let narrowed = kept.scopes != agent.scopes || kept.audiences != agent.audiences;
        let ends_at = self.svid_end(class.map_or(0, |c| c.svid_ttl), agent.lease_ends_at)?;
        let body = record::Renewed {
            agent: uuid.as_bytes().to_vec(),
            key: key.to_vec(),
            serial: serial()?,
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
    fn kept(&self, agent: &Agent) -> Result<policy::Kept, Denial> {
        let mut kept = policy::decide_again(self.rules.classes.get(&agent.class), &agent.scopes, &agent.audiences)?;
        for above in agent.ancestors().filter_map(|uuid| self.agent(&uuid)) {
            let class = self.rules.classes.get(&above.class);
            let allowed = policy::decide_again(class, &above.scopes, &above.audiences)?;
            kept.scopes.retain(|s| allowed.scopes.contains(s));
            kept.audiences.retain(|a| allowed.audiences.contains(a));
        }
        if kept.scopes.is_empty() && !agent.scopes.is_empty() {
            return Err(Denial::denied("NOTHING_LEFT", "those above the agent may no longer do any of what it may"));
        }
        Ok(kept)
    }

    fn last_certificate(&self, uuid: &Uuid) -> Result<Outcome, No> {
        let agent = self.agent(uuid).ok_or_else(|| Fault::new("certify", "the agent is gone"))?;
        Ok(Outcome::Renewed(self.admission(agent, agent.last().cloned())))
    }

    fn certify(
        &mut self,
        caller: &Caller,
        workload: &WorkloadName,
        key: [u8; 32],
        ticket: Option<[u8; 32]>,
        renewed_from: Option<[u8; 32]>,
    ) -> Result<Outcome, No> {
        match self.owner(&key) {
            None => {}
            Some(Owner::Workload(owner, _)) if owner == workload && ticket.is_none() => {}
            Some(_) => return Err(key_in_use().into()),
        }
        let now = self.at / SECOND;
        let certificate = Certificate {
            key,
            serial: serial()?,
            begins_at: now.saturating_sub(BACKDATE),
            ends_at: now.saturating_add(self.rules.workload_ttl).min(self.rules.authority_ends_at),
            revision: self.top.revision + 1,
        };
        let body = record::Certified {
            workload: workload.to_string(),
            key: key.to_vec(),
            serial: certificate.serial.clone(),
            begins_at: certificate.begins_at,
            ends_at: certificate.ends_at,
            ticket: ticket.map(Vec::from).unwrap_or_default(),
            renewed_from: renewed_from.map(Vec::from).unwrap_or_default(),
        };
        self.push(caller, Body::Certified(body))?;
        Ok(Outcome::Certified(Certification { workload: workload.clone(), certificate }))
    }

    fn revoke_agent(&mut self, caller: &Caller, uuid: Uuid, reason: &str) -> Result<Outcome, No> {
        let agent = self.agent(&uuid).ok_or_else(unknown_agent)?;
        let below = self.seats(Seat(Count::Below, Target::Agent(uuid).subject()));
        let live = u64::from(self.standing(agent) == Standing::Live).saturating_add(below);
        // Of what lives below it too: no credential there outlives its lease.
        let longest = if agent.has_children() { self.longest() } else { self.rules.jwt_ttl };
        let worst = self.worst_case(agent.svid_ends_at.max(self.at / SECOND + longest).min(agent.lease_ends_at));
        // An agent never comes back: its cut has no end.
        let target = record::cut::Target::Agent(uuid.as_bytes().to_vec());
        let revision = self.cut(caller, target, u64::MAX, false, reason)?;
        Ok(Outcome::Revoked { revision, agents_at_most: live, open_for_new: false, worst_case_seconds: worst, at: self.at })
    }

    fn revoke_user(&mut self, caller: &Caller, user: &User, reason: &str, closes: bool) -> Result<Outcome, No> {
        let agents_at_most = self.seats(Seat(Count::Below, Target::User(user.clone()).subject()));
        let longest = self.longest();
        let open = !closes && !self.user(user).is_some_and(|u| u.closed);
        let target = record::cut::Target::User(record::User { iss: user.iss.clone(), sub: user.sub.clone() });
        let revision = self.cut(caller, target, self.top.revision + 1, closes, reason)?;
        Ok(Outcome::Revoked { revision, agents_at_most, open_for_new: open, worst_case_seconds: longest, at: self.at })
    }

    fn cut(&mut self, caller: &Caller, target: record::cut::Target, before: u64, closes: bool, reason: &str) -> Result<u64, No> {
        // Kept until the last thing it can hit has ended: no lease and no token outlives these.
        let lease = self.rules.classes.values().map(|c| c.max_lease).max().unwrap_or(0);
        let keep_until = self.at.saturating_add(seconds(lease).max(CUT_KEEP)).saturating_add(SKEW);
        let body = record::Cut { before, closes, keep_until, reason: reason.to_owned(), target: Some(target) };
        self.push(caller, Body::Cut(body))
    }

    fn reopen(&mut self, caller: &Caller, user: &User) -> Result<Outcome, No> {
        if !self.user(user).is_some_and(|u| u.closed) {
            let message = format!("user `{}` of `{}` is not closed: there is nothing to reopen", user.sub, user.iss);
            return Err(Denial::new(Kind::NotFound, "USER_NOT_CLOSED", message).into());
        }
        let body = record::Reopened { user: Some(record::User { iss: user.iss.clone(), sub: user.sub.clone() }) };
        let revision = self.push(caller, Body::Reopened(body))?;
        Ok(Outcome::Reopened { revision, at: self.at })
    }

    /// The delegation behind a proof, and whether it is new.
    fn delegation(&self, by: &WorkloadName, proof: &Proof) -> Result<(Arc<Delegation>, bool), No> {
        let digest = match proof {
            Proof::Token { proof, .. } | Proof::Recorded(proof) => proof,
        };
        let known = self.top.delegation_by_proof(digest, self.at).or_else(|| self.base.delegation_by_proof(digest, self.at));
        if let Some(known) = known {
            if known.workload != *by {
                tracing::warn!(recorded = %known.workload, presented = %by, "a user token was presented by another workload");
                let message = "this user token belongs to another workload: every workload brings its own";
                return Err(Denial::denied("USER_TOKEN_OF_ANOTHER", message).into());
            }
            self.check_user(&known.user, None)?;
            if self.killed(&[
                Stamp { subject: Target::User(known.user.clone()).subject(), since: known.revision },
                Stamp { subject: Target::Delegation(known.id).subject(), since: known.revision },
            ]) {
                let message = "what this user token allowed was revoked: bring one that was issued after that";
                return Err(Denial::denied("DELEGATION_REVOKED", message).into());
            }
            return Ok((Arc::clone(known), false));
        }
        let Proof::Token { user, proof, token, issued_at, ends_at, workloads, scopes } = proof else {
            return Err(Denial::denied("DELEGATION_EXPIRED", "the delegation has ended: bring a fresh user token").into());
        };
        if !workloads.contains(by) {
            let message = format!("workload `{by}` may not present tokens of this audience");
            return Err(Denial::denied("USER_TOKEN_AUDIENCE", message).into());
        }
        self.check_user(user, Some(*issued_at))?;
        if self.at >= seconds(*ends_at) {
            return Err(Denial::denied("USER_TOKEN_EXPIRED", "the user token has expired: bring a fresh one").into());
        }
        // RFC 8785: members sorted, no white space; integers and strings only.
        let canonical = json!({ "ends_at": ends_at, "iss": user.iss, "nonce": hex::encode(random::<16>()?),
            "scopes": scopes, "sub": user.sub, "workload": by.as_str() });
        let id = DelegationId(sha256(canonical.to_string().as_bytes()));
        let delegation = Delegation {
            id,
            user: user.clone(),
            workload: by.clone(),
            proof: *proof,
            token: *token,
            scopes: scopes.clone(),
            ends_at: seconds(*ends_at),
            revision: self.top.revision + 1,
        };
        Ok((Arc::new(delegation), true))
    }

    /// A closed user admits nothing; a proof counts only if it was issued after the user's last cut or reopening.
    fn check_user(&self, user: &User, issued_at: Option<u64>) -> Result<(), Denial> {
        let Some(standing) = self.user(user) else { return Ok(()) };
        if standing.closed {
            return Err(Denial::denied("USER_CLOSED", "this user was revoked: an operator must reopen them"));
        }
        // A token tells whole seconds: one from the second of the cut may be from before it.
        if issued_at.is_some_and(|at| at <= standing.since / SECOND) {
            return Err(Denial::denied(
                "USER_TOKEN_TOO_EARLY",
                "the user token is from before the user's revocation: bring a fresh one",
            ));
        }
        Ok(())
    }

    fn minted(
        &self,
        agent: Uuid,
        audience: &str,
        lease: u64,
        request: Option<&RequestId>,
        narrowed: Option<Vec<String>>,
    ) -> Result<record::Minted, No> {
        let now = self.at / SECOND;
        Ok(record::Minted {
            agent: agent.as_bytes().to_vec(),
            audience: audience.to_owned(),
            jti: random::<16>()?.to_vec(),
            issued_at: now,
            ends_at: now.saturating_add(self.rules.jwt_ttl).min(lease),
            request: request.map(request_record),
            narrowed: narrowed.is_some(),
            scopes: narrowed.unwrap_or_default(),
        })
    }

    fn done(&self, request: Option<&RequestId>) -> Result<Option<Done>, Denial> {
        let Some(request) = request else { return Ok(None) };
        let done = self.top.requests.get(&request.key).or_else(|| self.base.requests.get(&request.key));
        match done {
            Some(done) if done.digest != request.digest => {
                let message = "the request id stands for another request: use a new one";
                Err(Denial::new(Kind::Conflict, "REQUEST_ID_REUSED", message))
            }
            done => Ok(done.cloned()),
        }
    }

    fn spawned_before(&self, done: &Done, credential: &Credential) -> Result<Outcome, No> {
        let uuid = done.agent.ok_or_else(|| Fault::new("spawn", "a request without its agent"))?;
        let agent = self.agent(&uuid).ok_or_else(unknown_agent)?;
        if let Some((code, message)) = self.standing(agent).refusal() {
            return Err(Denial::denied(code, message).into());
        }
        let first = match credential {
            Credential::Key(_) => agent.last().is_some_and(|c| c.revision == agent.revision),
            Credential::Ticket(hash, _) => agent.ticket == Some(*hash) && agent.current.is_none(),
        };
        if !first {
            let message = "the agent of this request has its identity already, and has moved on from the first one";
            return Err(Denial::new(Kind::Conflict, "REQUEST_DONE", message).into());
        }
        self.spawned(&uuid, done.token.clone())
    }

    fn spawned(&self, uuid: &Uuid, token: Option<Token>) -> Result<Outcome, No> {
        let agent = self.agent(uuid).ok_or_else(|| Fault::new("spawn", "the admission is gone"))?;
        let mint = token.map(|t| self.mint_of(t)).transpose()?;
        Ok(Outcome::Spawned(self.admission(agent, agent.current.clone()), mint))
    }

    fn admission(&self, agent: &Agent, certificate: Option<Certificate>) -> Admission {
        let revision = certificate.as_ref().map_or(agent.revision, |c| c.revision);
        let binding = agent.binding(&self.rules.trust_domain, self.base.incarnation, revision, &agent.scopes);
        let id = agent.id(&self.rules.trust_domain);
        Admission { id, agent: Arc::new(agent.clone()), certificate, binding: Arc::new(binding) }
    }

    fn mint_of(&self, token: Token) -> Result<Mint, Fault> {
        let agent = self.agent(&token.agent).ok_or_else(|| Fault::new("mint", "the agent is gone"))?;
        let scopes = token.narrowed.as_ref().unwrap_or(&agent.scopes);
        let binding = agent.binding(&self.rules.trust_domain, self.base.incarnation, token.revision, scopes);
        Ok(Mint { id: agent.id(&self.rules.trust_domain), token, binding: Arc::new(binding) })
    }

    fn new_agent_id(&self) -> Result<Uuid, Fault> {
        let uuid = uuid::Builder::from_unix_timestamp_millis(self.at / 1000, &random::<10>()?).into_uuid();
        // 74 random bits per millisecond; a repeat means the source of chance is broken.
        if self.agent(&uuid).is_some() { Err(Fault::new("spawn", "the same id twice")) } else { Ok(uuid) }
    }

    fn push(&mut self, caller: &Caller, body: Body) -> Result<u64, No> {
        let operator = if let Caller::Operator { name } = caller { name.clone() } else { String::new() };
        let record = Record { at: self.at, operator, body: Some(body) };
        let revision = self.top.revision + 1;
        self.adopt(&record);
        self.top.insert(revision, &record).map_err(|e| Fault::new("admit", e))?;
        self.records.push(record);
        Ok(revision)
    }

    /// Copies up what the record is about to change.
    fn adopt(&mut self, record: &Record) {
        match record.body.as_ref() {
            Some(Body::Admitted(a)) => {
                let id = DelegationId(super::state::fixed(&a.delegation).unwrap_or_default());
                if let Some(delegation) = self.base.delegations.get(&id) {
                    self.top.delegations.entry(id).or_insert_with(|| Arc::clone(delegation));
                }
                self.adopt_agent(&a.parent);
            }
            Some(Body::Ended(e)) => self.adopt_agent(&e.agent),
            Some(Body::Redeemed(r)) => self.adopt_agent(&r.agent),
            Some(Body::Renewed(r)) => self.adopt_agent(&r.agent),
            Some(Body::Used(u)) => self.adopt_agent(&u.agent),
            Some(Body::Certified(c)) => {
                if let Some((hash, ticket)) = super::state::fixed(&c.ticket).and_then(|h| self.base.tickets.get_key_value(&h)) {
                    self.top.tickets.entry(*hash).or_insert_with(|| Ticket::clone(ticket));
                }
            }
            Some(Body::Cut(c)) => match &c.target {
                Some(record::cut::Target::User(u)) => {
                    let user = User { iss: u.iss.clone(), sub: u.sub.clone() };
                    if let Some(standing) = self.base.users.get(&user) {
                        self.top.users.entry(user).or_insert_with(|| UserStanding::clone(standing));
                    }
                }
                Some(record::cut::Target::Agent(id)) => self.adopt_agent(id),
                _ => {}
            },
            _ => {}
        }
    }

    fn adopt_agent(&mut self, id: &[u8]) {
        if let Some(agent) = Uuid::from_slice(id).ok().and_then(|id| self.base.agents.get(&id)) {
            let gone = self.run_out.contains(&agent.uuid);
            self.top.agents.entry(agent.uuid).or_insert_with(|| {
                let mut copy = agent.clone();
                copy.unseat_copy(gone);
                copy
            });
        }
    }

    fn agent(&self, uuid: &Uuid) -> Option<&Agent> {
        self.top.agents.get(uuid).or_else(|| self.base.agents.get(uuid))
    }

    fn owner(&self, key: &[u8; 32]) -> Option<&Owner> {
        self.top.keys.get(key).or_else(|| self.base.keys.get(key))
    }

    fn user(&self, user: &User) -> Option<&UserStanding> {
        self.top.users.get(user).or_else(|| self.base.users.get(user))
    }

    fn killed(&self, stamps: &[Stamp]) -> bool {
        let dead = |state: &State, s: &Stamp| state.cuts.get(&s.subject).is_some_and(|(before, _)| s.since < *before);
        stamps.iter().any(|s| dead(&self.top, s) || dead(self.base, s))
    }

    fn standing(&self, agent: &Agent) -> Standing {
        standing(agent, self.at, |stamps| self.killed(stamps), |uuid| self.agent(uuid))
    }

    fn seats(&self, seat: Seat) -> u64 {
        u64::try_from(self.base.seats(seat) + self.top.seats(seat)).unwrap_or(0)
    }

    fn meter(&self, meter: &[u8; 16]) -> Option<Reading> {
        self.top.meters.get(meter).or_else(|| self.base.meters.get(meter)).copied()
    }

    /// Seconds that anything lasts that was signed just now.
    fn longest(&self) -> u64 {
        // Agents that ended hold certificates too: what is out lasts as long as any class lets it.
        self.rules.classes.values().map(|c| c.svid_ttl).max().unwrap_or(0).max(self.rules.jwt_ttl)
    }

    fn worst_case(&self, ends_at: u64) -> u64 {
        ends_at.saturating_sub(self.at / SECOND)
    }
}

fn token_of(minted: &record::Minted, agent: Uuid, revision: u64) -> Result<Token, Fault> {
    let jti = super::state::fixed(&minted.jti).ok_or_else(|| Fault::new("mint", "jti"))?;
    let (issued_at, ends_at) = (minted.issued_at, minted.ends_at);
    let narrowed = minted.narrowed.then(|| minted.scopes.clone());
    Ok(Token { agent, audience: minted.audience.clone(), jti, issued_at, ends_at, narrowed, revision })
}

fn request_record(request: &RequestId) -> record::Request {
    record::Request { key: request.key.to_vec(), digest: request.digest.to_vec() }
}

fn key_in_use() -> Denial {
    let message = "the key is certified already: a key belongs to one agent or workload, make a new one";
    Denial::new(Kind::Conflict, "KEY_IN_USE", message)
}

/// A limit's refusal: which, its value, what is used, and when to ask again.
fn refused(limit: &Limit, full: Full) -> Denial {
    let (per, measure) = (limit.per.as_str(), limit.measure.as_str());
    let message = format!(
        "limit `{}` ({measure} per {per}) is reached: {} of {} are used{}",
        limit.name,
        full.used,
        full.limit,
        if full.retry.is_some() { "" } else { "; places come back when agents end or expire" }
    );
    let denial = Denial::new(Kind::Exhausted, "LIMIT_REACHED", message).with("limit", limit.name.clone());
    let denial = denial.with("per", per).with("measure", measure).with("value", full.limit.to_string());
    denial.with("used", full.used.to_string()).retry_after(full.retry)
}

/// Which meter a limit has for a subject.
fn meter(limit: &Limit, subject: &[u8; 16]) -> [u8; 16] {
    let name = limit.name.as_bytes();
    let kind = limit.measure.as_str().as_bytes();
    let parts: [&[u8]; 5] = [name, b"\0", kind, b"\0", subject];
    let mut meter = [0u8; 16];
    for (to, from) in meter.iter_mut().zip(sha256(&parts.concat())) {
        *to = from;
    }
    meter
}

fn unknown_agent() -> Denial {
    Denial::new(Kind::NotFound, "AGENT_UNKNOWN", "there is no such agent, or none that you may see")
}

/// Positive, 127 random bits (T29).
fn serial() -> Result<Vec<u8>, Fault> {
    let mut bytes = random::<16>()?;
    if let Some(first) = bytes.first_mut() {
        // Never zero in front and never negative: one encoding, always 16 octets.
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(bytes.to_vec())
}

fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Fault::new("random", "the system gave none"))?;
    Ok(bytes)
}
