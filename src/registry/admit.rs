//! Admit: what a request would record, judged against state plus the batch so far. Nothing is durable yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_verify::{ClassName, DelegationId, Stamp, Target, TrustDomain, User, WorkloadName, sha256};
use serde_json::json;
use uuid::Uuid;

use super::proposal::{Admission, Ask, Certification, Mint, Outcome, Proof, Proposal, RequestId, Spawn};
use super::state::{Agent, CUT_KEEP, Certificate, Delegation, Done, Owner, SKEW, Standing, State, Ticket, Token, UserStanding};
use super::state::{seconds, standing};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, Record, record::Body};
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
    /// Seconds a workload's certificate lasts.
    pub workload_ttl: u64,
    /// Seconds a JWT-SVID lasts.
    pub jwt_ttl: u64,
    /// Unix seconds at which the issuing certificate ends; no SVID outlives it (clause XL-13, T17).
    pub authority_ends_at: u64,
}

/// Seconds by which a certificate begins before it is signed, for clocks that are behind.
const BACKDATE: u64 = 10;

/// State, and over it the records of the batch so far.
pub(super) struct Batch<'a> {
    base: &'a State,
    // INVARIANT: holds a copy of everything in `base` that a record of this batch changed, so it is looked at first.
    top: State,
    rules: &'a Rules,
    at: u64,
    pub(super) records: Vec<Record>,
}

impl<'a> Batch<'a> {
    /// An empty batch at `now` (unix microseconds), which never goes back.
    pub(super) fn new(base: &'a State, rules: &'a Rules, now: u64) -> Batch<'a> {
        let at = now.max(base.at);
        let top = State::over(base.incarnation, base.revision, base.at);
        Batch { base, top, rules, at, records: Vec::new() }
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
    fn check_caller(&self, caller: &Caller) -> Result<(), Denial> {
        let no = |code, message: &str| Err(Denial::new(Kind::Unauthenticated, code, message));
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
            Caller::Agent { id, key, incarnation } => {
                let known = self.agent(&id.uuid).filter(|a| a.key == *key && *incarnation == self.base.incarnation);
                let Some(agent) = known else { return no("AGENT_UNKNOWN", "this issuer does not know the agent") };
                match self.standing(agent) {
                    Standing::Live => Ok(()),
                    Standing::Expired => no("AGENT_EXPIRED", "the agent has expired"),
                    Standing::Ended => no("AGENT_ENDED", "the agent has ended"),
                    Standing::Cut => no("AGENT_REVOKED", "the agent was revoked"),
                }
            }
        }
    }

    fn spawn(&mut self, caller: &Caller, spawn: &Spawn) -> Result<Outcome, No> {
        let Caller::Workload { name: by, .. } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads spawn agents").into());
        };
        if let Some(done) = self.done(spawn.request.as_ref())? {
            return self.spawned_before(&done);
        }
        let class = self.rules.classes.get(&spawn.class).ok_or_else(|| policy::unknown_class(&spawn.class))?;
        let delegation = spawn.proof.as_ref().map(|proof| self.delegation(by, proof)).transpose()?;
        let now = self.at / SECOND;
        let grant =
            delegation.as_ref().map(|(d, _)| Grant { user: &d.user, scopes: d.scopes.as_deref(), ends_at: d.ends_at / SECOND });
        let permit = policy::decide_spawn(class, by, grant.as_ref(), &spawn.asked, now)?;
        if let Some(audience) = &spawn.audience {
            policy::decide_mint(Some(class), &permit.audiences, audience)?;
        }
        if self.owner(&spawn.key).is_some() {
            let message = "the key is certified already: a key belongs to one agent, make a new one";
            return Err(Denial::new(Kind::Conflict, "KEY_IN_USE", message).into());
        }
        let svid_ends_at = now.saturating_add(class.svid_ttl).min(permit.lease_ends_at).min(self.rules.authority_ends_at);
        if svid_ends_at <= now {
            return Err(Fault::new("spawn", "the issuing certificate has ended").into());
        }
        let uuid = self.new_agent_id()?;
        let admitted = record::Admitted {
            agent: uuid.as_bytes().to_vec(),
            class: class.name.to_string(),
            workload: by.to_string(),
            parent: Vec::new(),
            delegation: delegation.as_ref().map(|(d, _)| d.id.0.to_vec()).unwrap_or_default(),
            key: spawn.key.to_vec(),
            scopes: permit.scopes,
            audiences: permit.audiences,
            depth_left: permit.depth_left,
            lease_ends_at: permit.lease_ends_at,
            svid_ends_at,
            svid_begins_at: now.saturating_sub(BACKDATE),
            serial: serial()?,
            request: spawn.request.as_ref().map(request_record),
            clipped: permit.clipped,
        };
        let mut bodies = Vec::with_capacity(3);
        let fresh = delegation.as_ref().filter(|(_, fresh)| *fresh).map(|(d, _)| d);
        if let Some(d) = fresh {
            bodies.push(Body::Delegated(record::Delegated {
                id: d.id.0.to_vec(),
                iss: d.user.iss.clone(),
                sub: d.user.sub.clone(),
                workload: d.workload.to_string(),
                proof: d.proof.to_vec(),
                token: d.token.to_vec(),
                scopes_limited: d.scopes.is_some(),
                scopes: d.scopes.clone().unwrap_or_default(),
                ends_at: d.ends_at,
            }));
        }
        let lease = admitted.lease_ends_at;
        bodies.push(Body::Admitted(admitted));
        if let Some(audience) = &spawn.audience {
            bodies.push(Body::Minted(self.minted(uuid, audience, lease, spawn.request.as_ref())?));
        }
        self.fits(&bodies, delegation.as_ref().map(|(d, _)| d))?;
        let mut token = None;
        for body in bodies {
            let minted = if let Body::Minted(m) = &body { Some(m.clone()) } else { None };
            let revision = self.push(caller, body)?;
            token = minted.map(|m| token_of(&m, uuid, revision)).transpose()?;
        }
        self.spawned(&uuid, token)
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
        policy::decide_mint(self.rules.classes.get(&agent.class), &agent.audiences, audience)?;
        let minted = self.minted(id.uuid, audience, agent.lease_ends_at, request)?;
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
            Caller::Agent { id, .. } => id.uuid == agent.uuid,
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
        if self.at >= ticket.ends_at || !self.rules.workloads.contains(&ticket.workload) {
            return Err(refused().into());
        }
        if let Some(certificate) = &ticket.redeemed {
            // Same key, same answer; another key is somebody who should not have the secret.
            if certificate.key == key {
                return Ok(Outcome::Certified(Certification { workload: ticket.workload, certificate: certificate.clone() }));
            }
            tracing::warn!(workload = %ticket.workload, "a ticket was presented again with another key");
            return Err(refused().into());
        }
        self.certify(&Caller::Stranger, &ticket.workload, key, Some(hash), None)
    }

    fn renew(&mut self, caller: &Caller, key: [u8; 32]) -> Result<Outcome, No> {
        let Caller::Workload { name, key: old } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads renew here").into());
        };
        self.certify(caller, &name.clone(), key, None, Some(*old))
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
            Some(_) => {
                return Err(Denial::new(Kind::Conflict, "KEY_IN_USE", "the key is certified already: make a new one").into());
            }
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
        let live = u64::from(self.standing(agent) == Standing::Live);
        let worst = self.worst_case(agent.svid_ends_at.max(self.at / SECOND + self.rules.jwt_ttl).min(agent.lease_ends_at));
        // An agent never comes back: its cut has no end.
        let target = record::cut::Target::Agent(uuid.as_bytes().to_vec());
        let revision = self.cut(caller, target, u64::MAX, false, reason)?;
        Ok(Outcome::Revoked { revision, agents_at_most: live, open_for_new: false, worst_case_seconds: worst, at: self.at })
    }

    fn revoke_user(&mut self, caller: &Caller, user: &User, reason: &str, closes: bool) -> Result<Outcome, No> {
        let count = |state: &State| state.agents_of.get(user).copied().unwrap_or(0);
        let agents_at_most = count(self.base).saturating_add(count(&self.top));
        // Agents that ended hold certificates too: what is out lasts as long as any class lets it.
        let longest = self.rules.classes.values().map(|c| c.svid_ttl).max().unwrap_or(0).max(self.rules.jwt_ttl);
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

    fn minted(&self, agent: Uuid, audience: &str, lease: u64, request: Option<&RequestId>) -> Result<record::Minted, No> {
        let now = self.at / SECOND;
        Ok(record::Minted {
            agent: agent.as_bytes().to_vec(),
            audience: audience.to_owned(),
            jti: random::<16>()?.to_vec(),
            issued_at: now,
            ends_at: now.saturating_add(self.rules.jwt_ttl).min(lease),
            request: request.map(request_record),
        })
    }

    /// DESIGN 3: a binding that would exceed its size is a denial before commit.
    fn fits(&self, bodies: &[Body], delegation: Option<&Arc<Delegation>>) -> Result<(), No> {
        let mut trial = State::over(self.base.incarnation, self.top.revision, self.at);
        if let Some(known) = delegation {
            trial.delegations.insert(known.id, Arc::clone(known));
        }
        let mut uuid = None;
        for (n, body) in (1..).zip(bodies) {
            if let Body::Admitted(admitted) = body {
                uuid = Uuid::from_slice(&admitted.agent).ok();
                let record = Record { at: self.at, operator: String::new(), body: Some(body.clone()) };
                trial.insert(self.top.revision + n, &record).map_err(|e| Fault::new("admit", e))?;
            }
        }
        let agent = uuid.and_then(|u| trial.agent(&u).cloned()).ok_or_else(|| Fault::new("admit", "no admission"))?;
        let binding = agent.binding(&self.rules.trust_domain, trial.incarnation, trial.revision + 1);
        let too_large = |e: mayfly_verify::BindingError| Denial::denied("BINDING_TOO_LARGE", e.to_string());
        binding.to_der().map_err(too_large)?;
        binding.to_claim().map_err(too_large)?;
        Ok(())
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

    fn spawned_before(&self, done: &Done) -> Result<Outcome, No> {
        let uuid = done.agent.ok_or_else(|| Fault::new("spawn", "a request without its agent"))?;
        let agent = self.agent(&uuid).ok_or_else(unknown_agent)?;
        match self.standing(agent) {
            Standing::Live => self.spawned(&uuid, done.token.clone()),
            Standing::Expired => Err(Denial::denied("AGENT_EXPIRED", "the agent of this request has expired").into()),
            Standing::Ended => Err(Denial::denied("AGENT_ENDED", "the agent of this request has ended").into()),
            Standing::Cut => Err(Denial::denied("AGENT_REVOKED", "the agent of this request was revoked").into()),
        }
    }

    fn spawned(&self, uuid: &Uuid, token: Option<Token>) -> Result<Outcome, No> {
        let agent = self.agent(uuid).ok_or_else(|| Fault::new("spawn", "the admission is gone"))?;
        let binding = agent.binding(&self.rules.trust_domain, self.base.incarnation, agent.revision);
        let admission =
            Admission { id: agent.id(&self.rules.trust_domain), agent: Arc::new(agent.clone()), binding: Arc::new(binding) };
        let mint = token.map(|t| self.mint_of(t)).transpose()?;
        Ok(Outcome::Spawned(admission, mint))
    }

    fn mint_of(&self, token: Token) -> Result<Mint, Fault> {
        let agent = self.agent(&token.agent).ok_or_else(|| Fault::new("mint", "the agent is gone"))?;
        let binding = agent.binding(&self.rules.trust_domain, self.base.incarnation, token.revision);
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
            }
            Some(Body::Ended(e)) => {
                if let Some(agent) = Uuid::from_slice(&e.agent).ok().and_then(|id| self.base.agents.get(&id)) {
                    self.top.agents.entry(agent.uuid).or_insert_with(|| agent.clone());
                }
            }
            Some(Body::Certified(c)) => {
                if let Some((hash, ticket)) = super::state::fixed(&c.ticket).and_then(|h| self.base.tickets.get_key_value(&h)) {
                    self.top.tickets.entry(*hash).or_insert_with(|| Ticket::clone(ticket));
                }
            }
            Some(Body::Cut(c)) => {
                if let Some(record::cut::Target::User(u)) = &c.target {
                    let user = User { iss: u.iss.clone(), sub: u.sub.clone() };
                    if let Some(standing) = self.base.users.get(&user) {
                        self.top.users.entry(user).or_insert_with(|| UserStanding::clone(standing));
                    }
                }
            }
            _ => {}
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
        standing(agent, self.at, |stamps| self.killed(stamps))
    }

    fn worst_case(&self, ends_at: u64) -> u64 {
        ends_at.saturating_sub(self.at / SECOND)
    }
}

fn token_of(minted: &record::Minted, agent: Uuid, revision: u64) -> Result<Token, Fault> {
    let jti = super::state::fixed(&minted.jti).ok_or_else(|| Fault::new("mint", "jti"))?;
    let (issued_at, ends_at) = (minted.issued_at, minted.ends_at);
    Ok(Token { agent, audience: minted.audience.clone(), jti, issued_at, ends_at, revision })
}

fn request_record(request: &RequestId) -> record::Request {
    record::Request { key: request.key.to_vec(), digest: request.digest.to_vec() }
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
