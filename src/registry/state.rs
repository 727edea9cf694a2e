//! State: what the records say, all together. `apply` is deterministic and knows no clock but the records' own.

pub mod agent;
pub mod authority;
mod cuts;
mod expiry;
pub mod mandate;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use mayfly_verify::{Cuts, DelegationId, Stamp, Subject, Target, Workload, WorkloadName};
use uuid::Uuid;

pub use agent::{Agent, Count, Delegation, Generation, Lineage, Seat, Standing};
pub use authority::Authorities;
pub use cuts::{CutMade, before, cut_target};
use expiry::Due;
use mandate::{Mandates, Words};

use crate::clock::SECOND;
use crate::journal::record::{self, Record, record::Body};
use crate::policy::limits::Reading;

/// How long a thing that has ended is still known, in microseconds: for lists, retries and reasons.
pub const KEEP: u64 = 3600 * SECOND;
// INVARIANT: what a meter stands on is in the journal as long as it matters.
const _: () = assert!(KEEP >= crate::policy::limits::WINDOW, "admissions are kept as long as any window");
/// How far clocks may differ, in microseconds.
pub const SKEW: u64 = 120 * SECOND;
/// How long a cut is kept at least: no user token is accepted that is older.
pub const CUT_KEEP: u64 = 24 * 3600 * SECOND;

/// Whose a certified key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// An agent's; keys of agents belong to one agent for good.
    Agent(Uuid),
    /// A workload's, until the end of its certificate in unix seconds.
    Workload(&'a WorkloadName, u64),
}

/// Whom a ticket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A workload: the ticket is a join token.
    Workload(WorkloadName),
    /// An agent that was admitted with it.
    Agent(Uuid),
}

/// A ticket, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// For whom.
    pub holder: Holder,
    /// Unix microseconds.
    pub ends_at: u64,
    /// The certificate that a workload got for it.
    pub redeemed: Option<Certificate>,
    /// Its record.
    pub revision: u64,
}

/// A certificate of a workload or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the public key.
    pub key: [u8; 32],
    /// Serial number.
    pub serial: [u8; 16],
    /// Unix seconds.
    pub begins_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
    /// Its record.
    pub revision: u64,
}

impl Certificate {
    /// What a record says. Times are unix seconds.
    fn recorded(revision: u64, key: &[u8], serial: &[u8], begins_at: u64, ends_at: u64) -> Result<Certificate, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let (key, serial) = (fixed(key).ok_or(misfit("key"))?, fixed(serial).ok_or(misfit("serial number"))?);
        Ok(Certificate { key, serial, begins_at, ends_at, revision })
    }
}

/// A JWT-SVID that was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub agent: Uuid,
    /// For whom.
    pub audiences: Vec<String>,
    /// Unique id.
    pub jti: [u8; 16],
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
    /// What it allows, where that is less than the agent had.
    pub narrowed: Option<Vec<String>>,
    /// Its record.
    pub revision: u64,
}

/// What came of a request with a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// SHA-256 of what was asked.
    pub digest: [u8; 32],
    /// The agent, when it was a spawn.
    pub agent: Option<Uuid>,
    /// The token, when it was a mint or a spawn with a first token.
    pub token: Option<Box<Token>>,
}

/// How something stands that was cut or opened again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStanding {
    /// Nothing new for it.
    pub closed: bool,
    /// Unix microseconds; of a user, a token counts only if it was issued after this.
    pub since: u64,
    /// The record that says so.
    pub revision: u64,
    /// Unix microseconds until which that matters; what is closed stays closed beyond it.
    pub until: u64,
    /// Of its last cut.
    pub why: Arc<Why>,
}

/// Why something was cut. It stays inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// As it was given.
    pub reason: String,
    /// Who asked: an operator, a SPIFFE ID or a user; empty: the issuer itself.
    pub by: String,
    /// Unix microseconds.
    pub at: u64,
}

/// What the records say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Which life of the journal this is.
    pub incarnation: Uuid,
    /// Of the last record.
    pub revision: u64,
    /// Unix microseconds, of the last record.
    pub at: u64,
    /// The last configuration record.
    pub configured: Option<record::Configured>,
    /// Who signs, signed and will sign. In an overlay at revision 0: as below it.
    pub authorities: Arc<Authorities>,
    pub(super) trust_domain: String,
    pub(super) cuts: HashMap<Subject, (u64, u64)>,
    // INVARIANT: the agents that were ended and below which others are known. No row of its own stands for it.
    pub(super) ended_trees: HashSet<Subject>,
    pub(super) standings: HashMap<Target, TargetStanding>,
    // INVARIANT: every standing, by its record.
    told: BTreeMap<u64, Target>,
    pub(super) delegations: HashMap<DelegationId, Arc<Delegation>>,
    // INVARIANT: when each known delegation and lease ends, and how many end then. No cut is forgotten before what it kills.
    lasting: BTreeMap<u64, u64>,
    pub(super) proofs: HashMap<[u8; 32], DelegationId>,
    pub(super) mandates: Mandates,
    pub(super) agents: BTreeMap<Uuid, Box<Agent>>,
    // By half of the key's SHA-256, as subjects are: whoever makes two keys of their own that agree in it (2^64) is told that
    // the second is in use.
    agent_keys: HashMap<[u8; 16], Uuid>,
    workload_keys: HashMap<[u8; 32], (WorkloadName, u64)>,
    pub(super) tickets: HashMap<[u8; 32], Ticket>,
    pub(super) requests: HashMap<[u8; 32], Done>,
    // Signed, because in an overlay they are differences.
    pub(super) seats: HashMap<Seat, i64>,
    pub(super) meters: HashMap<[u8; 16], Reading>,
    configured_at: u64,
    due: BTreeMap<expiry::When, Due>,
    pub(super) obsolete: Vec<u64>,
}

/// A record that does not fit: the journal is damaged, or of another version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at revision {revision} does not fit: {what}")]
pub struct Misfit {
    /// Of the record.
    pub revision: u64,
    /// What is wrong.
    pub what: &'static str,
}

impl State {
    /// An empty state that continues where another stands.
    pub(super) fn over(incarnation: Uuid, revision: u64, at: u64) -> State {
        State { incarnation, revision, at, ..State::default() }
    }

    /// Applies one record: then, and at replay, the same.
    pub fn apply(&mut self, revision: u64, record: &Record) -> Result<(), Misfit> {
        self.expire(record.at);
        self.insert(revision, record)
    }

    /// The cuts as verifiers use them.
    pub fn cuts(&self) -> Cuts {
        let mut cuts = Cuts::new(self.incarnation);
        for (subject, (before, _)) in &self.cuts {
            cuts.cut(*subject, *before);
        }
        for subject in &self.ended_trees {
            cuts.cut(*subject, u64::MAX);
        }
        for slot in self.authorities.slots.iter().filter(|s| s.status == authority::Status::Tainted) {
            cuts.cut(Target::Authority(slot.key_id()).subject(), u64::MAX);
        }
        cuts
    }

    /// Whether credentials with these stamps are dead: cut, or of another life of the journal.
    pub fn is_cut(&self, incarnation: Uuid, stamps: &[Stamp]) -> bool {
        incarnation != self.incarnation
            || stamps.iter().any(|s| self.cuts.get(&s.subject).is_some_and(|(before, _)| s.since < *before))
            || stamps.iter().any(|s| self.ended_trees.contains(&s.subject))
    }

    /// One agent.
    pub fn agent(&self, uuid: &Uuid) -> Option<&Agent> {
        self.agents.get(uuid).map(Box::as_ref)
    }

    /// Agents from `after` on, in order of id.
    pub fn agents_after(&self, after: Option<Uuid>) -> impl Iterator<Item = &Agent> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.agents.range((from, std::ops::Bound::Unbounded)).map(|(_, agent)| agent.as_ref())
    }

    /// Revisions of records that no longer matter; they are told once.
    pub fn take_obsolete(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.obsolete)
    }

    /// Revision of the last configuration record.
    pub fn configured_at(&self) -> u64 {
        self.configured_at
    }

    /// What was cut, with how it stands, in the order of the records that say so, from after one of them on; and the revision
    /// before which reliance on it is dead.
    pub fn standings_after(&self, revision: u64) -> impl Iterator<Item = (&Target, &TargetStanding, u64)> {
        let after = (std::ops::Bound::Excluded(revision), std::ops::Bound::Unbounded);
        self.told.range(after).filter_map(|(_, target)| {
            let standing = self.standings.get(target)?;
            Some((target, standing, self.cuts.get(&target.subject())?.0))
        })
    }

    /// Those for whom nothing new is issued.
    pub fn closed(&self) -> impl Iterator<Item = &Target> {
        self.standings.iter().filter(|(_, standing)| standing.closed).map(|(target, _)| target)
    }

    /// Whether a public key with this SHA-256 was revoked. That outlasts its cut: a key never comes back.
    pub fn key_revoked(&self, key: &[u8; 32]) -> bool {
        self.standings.contains_key(&Target::Key(*key))
    }

    /// Unix microseconds at which the last known delegation or lease ends.
    pub(super) fn lasts_until(&self) -> u64 {
        self.lasting.last_key_value().map_or(0, |(at, _)| *at)
    }

    fn last(&mut self, until: u64, begins: bool) {
        let count = self.lasting.entry(until).or_default();
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.lasting.remove(&until);
        }
    }

    /// Number of known agents.
    pub fn agent_count(&self) -> usize {
        self.agents.len()
    }

    /// Whose a key is.
    pub fn owner(&self, key: &[u8; 32]) -> Option<Owner<'_>> {
        let workload = || self.workload_keys.get(key).map(|(name, ends_at)| Owner::Workload(name, *ends_at));
        self.agent_keys.get(&half(key)).map(|uuid| Owner::Agent(*uuid)).or_else(workload)
    }

    /// The delegation that a token recorded, if it still counts at `now` (unix microseconds).
    pub fn delegation_by_proof(&self, proof: &[u8; 32], now: u64) -> Option<&Arc<Delegation>> {
        self.delegations.get(self.proofs.get(proof)?).filter(|d| now < d.ends_at)
    }

    /// A delegation, if it still counts at `now` (unix microseconds).
    pub fn delegation(&self, id: &DelegationId, now: u64) -> Option<&Arc<Delegation>> {
        self.delegations.get(id).filter(|d| now < d.ends_at)
    }

    /// Where an agent stands at `now` (unix microseconds).
    pub fn standing(&self, agent: &Agent, now: u64) -> Standing {
        let cut = |s: &Stamp| self.cuts.get(&s.subject).is_some_and(|(before, _)| s.since < *before);
        standing(agent, now, cut, |uuid| self.agent(uuid))
    }

    /// Why nothing that was recorded for an agent may be handed out now, though it was admitted: code and message. `key` is
    /// the one that was certified, `authority` who signed.
    pub fn refusal(&self, uuid: &Uuid, key: Option<&[u8; 32]>, authority: &str) -> Option<(&'static str, &'static str)> {
        let Some(agent) = self.agents.get(uuid) else {
            return Some(("AGENT_UNKNOWN", "this issuer does not know the agent"));
        };
        // As of the last record: a cut is one.
        self.standing(agent, self.at).refusal().or_else(|| self.refusal_of_signature(key, authority))
    }

    /// The same for a workload's certificate.
    pub fn refusal_of_workload(
        &self,
        name: &WorkloadName,
        key: &[u8; 32],
        authority: &str,
    ) -> Option<(&'static str, &'static str)> {
        let target = Target::Workload(Workload::Own(name.clone()));
        let closed = self.standings.get(&target).is_some_and(|s| s.closed);
        let closed = closed.then_some(("WORKLOAD_CLOSED", "this workload was revoked: an operator must reopen it"));
        closed.or_else(|| self.refusal_of_signature(Some(key), authority))
    }

    fn refusal_of_signature(&self, key: Option<&[u8; 32]>, authority: &str) -> Option<(&'static str, &'static str)> {
        match () {
            () if key.is_some_and(|key| self.key_revoked(key)) => Some(("KEY_REVOKED", "this key was revoked: make a new one")),
            () if self.authorities.is_tainted(authority) => {
                Some(("AUTHORITY_TAINTED", "the authority that signed this is tainted: ask again"))
            }
            () => None,
        }
    }

    /// How many agents are counted there.
    pub fn seats(&self, seat: Seat) -> i64 {
        self.seats.get(&seat).copied().unwrap_or(0)
    }

    pub(super) fn insert(&mut self, revision: u64, record: &Record) -> Result<(), Misfit> {
        self.insert_with(revision, record, None)
    }

    /// `agent`: what the record of an admission makes, where that is known already; none: it is read from the record.
    pub(super) fn insert_with(&mut self, revision: u64, record: &Record, agent: Option<Agent>) -> Result<(), Misfit> {
        let misfit = |what| Misfit { revision, what };
        if revision <= self.revision || record.at < self.at {
            return Err(misfit("revision or time goes back"));
        }
        let at = record.at;
        match record.body.as_ref().ok_or(misfit("no body"))? {
            Body::Opened(opened) => {
                // DESIGN 5: a restore cuts the whole trust domain: nothing from before is known any more.
                *self = State::default();
                self.incarnation = Uuid::from_slice(&opened.incarnation).map_err(|_| misfit("incarnation"))?;
                self.trust_domain.clone_from(&opened.trust_domain);
                self.cuts.insert(Target::TrustDomain.subject(), (revision, u64::MAX));
            }
            Body::Delegated(d) => {
                let delegation = Delegation::recorded(revision, d)?;
                self.proofs.insert(delegation.proof, delegation.id);
                // ORDER: after every agent under it, whose records cannot be read without this one.
                self.due(delegation.ends_at.saturating_add(KEEP + SECOND), revision, Due::Delegation(Box::new(delegation.id)));
                self.last(delegation.ends_at, true);
                self.delegations.insert(delegation.id, Arc::new(delegation));
            }
            Body::Admitted(a) => {
                let agent = agent.map_or_else(|| self.read_agent(revision, at, a), Ok)?;
                self.admit(revision, a, agent)?;
            }
            Body::Minted(m) => {
                let token = Token {
                    agent: Uuid::from_slice(&m.agent).map_err(|_| misfit("agent"))?,
                    audiences: audiences_of(m),
                    jti: fixed(&m.jti).ok_or(misfit("jti"))?,
                    issued_at: m.issued_at,
                    ends_at: m.ends_at,
                    narrowed: m.narrowed.then(|| m.scopes.clone()),
                    revision,
                };
                let gone = seconds(m.ends_at).saturating_add(KEEP);
                match &m.request {
                    Some(request) => {
                        let (key, digest) = request_of(request).ok_or(misfit("request"))?;
                        // A spawn with a first token: the admission before it made the entry.
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
                    Some(agent) => agent.used(revision),
                    None => self.obsolete.push(revision),
                }
            }
            Body::Ended(e) => {
                let uuid = Uuid::from_slice(&e.agent).map_err(|_| misfit("agent"))?;
                self.unseat(&uuid);
                match self.agents.get_mut(&uuid) {
                    Some(agent) => {
                        agent.rare.ended = Some(revision);
                        agent.rare.rows.push(revision);
                        // DESIGN 6: published as a cut while something below it is known.
                        if agent.children > 0 {
                            self.ended_trees.insert(Target::Agent(uuid).subject());
                        }
                    }
                    None => self.obsolete.push(revision),
                }
            }
            Body::Cut(c) => {
                let target = cuts::target_of(revision, c)?;
                if let Target::Agent(uuid) = &target {
                    self.unseat(uuid);
                }
                let subject = target.subject();
                let closed = c.closes || self.standings.get(&target).is_some_and(|s| s.closed);
                let by = if record.operator.is_empty() { c.by.clone() } else { record.operator.clone() };
                let why = Arc::new(Why { reason: c.reason.clone(), by, at });
                let since = if c.time > 0 { c.time } else { at };
                self.set_standing(target, TargetStanding { closed, since, revision, until: c.keep_until, why });
                let cut = self.cuts.entry(subject).or_default();
                *cut = (cut.0.max(c.before), cut.1.max(c.keep_until));
                self.due(c.keep_until, revision, Due::Cut(subject));
            }
            Body::Reopened(r) => {
                let target = cuts::reopened(revision, r)?;
                let until = at.saturating_add(CUT_KEEP + SKEW);
                let why = self.standings.get(&target).map(|s| Arc::clone(&s.why)).unwrap_or_default();
                self.set_standing(target, TargetStanding { closed: false, since: at, revision, until, why });
            }
            Body::TicketMade(t) => {
                let hash = fixed(&t.hash).ok_or(misfit("hash"))?;
                let holder = Holder::Workload(t.workload.parse().map_err(|_| misfit("workload"))?);
                self.tickets.insert(hash, Ticket { holder, ends_at: t.ends_at, redeemed: None, revision });
                self.due(t.ends_at.saturating_add(KEEP), revision, Due::Ticket(Box::new(hash)));
            }
            Body::Certified(c) => {
                let certificate = Certificate::recorded(revision, &c.key, &c.serial, c.begins_at, c.ends_at)?;
                let workload = c.workload.parse().map_err(|_| misfit("workload"))?;
                self.workload_keys.insert(certificate.key, (workload, c.ends_at));
                self.due(seconds(c.ends_at).saturating_add(KEEP), revision, Due::Key(Box::new(certificate.key)));
                if let Some(ticket) = fixed(&c.ticket).and_then(|hash| self.tickets.get_mut(&hash)) {
                    ticket.redeemed = Some(certificate);
                }
            }
            Body::Configured(c) => {
                if self.configured_at > 0 {
                    self.obsolete.push(self.configured_at);
                }
                self.configured_at = revision;
                self.configured = Some(c.clone());
            }
            Body::Authorities(all) => {
                if self.authorities.revision > 0 {
                    self.obsolete.push(self.authorities.revision);
                }
                let slots = all.authorities.iter().map(|a| authority::Slot::read(revision, a)).collect::<Result<_, _>>()?;
                self.authorities = Arc::new(Authorities::new(revision, slots));
            }
        }
        self.revision = revision;
        self.at = at;
        Ok(())
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
        if self.agents.contains_key(&uuid) {
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
            self.due(agent.forgotten_at(), revision, Due::Request(Box::new(key)));
        }
        if let Some(hash) = agent.rare.ticket {
            let ends_at = seconds(agent.svid_ends_at);
            self.tickets.insert(hash, Ticket { holder: Holder::Agent(uuid), ends_at, redeemed: None, revision });
        }
        if let Some(certificate) = &agent.current {
            self.agent_keys.insert(half(&certificate.key), uuid);
        }
        for (n, charge) in (0..).zip(&a.charges) {
            let meter = fixed(&charge.meter).ok_or(misfit("meter"))?;
            let reading = Reading { value: charge.value, until: charge.until };
            // One that is known waits for its end already.
            if self.meters.insert(meter, reading).is_none() {
                self.due_nth(charge.until, revision, n, Due::Meter(meter));
            }
        }
        self.due(agent.expires_at(), revision, Due::Seat(uuid));
        self.last(seconds(agent.lease_ends_at), true);
        self.agents.insert(uuid, Box::new(agent));
        Ok(())
    }

    /// A later certificate of an agent.
    fn certified(&mut self, revision: u64, uuid: Uuid, key: [u8; 32], change: impl FnOnce(&mut Agent)) {
        let Some(agent) = self.agents.get_mut(&uuid) else {
            return self.obsolete.push(revision);
        };
        change(agent);
        agent.rare.rows.push(revision);
        let expires_at = agent.expires_at();
        self.agent_keys.insert(half(&key), uuid);
        self.due(expires_at, revision, Due::Seat(uuid));
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

    /// Gives an agent's seats back; once.
    fn unseat(&mut self, uuid: &Uuid) {
        if let Some(agent) = self.agents.get_mut(uuid).filter(|a| a.seated) {
            agent.seated = false;
            let seats: Vec<Seat> = agent.seats().collect();
            self.count(seats, -1);
        }
    }

    fn set_standing(&mut self, target: Target, mut standing: TargetStanding) {
        let revision = standing.revision;
        // INVARIANT: the last row goes last. If an earlier one outlived it, a replay would bring the earlier standing back.
        let before = self.standings.get(&target);
        standing.until = standing.until.max(before.map_or(0, |before| before.until));
        let until = standing.until;
        self.told.insert(revision, target.clone());
        if let Some(before) = self.standings.insert(target.clone(), standing) {
            self.told.remove(&before.revision);
            // Only the last standing matters, but the row of a cut is needed as long as the cut.
            self.due(until, before.revision, Due::Record);
        }
        self.due(until, revision, Due::Standing(Box::new(target)));
    }
}

/// Where an agent stands, given what is cut and who stands above it.
pub(super) fn standing<'a>(
    agent: &Agent,
    now: u64,
    cut: impl Fn(&Stamp) -> bool,
    known: impl Fn(&Uuid) -> Option<&'a Agent>,
) -> Standing {
    let over = |uuid| known(&uuid).is_none_or(|above| above.rare.ended.is_some() || now >= above.expires_at());
    match () {
        () if agent.rare.ended.is_some() => Standing::Ended,
        // T86: to the top, however deep.
        () if agent.ancestors().any(|uuid| known(&uuid).is_some_and(|above| above.rare.ended.is_some())) => Standing::Orphaned,
        () if agent.stamps().any(|stamp| cut(&stamp)) => Standing::Cut,
        () if now >= agent.expires_at() => Standing::Expired,
        () if agent.ancestors().any(over) => Standing::Orphaned,
        () => Standing::Live,
    }
}

/// Microseconds of unix seconds.
pub(super) fn seconds(s: u64) -> u64 {
    s.saturating_mul(SECOND)
}

/// The first half of a SHA-256.
fn half(digest: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    half
}

pub(super) fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// For whom a token is.
pub(super) fn audiences_of(minted: &record::Minted) -> Vec<String> {
    std::iter::once(&minted.audience).chain(&minted.further_audiences).cloned().collect()
}

fn request_of(request: &record::Request) -> Option<([u8; 32], [u8; 32])> {
    Some((fixed(&request.key)?, fixed(&request.digest)?))
}
