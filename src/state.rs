//! Room 3: state. The result of applying all records. [`State::apply`] is deterministic, and its only clock is the time in the
//! records.

pub mod agent;
mod agents;
mod apply;
mod approval;
pub mod authority;
mod budget;
mod credential;
mod cuts;
mod delegation;
mod ends;
mod expiry;
mod extended;
mod generation;
mod line;
pub mod mandate;
pub mod meter;
mod order;
mod overlay;
mod revoked;
mod slab;
mod target;
mod time;
mod uses;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

// foldhash tables are randomly seeded, and hash a digest in a tenth of the time of SipHash, which was half of the cost of applying
// a record.
use foldhash::{HashMap, HashSet};
use mayfly_verify::{Cuts, DelegationId, Salt, Stamp, Subject, Target, User};
use uuid::Uuid;

pub use agent::{Agent, Count, Delegation, Generation, Lineage, Seat, Standing};
use agents::Agents;
pub use approval::{Answer, Approval, Status, seats as waiting_seats};
pub use authority::Authorities;
use budget::Budgets;
pub use budget::{Account, Hold, Unit};
pub use credential::{AccessToken, Certificate, Confirmation, Done, Holder, Owner, Ticket, Token};
use cuts::Subsumed;
pub use cuts::{CutMade, before, cut_target, end_of_cut};
pub use expiry::AT_ONCE;
use expiry::Due;
pub use line::Line;
use line::WorkloadKey;
use mandate::Mandates;
pub use meter::Reading;
pub use overlay::Overlay;
pub use target::{TargetStanding, Why};
pub use time::{ROWS_KEPT, Repair};
pub use uses::MOST as USED_AUDIENCES;
pub use view::View;

use crate::clock::SECOND;
use crate::journal::record::{self, Record};

/// How long something that has ended stays in the state, in microseconds, for lists, retries and reasons.
pub const KEEP: u64 = 3600 * SECOND;
/// How far clocks may differ, in microseconds.
pub const SKEW: u64 = 120 * SECOND;
/// Least time that a cut is kept, because no user token older than this is accepted.
pub const CUT_KEEP: u64 = 24 * 3600 * SECOND;

/// The state after the last record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The incarnation of the journal: a restore starts a new one.
    pub incarnation: Uuid,
    /// When it began, in Unix microseconds.
    pub began_at: u64,
    /// Revision of the last record.
    pub revision: u64,
    /// Time of the last record, in Unix microseconds.
    pub at: u64,
    /// The last configuration record.
    pub configured: Option<record::Configured>,
    /// Active, retired and prepared authorities. Revision 0 in an overlay means that they are those of the base.
    pub authorities: Arc<Authorities>,
    trust_domain: String,
    // The salt of the subjects in this epoch of the journal. It is secret.
    salt: Salt,
    cuts: HashMap<Subject, InForce>,
    // INVARIANT: the agents that were ended while agents below them are in the state. They have no row of their own.
    ended_trees: HashSet<Subject>,
    standings: HashMap<Target, TargetStanding>,
    // INVARIANT: the target of every revocation, by the revision of its record.
    told: BTreeMap<u64, Target>,
    delegations: HashMap<DelegationId, Arc<Delegation>>,
    // The number of agents with an extended lease under each delegation. The delegation is kept for as long as they are.
    prolonged: HashMap<DelegationId, u64>,
    // INVARIANT: the ends of all delegations and leases, and how many end at each time. A cut is kept until the last thing that it
    // revokes has ended.
    lasting: BTreeMap<u64, u64>,
    /// When the last issued credentials expire.
    out: Out,
    proofs: HashMap<[u8; 32], DelegationId>,
    mandates: Mandates,
    agents: Agents,
    workload_keys: HashMap<[u8; 32], WorkloadKey>,
    // Lines of renewals, by the revision of the redemption that began each.
    lines: HashMap<u64, Line>,
    // A tree, because a hash table of half a million entries would stall the writer when it grows.
    tickets: BTreeMap<[u8; 32], Ticket>,
    requests: HashMap<[u8; 32], Done>,
    // Signed numbers, because in an overlay they are differences.
    seats: HashMap<Seat, i64>,
    meters: HashMap<[u8; 16], Reading>,
    // The `jti` of each JWT-SVID that proved a client and has not expired. A tree, like `tickets`.
    assertions: BTreeSet<[u8; 16]>,
    approvals: BTreeMap<[u8; 16], Box<Approval>>,
    // The waiting questions, by the digest of the text that a person is shown.
    questions: BTreeMap<[u8; 32], [u8; 16]>,
    budgets: Budgets,
    configured_at: u64,
    // Revision of the last record of the passage of time; 0 if there is none.
    passed: u64,
    // Unix microseconds until which no row is dropped, because until then the clock of the last start may turn out to be wrong.
    rows_kept_until: u64,
    repairs: Vec<Repair>,
    subsumed: Subsumed,
    due: BTreeMap<expiry::When, Due>,
    obsolete: VecDeque<u64>,
}

/// A cut in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct InForce {
    /// Everything that relies on the subject since a revision before this one is revoked.
    before: u64,
    /// Unix microseconds until which the issuer must keep it.
    until: u64,
    /// Unix seconds until which verifiers must keep it: when the last credential that it revokes expires.
    verifiers_until: u64,
    /// Revision of its last record.
    revision: u64,
}

/// When the last credentials that were ever permitted expire, in Unix seconds. Each is reset an hour after it has passed, when the
/// records that it came from are dropped too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Out {
    /// Certificates of agents.
    pub certificates: u64,
    /// JWT-SVIDs.
    pub tokens: u64,
}

impl Out {
    /// When the last credential of any agent expires.
    pub fn last(self) -> u64 {
        self.certificates.max(self.tokens)
    }

    /// The later of two ends, for each kind.
    fn max(self, other: Out) -> Out {
        Out { certificates: self.certificates.max(other.certificates), tokens: self.tokens.max(other.tokens) }
    }

    fn forget(&mut self, now: u64) {
        for end in [&mut self.certificates, &mut self.tokens] {
            if seconds(*end).saturating_add(KEEP) <= now {
                *end = 0;
            }
        }
    }
}

/// A record that cannot be applied, because the journal is damaged or belongs to another version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at revision {revision} does not fit: {what}")]
pub struct Misfit {
    /// Revision of the record.
    pub revision: u64,
    /// The part that does not fit.
    pub what: &'static str,
}

impl State {
    /// Applies one record. A replay uses this too, so its result is the same.
    pub fn apply(&mut self, revision: u64, record: &Record) -> Result<(), Misfit> {
        self.apply_with(revision, record, None)
    }

    /// Applies one record. `agent` is the agent of an admission if the caller has made it; `None` makes it from the record.
    pub fn apply_with(&mut self, revision: u64, record: &Record, agent: Option<Box<Agent>>) -> Result<(), Misfit> {
        let mut everything = usize::MAX;
        self.apply_within(revision, record, agent, &mut everything)
    }

    /// Applies one record, and expires at most `budget` things that are due by its time, the earliest first; the rest expire with
    /// later records. Subtracts their number from the budget. A delay here changes no decision, because decisions compare times:
    /// only memory, rows and counts are freed later.
    pub fn apply_within(
        &mut self,
        revision: u64,
        record: &Record,
        agent: Option<Box<Agent>>,
        budget: &mut usize,
    ) -> Result<(), Misfit> {
        self.subsumed.0.clear();
        self.expire(record.at, budget);
        self.insert(revision, record, agent)
    }

    /// The trust domain that the journal belongs to; empty before its first record.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The cuts in the form that verifiers use.
    pub fn cuts(&self) -> Cuts {
        let mut cuts = Cuts::new(self.incarnation);
        for (subject, cut) in &self.cuts {
            cuts.cut(*subject, cut.before);
        }
        for subject in &self.ended_trees {
            cuts.cut(*subject, u64::MAX);
        }
        let now = self.at / SECOND;
        for agent in self.agents.iter().filter(|agent| agent.rare.told && end_of_cut(agent, self.out) > now) {
            cuts.cut(Target::Agent(agent.uuid).unsalted(), u64::MAX);
        }
        for slot in self.authorities.slots.iter().filter(|s| s.status == authority::Status::Tainted) {
            cuts.cut(Target::Authority(slot.key_id()).unsalted(), u64::MAX);
        }
        cuts
    }

    /// Whether credentials with these stamps are revoked, or from another epoch of the journal.
    pub fn is_cut(&self, incarnation: Uuid, stamps: &[Stamp]) -> bool {
        incarnation != self.incarnation
            || stamps.iter().any(|stamp| self.kills(stamp))
            || stamps.iter().any(|stamp| self.ended_trees.contains(&stamp.subject))
    }

    /// Whether a cut revokes this stamp.
    pub fn kills(&self, stamp: &Stamp) -> bool {
        self.cuts.get(&stamp.subject).is_some_and(|cut| stamp.since < cut.before)
    }

    /// One agent.
    pub fn agent(&self, uuid: &Uuid) -> Option<&Agent> {
        self.agents.get(uuid)
    }

    /// The agent that a request made, by the key of its request id.
    pub fn agent_of_request(&self, key: &[u8; 32]) -> Option<&Agent> {
        self.agent(&self.requests.get(key)?.agent?)
    }

    /// The agents after `after`, in order of id.
    pub fn agents_after(&self, after: Option<Uuid>) -> impl Iterator<Item = &Agent> {
        self.agents.after(after)
    }

    /// Removes and returns the revisions of all records that no longer matter.
    pub fn take_obsolete(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.obsolete).into()
    }

    /// Removes revisions whose rows were dropped from the front of [`State::obsolete`].
    pub fn dropped(&mut self, revisions: &[u64]) {
        for revision in revisions {
            if self.obsolete.front() == Some(revision) {
                self.obsolete.pop_front();
            }
        }
    }

    /// Revision of the last configuration record.
    pub fn configured_at(&self) -> u64 {
        self.configured_at
    }

    /// The revoked targets after `revision`, in the order of their records; each with its standing, and the revision before which
    /// reliance on it is revoked.
    pub fn standings_after(&self, revision: u64) -> impl Iterator<Item = (&Target, &TargetStanding, u64)> {
        let after = (std::ops::Bound::Excluded(revision), std::ops::Bound::Unbounded);
        self.told.range(after).filter_map(|(_, target)| {
            let standing = self.standings.get(target)?;
            Some((target, standing, self.cuts.get(&self.subject(target))?.before))
        })
    }

    /// The targets for which nothing new is issued.
    pub fn closed(&self) -> impl Iterator<Item = &Target> {
        self.standings.iter().filter(|(_, standing)| standing.closed).map(|(target, _)| target)
    }

    /// Whether a public key with this SHA-256 was revoked. This is kept longer than the cut, because a key never comes back.
    pub fn key_revoked(&self, key: &[u8; 32]) -> bool {
        self.standings.contains_key(&Target::Key(*key))
    }

    fn last(&mut self, until: u64, begins: bool) {
        let count = self.lasting.entry(until).or_default();
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.lasting.remove(&until);
        }
    }

    /// Whether a JWT-SVID with this `jti` has proved a client before. It is remembered until the JWT-SVID expires.
    pub fn assertion_used(&self, jti: &[u8; 16]) -> bool {
        self.assertions.contains(jti)
    }

    /// Whether the access token with this `jti` was revoked.
    pub fn token_revoked(&self, jti: &str) -> bool {
        self.standings.contains_key(&Target::Token(jti.to_owned()))
    }

    /// Number of known agents.
    pub fn agent_count(&self) -> usize {
        self.agents.len()
    }

    /// The owner of a key.
    pub fn owner(&self, key: &[u8; 32]) -> Option<Owner<'_>> {
        if let Some(uuid) = self.agents.owner(&half(key)) {
            return Some(Owner::Agent(uuid));
        }
        self.workload_keys.get(key).map(|known| Owner::Workload(&known.name, known.ends_at))
    }

    /// The delegation that was recorded for a token, if it is still valid at `now` (Unix microseconds).
    pub fn delegation_by_proof(&self, proof: &[u8; 32], now: u64) -> Option<&Arc<Delegation>> {
        self.delegations.get(self.proofs.get(proof)?).filter(|d| now < d.ends_at)
    }

    /// A ticket, by the SHA-256 of its secret.
    pub fn ticket(&self, hash: &[u8; 32]) -> Option<&Ticket> {
        self.tickets.get(hash)
    }

    /// A delegation, if it is still valid at `now` (Unix microseconds).
    pub fn delegation(&self, id: &DelegationId, now: u64) -> Option<&Arc<Delegation>> {
        self.delegations.get(id).filter(|d| now < d.ends_at)
    }

    /// The standing of an agent at `now` (Unix microseconds).
    pub fn standing(&self, agent: &Agent, now: u64) -> Standing {
        standing(agent, now, |stamp| self.kills(stamp), |uuid| self.agent(uuid))
    }

    /// Whether a delegation or a revocation of a user is known.
    pub fn knows_user(&self, user: &User) -> bool {
        self.standings.contains_key(&Target::User(user.clone())) || self.delegations.values().any(|d| d.user == *user)
    }

    /// The count of a seat: see [`Seat`].
    pub fn seats(&self, seat: Seat) -> i64 {
        self.seats.get(&seat).copied().unwrap_or(0)
    }
}

/// The standing of an agent, for the given revoked stamps and known agents.
fn standing<'a>(agent: &Agent, now: u64, cut: impl Fn(&Stamp) -> bool, known: impl Fn(&Uuid) -> Option<&'a Agent>) -> Standing {
    let over = |uuid| known(&uuid).is_none_or(|above| above.rare.ended.is_some() || now >= above.acts_until());
    if agent.rare.ended.is_some() {
        Standing::Ended
    } else if agent.ancestors().any(|uuid| known(&uuid).is_some_and(|above| above.rare.ended.is_some())) {
        // T86: every ancestor is checked, however deep the tree is.
        Standing::Orphaned
    } else if agent.stamps().any(|stamp| cut(&stamp)) {
        Standing::Cut
    } else if now >= agent.acts_until() {
        Standing::Expired
    } else if agent.ancestors().any(over) {
        Standing::Orphaned
    } else {
        Standing::Live
    }
}

/// Seconds as microseconds.
pub(crate) fn seconds(s: u64) -> u64 {
    s.saturating_mul(SECOND)
}

/// The first half of a SHA-256.
fn half(digest: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    half
}

/// Bytes as an array of exactly that length.
pub(crate) fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}
