//! The effect of each kind of record on the state.

use std::sync::Arc;

use mayfly_verify::{DelegationId, Salt, Target};
use uuid::Uuid;

use super::agent::Next;
use super::expiry::Due;
use super::mandate::Words;
use super::{
    AccessToken, Agent, Authorities, CUT_KEEP, Certificate, Delegation, Done, Holder, InForce, KEEP, Misfit, Reading, SKEW, Seat,
    State, TargetStanding, Ticket, Token, WorkloadKey, authority, cuts, fixed, seconds,
};
use crate::clock::SECOND;
use crate::journal::record::{self, Record, record::Body};

impl State {
    /// Applies the changes of a record, without expiring anything by its time. `agent` is the agent of an admission if the caller
    /// has made it.
    pub(super) fn insert(&mut self, revision: u64, record: &Record, agent: Option<Box<Agent>>) -> Result<(), Misfit> {
        let misfit = |what| Misfit { revision, what };
        if revision <= self.revision || record.at < self.at {
            return Err(misfit("revision or time goes back"));
        }
        let at = record.at;
        match record.body.as_ref().ok_or(misfit("no body"))? {
            Body::Opened(opened) => {
                // A restore revokes the whole trust domain, so the state begins empty.
                *self = State::default();
                self.incarnation = Uuid::from_slice(&opened.incarnation).map_err(|_| misfit("incarnation"))?;
                self.began_at = at;
                self.trust_domain.clone_from(&opened.trust_domain);
                if !opened.salt.is_empty() {
                    self.salted(Salt::new(fixed(&opened.salt).ok_or(misfit("salt"))?));
                }
                let cut = InForce { before: revision, until: u64::MAX, verifiers_until: u64::MAX, revision };
                self.cuts.insert(Target::TrustDomain.unsalted(), cut);
            }
            Body::Delegated(d) => {
                let delegation = Delegation::recorded(revision, d, &self.salt)?;
                self.assertion(revision, 0, &d.once, d.once_ends_at)?;
                self.proofs.insert(delegation.proof, delegation.id);
                // ORDER: later than every agent under it, whose records cannot be applied without this one.
                self.due(delegation.ends_at.saturating_add(KEEP + SECOND), revision, Due::Delegation(Box::new(delegation.id)));
                self.last(delegation.ends_at, true);
                self.delegations.insert(delegation.id, Arc::new(delegation));
            }
            Body::Admitted(a) => {
                let agent = match agent {
                    Some(made) => *self.share(a, made),
                    None => self.read_agent(revision, at, a)?,
                };
                self.admit(revision, a, agent)?;
            }
            Body::Minted(m) => {
                let token = Token::recorded(revision, m)?;
                self.out.tokens = self.out.tokens.max(m.ends_at);
                let gone = seconds(m.ends_at).saturating_add(KEEP);
                match &m.request {
                    Some(request) => {
                        let (key, digest) = request_of(request).ok_or(misfit("request"))?;
                        // For a spawn with a first token, the admission before it has made the entry.
                        match self.requests.get_mut(&key) {
                            Some(done) => {
                                done.token = Some(Box::new(token));
                                self.due(gone, revision, Due::Record);
                            }
                            None => {
                                self.requests.insert(key, Done { digest, agent: None, token: Some(Box::new(token)) });
                                self.due(gone, revision, Due::Request(Box::new(key)));
                            }
                        }
                    }
                    None => self.due(gone, revision, Due::Record),
                }
            }
            Body::Exchanged(e) => {
                AccessToken::recorded(revision, e)?;
                self.out.tokens = self.out.tokens.max(e.ends_at);
                self.assertion(revision, 0, &e.assertion, e.assertion_ends_at)?;
                self.assertion(revision, 1, &e.once, e.once_ends_at)?;
                let known = fixed(&e.approval).map_or(0, |id| self.used_approval(&id));
                // ORDER: later than the assertion, because a replay must find that it was used until it expires.
                let gone = seconds(e.ends_at.max(e.assertion_ends_at).max(e.once_ends_at)).saturating_add(KEEP).max(known);
                self.due(gone, revision, Due::Record);
            }
            Body::Asked(a) => {
                self.assertion(revision, 0, &a.assertion, a.assertion_ends_at)?;
                self.asked(revision, at, a)?;
            }
            Body::Answered(a) => self.answered(revision, at, a)?,
            Body::Redeemed(r) => {
                let certificate = Certificate::recorded(revision, &r.key, &r.serial, r.begins_at, r.ends_at)?;
                let uuid = Uuid::from_slice(&r.agent).map_err(|_| misfit("agent"))?;
                self.certified(revision, uuid, certificate.key, |agent| {
                    agent.svid_ends_at = certificate.ends_at;
                    agent.current = Some(certificate);
                    agent.used_since = revision;
                });
            }
            Body::Renewed(r) => {
                let certificate = Certificate::recorded(revision, &r.key, &r.serial, r.begins_at, r.ends_at)?;
                let uuid = Uuid::from_slice(&r.agent).map_err(|_| misfit("agent"))?;
                let before = self.agents.get(&uuid).filter(|_| r.narrowed).map(|agent| Arc::clone(&agent.mandate));
                let narrowed = before.map(|before| self.mandates.narrowed(&before, &r.scopes, &r.audiences));
                let narrowed = narrowed.transpose().map_err(misfit)?;
                self.certified(revision, uuid, certificate.key, |agent| {
                    agent.svid_ends_at = agent.svid_ends_at.max(certificate.ends_at);
                    agent.renewed(certificate);
                    if let Some(narrowed) = narrowed {
                        agent.mandate = narrowed;
                    }
                });
            }
            Body::Used(u) => {
                let uuid = Uuid::from_slice(&u.agent).map_err(|_| misfit("agent"))?;
                match self.agents.get_mut(&uuid) {
                    Some(agent) => agent.used(revision, at),
                    None => self.obsolete.push_back(revision),
                }
            }
            Body::FirstUse(first) => self.first_used(revision, first)?,
            Body::Extended(e) => {
                let uuid = Uuid::from_slice(&e.agent).map_err(|_| misfit("agent"))?;
                let proof = fixed(&e.proof).ok_or(misfit("proof"))?;
                self.assertion(revision, 0, &e.once, e.once_ends_at)?;
                self.extended(revision, uuid, e.lease_ends_at, proof);
            }
            Body::Ended(e) => {
                let uuid = Uuid::from_slice(&e.agent).map_err(|_| misfit("agent"))?;
                self.unseat(&uuid);
                if e.tokens_until > 0 {
                    // Once it has ended, an agent without a key needs to be known only until its last token expires, even if its
                    // lease was longer.
                    self.agents.change(&uuid, |agent| agent.svid_ends_at = e.tokens_until.min(agent.lease_ends_at));
                }
                match self.agents.get_mut(&uuid) {
                    Some(agent) => {
                        agent.rare.ended = Some(revision);
                        agent.rare.ended_at = at;
                        agent.rare.ended_by.clone_from(if record.operator.is_empty() { &e.by } else { &record.operator });
                        agent.rare.told = e.told;
                        agent.rare.rows.push(revision);
                        if agent.children > 0 {
                            self.ended_trees.insert(Target::Agent(uuid).unsalted());
                            self.taken_back(uuid);
                        } else if e.told && at < agent.expires_at() {
                            self.ended_alone(uuid);
                        }
                    }
                    None => self.obsolete.push_back(revision),
                }
            }
            Body::Cut(c) => self.cut(revision, record, c)?,
            Body::Reopened(r) => {
                let target = cuts::reopened(revision, r)?;
                let until = at.saturating_add(CUT_KEEP + SKEW);
                let why = self.standings.get(&target).map(|s| Arc::clone(&s.why)).unwrap_or_default();
                self.set_standing(target, TargetStanding { closed: false, since: at, revision, until, why }, false);
            }
            Body::TicketMade(t) => {
                let hash = fixed(&t.hash).ok_or(misfit("hash"))?;
                let holder = Holder::Workload(t.workload.parse().map_err(|_| misfit("workload"))?);
                let by = record.operator.strip_prefix("workload/").and_then(|name| name.parse().ok());
                self.tickets.insert(hash, Ticket { holder, by, ends_at: t.ends_at, redeemed: None, revision });
                self.due(t.ends_at.saturating_add(KEEP), revision, Due::Ticket(Box::new(hash)));
            }
            Body::Certified(c) => {
                let certificate = Certificate::recorded(revision, &c.key, &c.serial, c.begins_at, c.ends_at)?;
                let name = c.workload.parse().map_err(|_| misfit("workload"))?;
                let renewed = fixed(&c.renewed_from).and_then(|from| self.workload_keys.get(&from)).map(|from| from.line);
                // Records of earlier versions name only the key.
                let line = if c.line > 0 { c.line } else { renewed.unwrap_or(revision) };
                let fresh = || WorkloadKey { name, ends_at: c.ends_at, serials: Vec::new(), line };
                let known = self.workload_keys.entry(certificate.key).or_insert_with(fresh);
                (known.ends_at, known.line) = (c.ends_at, line);
                known.serials.push(certificate.serial);
                let ends_at = self.linked(line, certificate.serial, c.ends_at, (revision, at));
                self.due(State::unlinked_at(ends_at), revision, Due::Key(Box::new((certificate.key, line))));
                if let Some(ticket) = fixed(&c.ticket).and_then(|hash| self.tickets.get_mut(&hash)) {
                    ticket.redeemed = Some(certificate);
                }
            }
            Body::WorkloadUsed(u) => {
                if !self.link_used(u.line, &u.serial, (revision, at)) {
                    self.obsolete.push_back(revision);
                }
            }
            Body::Configured(c) => {
                if self.configured_at > 0 {
                    self.obsolete.push_back(self.configured_at);
                }
                self.configured_at = revision;
                self.configured = Some(c.clone());
            }
            Body::Resumed(resumed) => {
                let until = self.resumed(at, resumed.last);
                self.due(until, revision, Due::Record);
            }
            // Only the last such record keeps its row.
            Body::Passed(_) => {
                self.obsolete.extend((self.passed > 0).then_some(self.passed));
                self.passed = revision;
            }
            // The times of earlier records were already changed during the replay.
            Body::TimeRepaired(repaired) => self.repaired(repaired.first, revision, at),
            Body::Reserved(r) => self.reserved(revision, r)?,
            Body::Spent(s) => self.spent(revision, at, s)?,
            Body::Released(r) => self.released(revision, at, r),
            Body::Authorities(all) => {
                if self.authorities.revision > 0 {
                    self.obsolete.push_back(self.authorities.revision);
                }
                let slots = all.authorities.iter().map(|a| authority::Slot::read(revision, a)).collect::<Result<_, _>>()?;
                self.authorities = Arc::new(Authorities::new(revision, slots));
            }
        }
        self.revision = revision;
        self.at = at;
        Ok(())
    }

    /// Notes the use of a JWT-SVID or an ID-JAG; `jti` is empty if none was used. `nth` numbers the uses of one record.
    fn assertion(&mut self, revision: u64, nth: u16, jti: &[u8], ends_at: u64) -> Result<(), Misfit> {
        if !jti.is_empty() {
            let jti = fixed(jti).ok_or(Misfit { revision, what: "assertion" })?;
            self.assertions.insert(jti);
            self.due_nth(seconds(ends_at), revision, nth, Due::Assertion(jti));
        }
        Ok(())
    }

    /// Lets an agent that was made elsewhere share the mandate and the delegation of this state.
    fn share(&mut self, a: &record::Admitted, mut agent: Box<Agent>) -> Box<Agent> {
        agent.mandate = self.mandates.adopt(&Words::of(a), agent.mandate);
        if let Some(known) = agent.delegation.as_ref().and_then(|d| self.delegations.get(&d.id)) {
            agent.delegation = Some(Arc::clone(known));
        }
        agent
    }

    fn read_agent(&mut self, revision: u64, at: u64, a: &record::Admitted) -> Result<Agent, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let delegation = match a.delegation.as_slice() {
            [] => None,
            id => {
                let id = DelegationId(fixed(id).ok_or(misfit("delegation id"))?);
                Some(Arc::clone(self.delegations.get(&id).ok_or(misfit("an admission without its delegation"))?))
            }
        };
        let lineage = match a.parent.as_slice() {
            [] => None,
            id => {
                let id = Uuid::from_slice(id).map_err(|_| misfit("parent"))?;
                Some(self.agents.get(&id).ok_or(misfit("an admission without its parent"))?.lineage_below())
            }
        };
        let mandate = self.mandates.share(&Words::of(a)).map_err(misfit)?;
        Agent::admitted(revision, at, a, mandate, delegation, lineage)
    }

    fn admit(&mut self, revision: u64, a: &record::Admitted, agent: Agent) -> Result<(), Misfit> {
        let misfit = |what| Misfit { revision, what };
        let uuid = agent.uuid;
        if self.agents.contains(&uuid) {
            return Err(misfit("an id is given twice"));
        }
        if let Some(lineage) = &agent.lineage {
            let parent = agent.parent().and_then(|parent| self.agents.get_mut(&parent));
            let parent = parent.ok_or(misfit("an admission without its parent"))?;
            parent.children += 1;
            if parent.rare.below.is_none() {
                parent.rare.below = Some(Arc::clone(lineage));
            }
        }
        self.count(agent.seats(), 1);
        if let Some(request) = &a.request {
            let (key, digest) = request_of(request).ok_or(misfit("request"))?;
            self.requests.insert(key, Done { digest, agent: Some(uuid), token: None });
            // INVARIANT: the request is dropped no later than its agent, whose row contains it. An agent without a key is dropped
            // an hour after its end.
            let first = if agent.is_keyless() { seconds(agent.admitted_at / SECOND).saturating_add(KEEP) } else { u64::MAX };
            self.due(agent.forgotten_at().min(first), revision, Due::Request(Box::new(key)));
        }
        if let Some(hash) = agent.rare.ticket {
            let ends_at = seconds(agent.svid_ends_at);
            self.tickets.insert(hash, Ticket { holder: Holder::Agent(uuid), by: None, ends_at, redeemed: None, revision });
        }
        if let Some(certificate) = &agent.current {
            self.out.certificates = self.out.certificates.max(certificate.ends_at);
        }
        for (n, charge) in (0..).zip(&a.charges) {
            let meter = fixed(&charge.meter).ok_or(misfit("meter"))?;
            let reading = Reading { value: charge.value, until: charge.until };
            // A known meter is already scheduled to end.
            if self.meters.insert(meter, reading).is_none() {
                self.due_nth(charge.until, revision, n, Due::Meter(meter));
            }
        }
        self.last(seconds(agent.lease_ends_at), true);
        self.agents.insert(agent);
        Ok(())
    }

    /// Notes a later certificate of an agent.
    fn certified(&mut self, revision: u64, uuid: Uuid, key: [u8; 32], change: impl FnOnce(&mut Agent)) {
        let mut last = 0;
        let known = self.agents.change(&uuid, |agent| {
            change(agent);
            agent.rare.rows.push(revision);
            agent.next = Next::Expires;
            last = agent.svid_ends_at;
        });
        if !known {
            return self.obsolete.push_back(revision);
        }
        self.agents.certified(&uuid, &key);
        self.out.certificates = self.out.certificates.max(last);
    }

    pub(super) fn count(&mut self, seats: impl IntoIterator<Item = Seat>, by: i64) {
        for seat in seats {
            let count = self.seats.entry(seat).or_default();
            *count += by;
            if *count == 0 {
                self.seats.remove(&seat);
            }
        }
    }

    /// Stops counting an agent as live, once.
    pub(super) fn unseat(&mut self, uuid: &Uuid) {
        if let Some(agent) = self.agents.get_mut(uuid).filter(|a| a.seated) {
            agent.seated = false;
            let seats: Vec<Seat> = agent.seats().collect();
            self.count(seats, -1);
        }
    }

    /// Sets the standing of a target. `superseded` says that this record contains everything that the previous one says about the
    /// target.
    pub(super) fn set_standing(&mut self, target: Target, mut standing: TargetStanding, superseded: bool) {
        let revision = standing.revision;
        // INVARIANT: the latest row of a target is dropped last. If an earlier row stayed, a replay would restore the earlier
        // standing.
        let before = self.standings.get(&target);
        standing.until = standing.until.max(before.map_or(0, |before| before.until));
        let until = standing.until;
        self.told.insert(revision, target.clone());
        if let Some(before) = self.standings.insert(target.clone(), standing) {
            self.told.remove(&before.revision);
            self.no_longer_due(before.until, before.revision, &Due::Standing(Box::new(target.clone())));
            if superseded {
                self.obsolete.push_back(before.revision);
            } else {
                // Only the latest standing matters, but the row of a cut is needed as long as the cut.
                self.due(until, before.revision, Due::Record);
            }
        }
        self.due(until, revision, Due::Standing(Box::new(target)));
    }
}

pub(super) fn request_of(request: &record::Request) -> Option<([u8; 32], [u8; 32])> {
    Some((fixed(&request.key)?, fixed(&request.digest)?))
}
