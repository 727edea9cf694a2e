//! State: what the records say, all together. `apply` is deterministic and knows no clock but the records' own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mayfly_verify::{
    AgentId, Binding, ClassName, Cuts, DelegationId, Mode, Stamp, Subject, Target, TrustDomain, User, WorkloadName, add_stamp,
    workload_id,
};
use uuid::Uuid;

use crate::clock::SECOND;
use crate::journal::record::{self, Record, cut, record::Body};

/// How long a thing that has ended is still known, in microseconds: for lists, retries and reasons.
pub const KEEP: u64 = 3600 * SECOND;
/// How far clocks may differ, in microseconds.
pub const SKEW: u64 = 120 * SECOND;
/// How long a cut is kept at least: no user token is accepted that is older.
pub const CUT_KEEP: u64 = 24 * 3600 * SECOND;

/// What a user lets a workload do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// SHA-256 of its canonical JSON.
    pub id: DelegationId,
    /// Whose.
    pub user: User,
    /// Whom it names.
    pub workload: WorkloadName,
    /// SHA-256 of what the token's signature covers.
    pub proof: [u8; 32],
    /// SHA-256 of the whole token, as it was verified.
    pub token: [u8; 32],
    /// Ceiling of scopes; none: no ceiling of its own.
    pub scopes: Option<Vec<String>>,
    /// Unix microseconds.
    pub ends_at: u64,
    /// Its record.
    pub revision: u64,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its class.
    pub class: ClassName,
    /// The workload at the root; also its parent.
    pub workload: WorkloadName,
    /// The delegation; none for an autonomous agent.
    pub delegation: Option<Arc<Delegation>>,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// Sorted.
    pub scopes: Vec<String>,
    /// Sorted.
    pub audiences: Vec<String>,
    /// Levels of agents that may stand below it.
    pub depth_left: u32,
    /// Unix seconds.
    pub lease_ends_at: u64,
    /// Unix seconds, of the last certificate.
    pub svid_begins_at: u64,
    /// Unix seconds, of the last certificate.
    pub svid_ends_at: u64,
    /// Serial number of the last certificate.
    pub serial: Vec<u8>,
    /// Unix microseconds.
    pub admitted_at: u64,
    /// Its admission.
    pub revision: u64,
    /// What was asked for and not given.
    pub clipped: Vec<String>,
    /// Its end, if it was ended.
    pub ended: Option<u64>,
}

/// Where an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may act.
    Live,
    /// Its last certificate or its lease has run out.
    Expired,
    /// It was ended, by itself or its owner.
    Ended,
    /// Something it relies on was revoked.
    Cut,
}

impl Agent {
    /// Its SPIFFE ID.
    pub fn id(&self, td: &TrustDomain) -> AgentId {
        AgentId { trust_domain: td.clone(), class: self.class.clone(), uuid: self.uuid }
    }

    /// What it relies on (DESIGN 6).
    pub fn stamps(&self) -> Vec<Stamp> {
        let stamp = |target: Target, since| Stamp { subject: target.subject(), since };
        let mut stamps = Vec::with_capacity(6);
        let mut first = self.revision;
        if let Some(delegation) = &self.delegation {
            first = first.min(delegation.revision);
            add_stamp(&mut stamps, stamp(Target::User(delegation.user.clone()), delegation.revision));
            add_stamp(&mut stamps, stamp(Target::Delegation(delegation.id), delegation.revision));
        }
        add_stamp(&mut stamps, stamp(Target::Agent(self.uuid), self.revision));
        add_stamp(&mut stamps, stamp(Target::Class(self.class.clone()), self.revision));
        add_stamp(&mut stamps, stamp(Target::Workload(self.workload.clone()), self.revision));
        add_stamp(&mut stamps, stamp(Target::TrustDomain, first));
        stamps
    }

    /// The binding of a credential that the record at `revision` allowed.
    pub fn binding(&self, td: &TrustDomain, incarnation: Uuid, revision: u64) -> Binding {
        Binding {
            incarnation,
            revision,
            stamps: self.stamps(),
            delegation: self.delegation.as_ref().map(|d| d.id),
            user: self.delegation.as_ref().map(|d| d.user.clone()),
            chain: vec![workload_id(td, &self.workload)],
            mode: if self.delegation.is_some() { Mode::Delegated } else { Mode::Autonomous },
            scopes: self.scopes.clone(),
            lease_expires_at: self.lease_ends_at,
        }
    }
}

/// Whose a certified key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An agent's; keys of agents belong to one agent for good.
    Agent(Uuid),
    /// A workload's, until the end of its certificate in unix seconds.
    Workload(WorkloadName, u64),
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// For whom.
    pub workload: WorkloadName,
    /// Unix microseconds.
    pub ends_at: u64,
    /// The redemption, if there was one: its key, serial, and validity in unix seconds.
    pub redeemed: Option<Certificate>,
    /// Its record.
    pub revision: u64,
}

/// A certificate of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the public key.
    pub key: [u8; 32],
    /// Serial number.
    pub serial: Vec<u8>,
    /// Unix seconds.
    pub begins_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
    /// Its record.
    pub revision: u64,
}

/// A JWT-SVID that was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub agent: Uuid,
    /// For whom.
    pub audience: String,
    /// Unique id.
    pub jti: [u8; 16],
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
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
    pub token: Option<Token>,
}

/// How a user stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserStanding {
    /// Nothing new for this user.
    pub closed: bool,
    /// Unix microseconds; a user token counts only if it was issued after this.
    pub since: u64,
    /// The record that says so.
    pub revision: u64,
    /// Unix microseconds until which that matters; a closed user stays closed beyond it.
    pub until: u64,
}

/// Something that ends with time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    Agent(Uuid),
    Delegation(DelegationId),
    Ticket([u8; 32]),
    Request([u8; 32]),
    Key([u8; 32]),
    /// The second says whether the row goes with the cut, or with the user's standing.
    Cut(Subject, bool),
    User(User),
    Record,
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
    /// Key ids and digests of the last configuration record.
    pub configured: Option<record::Configured>,
    pub(super) trust_domain: String,
    pub(super) cuts: HashMap<Subject, (u64, u64)>,
    pub(super) users: HashMap<User, UserStanding>,
    pub(super) delegations: HashMap<DelegationId, Arc<Delegation>>,
    pub(super) proofs: HashMap<[u8; 32], DelegationId>,
    pub(super) agents: BTreeMap<Uuid, Agent>,
    pub(super) keys: HashMap<[u8; 32], Owner>,
    pub(super) tickets: HashMap<[u8; 32], Ticket>,
    pub(super) requests: HashMap<[u8; 32], Done>,
    pub(super) agents_of: HashMap<User, u64>,
    configured_at: u64,
    due: BTreeMap<(u64, u64, u8), Due>,
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
        self.insert(revision, record)?;
        self.expire(record.at);
        Ok(())
    }

    /// The cuts as verifiers use them.
    pub fn cuts(&self) -> Cuts {
        let mut cuts = Cuts::new(self.incarnation);
        for (subject, (before, _)) in &self.cuts {
            cuts.cut(*subject, *before);
        }
        cuts
    }

    /// Whether credentials with these stamps are dead: cut, or of another life of the journal.
    pub fn is_cut(&self, incarnation: Uuid, stamps: &[Stamp]) -> bool {
        incarnation != self.incarnation
            || stamps.iter().any(|s| self.cuts.get(&s.subject).is_some_and(|(before, _)| s.since < *before))
    }

    /// One agent.
    pub fn agent(&self, uuid: &Uuid) -> Option<&Agent> {
        self.agents.get(uuid)
    }

    /// Agents from `after` on, in order of id.
    pub fn agents_after(&self, after: Option<Uuid>) -> impl Iterator<Item = &Agent> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.agents.range((from, std::ops::Bound::Unbounded)).map(|(_, agent)| agent)
    }

    /// Revisions of records that no longer matter; they are told once.
    pub fn take_obsolete(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.obsolete)
    }

    /// Revision of the last configuration record.
    pub fn configured_at(&self) -> u64 {
        self.configured_at
    }

    /// Users for whom nothing new is issued.
    pub fn closed_users(&self) -> impl Iterator<Item = &User> {
        self.users.iter().filter(|(_, standing)| standing.closed).map(|(user, _)| user)
    }

    /// Number of known agents.
    pub fn agent_count(&self) -> usize {
        self.agents.len()
    }

    /// Whose a key is.
    pub fn owner(&self, key: &[u8; 32]) -> Option<&Owner> {
        self.keys.get(key)
    }

    /// The delegation that a token recorded, if it still counts at `now` (unix microseconds).
    pub fn delegation_by_proof(&self, proof: &[u8; 32], now: u64) -> Option<&Arc<Delegation>> {
        self.delegations.get(self.proofs.get(proof)?).filter(|d| now < d.ends_at)
    }

    /// Where an agent stands at `now` (unix microseconds).
    pub fn standing(&self, agent: &Agent, now: u64) -> Standing {
        let cut =
            |stamps: &[Stamp]| stamps.iter().any(|s| self.cuts.get(&s.subject).is_some_and(|(before, _)| s.since < *before));
        standing(agent, now, cut)
    }

    pub(super) fn insert(&mut self, revision: u64, record: &Record) -> Result<(), Misfit> {
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
                let delegation = Delegation {
                    id: DelegationId(fixed(&d.id).ok_or(misfit("delegation id"))?),
                    user: User { iss: d.iss.clone(), sub: d.sub.clone() },
                    workload: d.workload.parse().map_err(|_| misfit("workload"))?,
                    proof: fixed(&d.proof).ok_or(misfit("proof"))?,
                    token: fixed(&d.token).ok_or(misfit("token"))?,
                    scopes: d.scopes_limited.then(|| d.scopes.clone()),
                    ends_at: d.ends_at,
                    revision,
                };
                self.proofs.insert(delegation.proof, delegation.id);
                self.due(delegation.ends_at.saturating_add(KEEP), revision, Due::Delegation(delegation.id));
                self.delegations.insert(delegation.id, Arc::new(delegation));
            }
            Body::Admitted(a) => self.admit(revision, at, a)?,
            Body::Minted(m) => {
                let token = Token {
                    agent: Uuid::from_slice(&m.agent).map_err(|_| misfit("agent"))?,
                    audience: m.audience.clone(),
                    jti: fixed(&m.jti).ok_or(misfit("jti"))?,
                    issued_at: m.issued_at,
                    ends_at: m.ends_at,
                    revision,
                };
                let gone = seconds(m.ends_at).saturating_add(KEEP);
                match &m.request {
                    Some(request) => {
                        let (key, digest) = request_of(request).ok_or(misfit("request"))?;
                        // A spawn with a first token: the admission before it made the entry.
                        match self.requests.get_mut(&key) {
                            Some(done) => {
                                done.token = Some(token);
                                self.due(gone, revision, Due::Record);
                            }
                            None => {
                                self.requests.insert(key, Done { digest, agent: None, token: Some(token) });
                                self.due(gone, revision, Due::Request(key));
                            }
                        }
                    }
                    None => self.due(gone, revision, Due::Record),
                }
            }
            Body::Ended(e) => {
                let uuid = Uuid::from_slice(&e.agent).map_err(|_| misfit("agent"))?;
                let mut gone = at;
                if let Some(agent) = self.agents.get_mut(&uuid) {
                    agent.ended = Some(revision);
                    gone = seconds(agent.svid_ends_at).saturating_add(KEEP);
                    let user = agent.delegation.as_ref().map(|d| d.user.clone());
                    self.count_down(user.as_ref());
                }
                self.due(gone.max(at), revision, Due::Record);
            }
            Body::Cut(c) => {
                let target = match c.target.as_ref().ok_or(misfit("cut of nothing"))? {
                    cut::Target::Agent(id) => Target::Agent(Uuid::from_slice(id).map_err(|_| misfit("agent"))?),
                    cut::Target::User(u) => {
                        let user = User { iss: u.iss.clone(), sub: u.sub.clone() };
                        let closed = c.closes || self.users.get(&user).is_some_and(|u| u.closed);
                        self.set_user(user.clone(), UserStanding { closed, since: at, revision, until: c.keep_until });
                        Target::User(user)
                    }
                    cut::Target::TrustDomain(_) => Target::TrustDomain,
                };
                let subject = target.subject();
                let cut = self.cuts.entry(subject).or_default();
                *cut = (cut.0.max(c.before), cut.1.max(c.keep_until));
                self.due(c.keep_until, revision, Due::Cut(subject, !matches!(target, Target::User(_))));
            }
            Body::Reopened(r) => {
                let u = r.user.as_ref().ok_or(misfit("no user"))?;
                let user = User { iss: u.iss.clone(), sub: u.sub.clone() };
                let until = at.saturating_add(CUT_KEEP + SKEW);
                self.set_user(user, UserStanding { closed: false, since: at, revision, until });
            }
            Body::TicketMade(t) => {
                let hash = fixed(&t.hash).ok_or(misfit("hash"))?;
                let workload = t.workload.parse().map_err(|_| misfit("workload"))?;
                self.tickets.insert(hash, Ticket { workload, ends_at: t.ends_at, redeemed: None, revision });
                self.due(t.ends_at.saturating_add(KEEP), revision, Due::Ticket(hash));
            }
            Body::Certified(c) => {
                let certificate = Certificate {
                    key: fixed(&c.key).ok_or(misfit("key"))?,
                    serial: c.serial.clone(),
                    begins_at: c.begins_at,
                    ends_at: c.ends_at,
                    revision,
                };
                let workload = c.workload.parse().map_err(|_| misfit("workload"))?;
                self.keys.insert(certificate.key, Owner::Workload(workload, c.ends_at));
                self.due(seconds(c.ends_at).saturating_add(KEEP), revision, Due::Key(certificate.key));
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
        }
        self.revision = revision;
        self.at = at;
        Ok(())
    }

    fn admit(&mut self, revision: u64, at: u64, a: &record::Admitted) -> Result<(), Misfit> {
        let misfit = |what| Misfit { revision, what };
        let delegation = match a.delegation.as_slice() {
            [] => None,
            id => {
                let id = DelegationId(fixed(id).ok_or(misfit("delegation id"))?);
                Some(Arc::clone(self.delegations.get(&id).ok_or(misfit("an admission without its delegation"))?))
            }
        };
        let uuid = Uuid::from_slice(&a.agent).map_err(|_| misfit("agent"))?;
        let key = fixed(&a.key).ok_or(misfit("key"))?;
        if self.agents.contains_key(&uuid) {
            return Err(misfit("an id is given twice"));
        }
        if let Some(delegation) = &delegation {
            *self.agents_of.entry(delegation.user.clone()).or_default() += 1;
        }
        let gone = seconds(a.svid_ends_at).saturating_add(KEEP);
        if let Some(request) = &a.request {
            let (key, digest) = request_of(request).ok_or(misfit("request"))?;
            self.requests.insert(key, Done { digest, agent: Some(uuid), token: None });
            self.due(gone, revision, Due::Request(key));
        }
        let agent = Agent {
            uuid,
            class: a.class.parse().map_err(|_| misfit("class"))?,
            workload: a.workload.parse().map_err(|_| misfit("workload"))?,
            delegation,
            key,
            scopes: a.scopes.clone(),
            audiences: a.audiences.clone(),
            depth_left: a.depth_left,
            lease_ends_at: a.lease_ends_at,
            svid_begins_at: a.svid_begins_at,
            svid_ends_at: a.svid_ends_at,
            serial: a.serial.clone(),
            admitted_at: at,
            revision,
            clipped: a.clipped.clone(),
            ended: None,
        };
        self.keys.insert(key, Owner::Agent(uuid));
        self.agents.insert(uuid, agent);
        self.due(gone, revision, Due::Agent(uuid));
        Ok(())
    }

    fn set_user(&mut self, user: User, standing: UserStanding) {
        let (revision, until) = (standing.revision, standing.until);
        if let Some(before) = self.users.insert(user.clone(), standing) {
            // Only the last standing matters, but the row of a cut is needed as long as the cut.
            self.due(until.max(before.until), before.revision, Due::Record);
        }
        self.due(until, revision, Due::User(user));
    }

    fn count_down(&mut self, user: Option<&User>) {
        let Some(user) = user else { return };
        if let Some(count) = self.agents_of.get_mut(user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.agents_of.remove(user);
            }
        }
    }

    fn due(&mut self, when: u64, revision: u64, what: Due) {
        let kind = match what {
            Due::Agent(_) => 0,
            Due::Delegation(_) => 1,
            Due::Ticket(_) => 2,
            Due::Request(_) => 3,
            Due::Key(_) => 4,
            Due::Cut(..) => 5,
            Due::User(_) => 6,
            Due::Record => 7,
        };
        self.due.insert((when, revision, kind), what);
    }

    /// Forgets what ended long enough ago, and names the records that no longer matter.
    fn expire(&mut self, now: u64) {
        while let Some(entry) = self.due.first_entry().filter(|e| e.key().0 <= now) {
            let ((_, revision, _), what) = entry.remove_entry();
            let obsolete = match what {
                Due::Agent(uuid) => {
                    if let Some(agent) = self.agents.remove(&uuid) {
                        self.keys.remove(&agent.key);
                        if agent.ended.is_none() {
                            let user = agent.delegation.as_ref().map(|d| d.user.clone());
                            self.count_down(user.as_ref());
                        }
                    }
                    true
                }
                Due::Delegation(id) => {
                    if let Some(delegation) = self.delegations.remove(&id) {
                        self.proofs.remove(&delegation.proof);
                    }
                    true
                }
                Due::Ticket(hash) => {
                    self.tickets.remove(&hash);
                    true
                }
                // An admission's row goes with its agent.
                Due::Request(key) => self.requests.remove(&key).is_some_and(|done| done.agent.is_none()),
                Due::Key(key) => {
                    // A key that was certified again lives on under its later record.
                    let over = matches!(self.keys.get(&key), Some(Owner::Workload(_, ends)) if seconds(*ends).saturating_add(KEEP) <= now);
                    if over {
                        self.keys.remove(&key);
                    }
                    true
                }
                Due::Cut(subject, owns_row) => {
                    if self.cuts.get(&subject).is_some_and(|(_, until)| *until <= now) {
                        self.cuts.remove(&subject);
                    }
                    owns_row
                }
                Due::User(user) => match self.users.get(&user) {
                    // Closed until somebody reopens it, however long that takes.
                    Some(standing) if standing.revision == revision && standing.closed => false,
                    Some(standing) if standing.revision == revision => {
                        self.users.remove(&user);
                        true
                    }
                    _ => false,
                },
                Due::Record => true,
            };
            if obsolete {
                self.obsolete.push(revision);
            }
        }
    }
}

/// Where an agent stands, given what is cut.
pub(super) fn standing(agent: &Agent, now: u64, cut: impl Fn(&[Stamp]) -> bool) -> Standing {
    match () {
        () if cut(&agent.stamps()) => Standing::Cut,
        () if agent.ended.is_some() => Standing::Ended,
        () if now >= seconds(agent.svid_ends_at.min(agent.lease_ends_at)) => Standing::Expired,
        () => Standing::Live,
    }
}

/// Microseconds of unix seconds.
pub(super) fn seconds(s: u64) -> u64 {
    s.saturating_mul(SECOND)
}

pub(super) fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn request_of(request: &record::Request) -> Option<([u8; 32], [u8; 32])> {
    Some((fixed(&request.key)?, fixed(&request.digest)?))
}
