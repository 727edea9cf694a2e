//! Admit: what a request would record, judged against state plus the batch so far. Nothing is durable yet.
//! Here the batch and the caller; in the files below what each kind of request needs.

pub(super) mod authority;
mod certify;
mod revoke;
mod spawn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mayfly_verify::{ClassName, DelegationId, Stamp, Target, TrustDomain, Workload, WorkloadName};
use uuid::Uuid;

use super::proposal::{Admission, Ask, Outcome, Proposal, RequestId};
use super::state::{Agent, Certificate, Done, Generation, Owner, Standing};
use super::state::{Seat, State, TargetStanding, Ticket, seconds, standing};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, Record, record::Body};
use crate::policy::Class;
use crate::policy::limits::{Limit, Reading};
use revoke::Cutting;

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
    /// Seconds that a JWT authority is published before it signs (BU-9).
    pub publish_ahead: u64,
}

impl Rules {
    /// Seconds that any certificate lasts at most.
    pub fn x509_life(&self) -> u64 {
        self.classes.values().map(|c| c.svid_ttl).max().unwrap_or(0).max(self.workload_ttl)
    }
}

/// What a group would record on a state at `now` (unix microseconds), refusals left out. Nothing is durable, and nothing of it
/// leads to a signature: it is there to be measured.
pub fn would_record(state: &State, rules: &Rules, now: u64, asks: &[Ask]) -> Vec<Record> {
    let mut batch = Batch::new(state, rules, now);
    asks.iter().for_each(|ask| drop(batch.admit(ask)));
    batch.records
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
            top.count(agent.seats(), -1);
        }
        Batch { base, top, rules, at, run_out, records: Vec::new() }
    }

    /// Judges one request; its records join the batch, or nothing does.
    pub(super) fn admit(&mut self, ask: &Ask) -> Result<Outcome, No> {
        self.check_caller(&ask.caller)?;
        match &ask.proposal {
            Proposal::Spawn(spawn) => self.spawn(&ask.caller, spawn),
            Proposal::Mint { audiences, request } => self.mint(&ask.caller, audiences, request.as_ref()),
            Proposal::End { agent } => self.end(&ask.caller, *agent),
            Proposal::Ticket { workload, hash, ttl } => self.ticket(&ask.caller, workload, *hash, *ttl),
            Proposal::Redeem { hash, key } => self.redeem(*hash, *key),
            Proposal::Renew { key } => self.renew(&ask.caller, *key),
            Proposal::Present => Ok(Outcome::Present),
            Proposal::Revoke { target, since, dry, reason, allow_new } => {
                self.revoke(&ask.caller, &Cutting { target, since: *since, dry: *dry, reason, closes: !allow_new })
            }
            Proposal::Reopen { target } => self.reopen(&ask.caller, target),
            Proposal::Configure { classes } => self.configure(&ask.caller, *classes),
            Proposal::Authorities(change) => self.change_authorities(&ask.caller, change),
        }
    }

    // DESIGN 4: expiry, cuts and keys are checked per call; here once more, where the order is decided.
    fn check_caller(&mut self, caller: &Caller) -> Result<(), No> {
        let no = |code, message: &str| Err(Denial::new(Kind::Unauthenticated, code, message).into());
        match caller {
            Caller::Stranger | Caller::User(_) | Caller::Operator { .. } => Ok(()),
            Caller::Workload { key, .. } | Caller::Agent { key, .. } if self.key_revoked(key) => {
                no("KEY_REVOKED", "the key of this certificate was revoked: make a new one")
            }
            Caller::Workload { authority, .. } | Caller::Agent { authority, .. } if self.authorities().tainted(authority) => {
                no("AUTHORITY_TAINTED", "the authority that signed this certificate is tainted: nothing it signed holds")
            }
            Caller::Workload { name, key, .. } => match self.owner(key) {
                Some(Owner::Workload(owner, ends_at)) if owner == name && self.at < seconds(ends_at) => {
                    if self.rules.workloads.contains(name) {
                        return Ok(());
                    }
                    no("WORKLOAD_UNKNOWN", "the workload is no longer configured")
                }
                _ => no("WORKLOAD_UNKNOWN", "this key is not certified for the workload: redeem a fresh join token"),
            },
            // No key of ours: its own trust domain certified it. What holds of it is that it is listed, and not over.
            Caller::Foreign { ends_at, .. } => {
                if self.at >= seconds(*ends_at) {
                    return no("CREDENTIAL_EXPIRED", "the certificate has expired");
                }
                match self.rules.classes.values().any(|class| class.workloads.iter().any(|w| caller.is(w))) {
                    true => Ok(()),
                    false => no("CALLER_UNKNOWN", "no class lists the caller as a spawner"),
                }
            }
            Caller::Agent { id, key, serial, incarnation, opened, .. } => {
                let ours = *incarnation == self.base.incarnation && self.owner(key) == Some(Owner::Agent(id.uuid));
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
                        let reason = "a past certificate was used on a new connection";
                        self.cut(&Caller::Stranger, &Cutting::of(&Target::Agent(id.uuid), reason))?;
                        let message = "a certificate from before the renewal was used on a new connection: somebody holds a copy, \
                                       so the agent was revoked";
                        no("CREDENTIAL_REUSED", message)
                    }
                }
            }
        }
    }

    /// Unix seconds at which a certificate of `life` seconds ends: not after the lease, nor after who signs it (T16, T17).
    fn svid_end(&self, life: u64, lease_ends_at: u64) -> Result<u64, No> {
        let now = self.at / SECOND;
        let authority = self.signer(authority::Kind::X509)?;
        let ends_at = now.saturating_add(life).min(lease_ends_at).min(authority.ends_at);
        if ends_at > now { Ok(ends_at) } else { Err(Fault::new("certify", "the lease has ended").into()) }
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

    fn admission(&self, agent: &Agent, certificate: Option<Certificate>) -> Result<Admission, Denial> {
        let signer = self.signer(authority::Kind::X509)?;
        // Only a retry can ask for what another authority was to sign.
        if certificate.as_ref().is_some_and(|c| c.ends_at > signer.ends_at) {
            let message = "what this request was given outlasts the authority that signs now: ask anew";
            return Err(Denial::new(Kind::Conflict, "REQUEST_DONE", message));
        }
        let authority = Arc::clone(&signer.id);
        let revision = certificate.as_ref().map_or(agent.revision, |c| c.revision);
        let binding = agent.binding(&self.rules.trust_domain, self.base.incarnation, revision, &agent.mandate.scopes);
        let id = agent.id(&self.rules.trust_domain);
        Ok(Admission { id, agent: Arc::new(agent.clone()), certificate, binding: Arc::new(binding), authority })
    }

    fn push(&mut self, caller: &Caller, body: Body) -> Result<u64, No> {
        self.push_with(caller, body, None)
    }

    /// `agent`: what an admission makes.
    fn push_with(&mut self, caller: &Caller, body: Body, agent: Option<Agent>) -> Result<u64, No> {
        let operator = if let Caller::Operator { name } = caller { name.clone() } else { String::new() };
        let record = Record { at: self.at, operator, body: Some(body) };
        let revision = self.top.revision + 1;
        self.adopt(&record);
        self.top.insert_with(revision, &record, agent).map_err(|e| Fault::new("admit", e))?;
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
            // How its target stands is said whole by the record.
            Some(Body::Cut(record::Cut { target: Some(record::cut::Target::Agent(id)), .. })) => self.adopt_agent(id),
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
        self.top.agent(uuid).or_else(|| self.base.agent(uuid))
    }

    fn owner(&self, key: &[u8; 32]) -> Option<Owner<'_>> {
        self.top.owner(key).or_else(|| self.base.owner(key))
    }

    /// How a target stands; none: nothing was ever said of it, or that is over.
    fn target(&self, target: &Target) -> Option<&TargetStanding> {
        self.top.standings.get(target).or_else(|| self.base.standings.get(target))
    }

    fn closed(&self, target: &Target) -> bool {
        self.target(target).is_some_and(|standing| standing.closed)
    }

    fn key_revoked(&self, key: &[u8; 32]) -> bool {
        self.top.key_revoked(key) || self.base.key_revoked(key)
    }

    /// DESIGN 6: a cut key is never certified again.
    fn check_key(&self, key: &[u8; 32]) -> Result<(), Denial> {
        let revoked = || Denial::denied("KEY_REVOKED", "this key was revoked: make a new one");
        if self.key_revoked(key) { Err(revoked()) } else { Ok(()) }
    }

    fn check_workload(&self, workload: &Workload) -> Result<(), Denial> {
        let closed = || Denial::denied("WORKLOAD_CLOSED", "this workload was revoked: an operator must reopen it");
        if self.closed(&Target::Workload(workload.clone())) { Err(closed()) } else { Ok(()) }
    }

    fn check_class(&self, class: &ClassName) -> Result<(), Denial> {
        let message = || format!("class `{class}` was revoked: an operator must reopen it");
        let closed = self.closed(&Target::Class(class.clone()));
        if closed { Err(Denial::denied("CLASS_CLOSED", message())) } else { Ok(()) }
    }

    fn killed(&self, stamps: &[Stamp]) -> bool {
        stamps.iter().any(|stamp| self.dead(stamp))
    }

    fn dead(&self, s: &Stamp) -> bool {
        let dead = |state: &State| state.cuts.get(&s.subject).is_some_and(|(before, _)| s.since < *before);
        dead(&self.top) || dead(self.base)
    }

    fn standing(&self, agent: &Agent) -> Standing {
        standing(agent, self.at, |stamp| self.dead(stamp), |uuid| self.agent(uuid))
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

fn request_record(request: &RequestId) -> record::Request {
    record::Request { key: request.key.to_vec(), digest: request.digest.to_vec() }
}

fn key_in_use() -> Denial {
    let message = "the key is certified already: a key belongs to one agent or workload, make a new one";
    Denial::new(Kind::Conflict, "KEY_IN_USE", message)
}

fn unknown_agent() -> Denial {
    Denial::new(Kind::NotFound, "AGENT_UNKNOWN", "there is no such agent, or none that you may see")
}

/// Positive, 127 random bits (T29).
fn serial() -> Result<[u8; 16], Fault> {
    let mut bytes = random::<16>()?;
    if let Some(first) = bytes.first_mut() {
        // Never zero in front and never negative: one encoding, always 16 octets.
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(bytes)
}

fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Fault::new("random", "the system gave none"))?;
    Ok(bytes)
}
