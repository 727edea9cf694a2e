//! One agent in the state: its position in the tree, its certificates, and its stamps.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use mayfly_verify::{AgentId, Binding, ClassName, Mode, Stamp, Subject, Target, TrustDomain};
use uuid::Uuid;

pub use super::delegation::Delegation;
use super::expiry::{AGENT, SEAT, When, number};
pub use super::generation::Generation;
use super::generation::Past;
use super::mandate::{EVERYTHING, Mandate};
use super::{Certificate, KEEP, Misfit, fixed, seconds};
use crate::journal::record;

/// The ancestors of an agent that an agent spawned. All children of one parent share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The ancestors that are agents, the parent first.
    pub agents: Vec<(ClassName, Uuid)>,
    /// The stamps of the parent.
    pub stamps: Vec<Stamp>,
    // The subject of the parent.
    subject: Subject,
}

/// One agent. There may be a million of them, so rarely needed fields live in [`More`], and common ones are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its class, its root and what it may do.
    pub mandate: Arc<Mandate>,
    /// Its ancestors that are agents. `None` for an agent that a workload spawned.
    pub lineage: Option<Arc<Lineage>>,
    /// The delegation that it acts under. `None` for an autonomous agent.
    pub delegation: Option<Arc<Delegation>>,
    /// The certificate in use. `None` before its ticket is redeemed, and for an agent without a key.
    pub current: Option<Certificate>,
    /// Revision of the record that made `current` the certificate in use.
    pub used_since: u64,
    /// Unix seconds.
    pub lease_ends_at: u64,
    /// End of its last certificate or of its ticket, in Unix seconds. For an agent without a key, the end of its parent's
    /// certificate or of its last token.
    pub svid_ends_at: u64,
    /// Unix microseconds.
    pub admitted_at: u64,
    /// Revision of its admission.
    pub revision: u64,
    /// Fields that most agents leave empty.
    pub rare: Rare,
    subject: Subject,
    /// Number of children in the state. Their records cannot be applied without this agent's.
    pub(super) children: u32,
    /// The next event of its life.
    pub(super) next: Next,
    /// Whether it is counted as live.
    pub(super) seated: bool,
    /// Whether it is in `taken_back` of its ancestors.
    pub(super) taken_back: bool,
}

/// The next event of an agent's life that comes with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It expires, and is no longer counted as live.
    Expires,
    /// It is removed from the state, some time after it was last counted as live.
    IsForgotten,
    /// Nothing: it would be removed, but its children still need it.
    Nothing,
}

/// Fields that most agents leave empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// A renewed certificate that has not been used yet.
    pub next: Option<Certificate>,
    /// Earlier certificates that have not expired, the oldest first.
    pub(super) past: Vec<Past>,
    /// Serial numbers of renewed certificates that were replaced before they were used.
    pub replaced: Vec<[u8; 16]>,
    /// SHA-256 of the secret of its ticket, if it had one.
    pub ticket: Option<[u8; 32]>,
    /// The nonce from which, with the request id, the ticket's secret is derived again for a retry.
    pub ticket_nonce: [u8; 16],
    /// The parts of the request that were not given.
    pub clipped: Vec<String>,
    /// The last extension of its lease: SHA-256 of the signed part of the user's token, and the record's revision.
    pub extended: Option<([u8; 32], u64)>,
    /// Revision of its end. `None` if nobody ended it.
    pub ended: Option<u64>,
    /// Unix microseconds of its end; 0 if nobody ended it.
    pub ended_at: u64,
    /// Who ended it: an operator, or the scope of another caller.
    pub ended_by: String,
    /// Whether its end was published to verifiers, although there were no agents below it.
    pub told: bool,
    /// Number of agents below it that ended alone, whose end was published and whose certificates have not expired.
    pub ended_below: u32,
    /// Whether it is counted in `ended_below` of its ancestors.
    pub(super) counted: bool,
    /// The agents below it that were revoked or ended with others below them, as published. Empty once it is revoked itself.
    pub taken_back: BTreeSet<Uuid>,
    /// What its children inherit. `None` before the first child.
    pub(super) below: Option<Arc<Lineage>>,
    /// The audiences for which it has had a token, as far as that is recorded.
    pub used: Vec<Box<str>>,
    /// Revisions of its other records.
    pub(super) rows: Vec<u64>,
    /// SHA-256 of the public keys of its earlier certificates, and of replaced ones.
    pub(super) keys: Vec<[u8; 32]>,
}

static NOTHING_MORE: More = More {
    next: None,
    past: Vec::new(),
    replaced: Vec::new(),
    ticket: None,
    ticket_nonce: [0; 16],
    clipped: Vec::new(),
    extended: None,
    ended: None,
    ended_at: 0,
    ended_by: String::new(),
    told: false,
    ended_below: 0,
    counted: false,
    taken_back: BTreeSet::new(),
    below: None,
    used: Vec::new(),
    rows: Vec::new(),
    keys: Vec::new(),
};

/// Optional fields. They take no memory while all of them are empty.
#[derive(Clone, Default)]
pub struct Rare(Option<Box<More>>);

impl Deref for Rare {
    type Target = More;

    fn deref(&self) -> &More {
        self.0.as_deref().unwrap_or(&NOTHING_MORE)
    }
}

impl DerefMut for Rare {
    fn deref_mut(&mut self) -> &mut More {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for Rare {
    fn eq(&self, other: &Rare) -> bool {
        **self == **other
    }
}

impl Eq for Rare {}

impl fmt::Debug for Rare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Whether an agent may act, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may act.
    Live,
    /// Its last certificate or its lease has ended.
    Expired,
    /// It was ended, by itself or by somebody who may end it.
    Ended,
    /// Something it relies on was revoked.
    Cut,
    /// An ancestor has ended or expired.
    Orphaned,
}

impl Standing {
    /// Reason code and message for an agent that may not act; `None` if it may.
    pub fn refusal(self) -> Option<(&'static str, &'static str)> {
        match self {
            Standing::Live => None,
            Standing::Expired => Some(("AGENT_EXPIRED", "the agent has expired")),
            Standing::Ended => Some(("AGENT_ENDED", "the agent has ended")),
            Standing::Cut => Some(("AGENT_REVOKED", "the agent was revoked")),
            Standing::Orphaned => {
                Some(("AGENT_ORPHANED", "an ancestor of this agent has ended or expired, so this agent has too"))
            }
        }
    }
}

impl Agent {
    /// The agent that an admission makes.
    pub(crate) fn admitted(
        revision: u64,
        at: u64,
        a: &record::Admitted,
        mandate: Arc<Mandate>,
        delegation: Option<Arc<Delegation>>,
        lineage: Option<Arc<Lineage>>,
    ) -> Result<Agent, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let mut rare = Rare::default();
        if !a.ticket.is_empty() {
            rare.ticket = Some(fixed(&a.ticket).ok_or(misfit("ticket"))?);
            if !a.ticket_nonce.is_empty() {
                rare.ticket_nonce = fixed(&a.ticket_nonce).ok_or(misfit("ticket nonce"))?;
            }
        }
        if !a.clipped.is_empty() {
            rare.clipped.clone_from(&a.clipped);
        }
        let current = match a.key.as_slice() {
            [] if rare.ticket.is_some() != a.keyless && (!a.keyless || lineage.is_some()) => None,
            key => Some(Certificate::recorded(revision, key, &a.serial, a.svid_begins_at, a.svid_ends_at)?),
        };
        let uuid = Uuid::from_slice(&a.agent).map_err(|_| misfit("agent"))?;
        Ok(Agent {
            uuid,
            mandate,
            lineage,
            delegation,
            current,
            used_since: revision,
            lease_ends_at: a.lease_ends_at,
            svid_ends_at: a.svid_ends_at,
            admitted_at: at,
            revision,
            rare,
            subject: Target::Agent(uuid).unsalted(),
            children: 0,
            next: Next::Expires,
            seated: true,
            taken_back: false,
        })
    }

    /// Its SPIFFE ID.
    pub fn id(&self, td: &TrustDomain) -> AgentId {
        AgentId { trust_domain: td.clone(), class: self.mandate.class.clone(), uuid: self.uuid }
    }

    /// The agent that spawned it. `None` if a workload did.
    pub fn parent(&self) -> Option<Uuid> {
        self.ancestors().next()
    }

    /// Whether it has neither a key nor a ticket for one. Its parent mints its tokens.
    pub fn is_keyless(&self) -> bool {
        self.current.is_none() && self.rare.ticket.is_none()
    }

    /// Its ancestors that are agents, the parent first.
    pub fn ancestors(&self) -> impl Iterator<Item = Uuid> {
        self.lineage.iter().flat_map(|lineage| lineage.agents.iter().map(|(_, uuid)| *uuid))
    }

    /// Levels below the root workload; 1 directly below it.
    pub fn depth(&self) -> u32 {
        1 + u32::try_from(self.ancestors().count()).unwrap_or(u32::MAX - 1)
    }

    /// SPIFFE IDs from the parent up to the root workload.
    pub fn chain(&self, td: &TrustDomain) -> Vec<String> {
        let agents = self.lineage.iter().flat_map(|lineage| &lineage.agents);
        let id = |(class, uuid): &(ClassName, Uuid)| {
            AgentId { trust_domain: td.clone(), class: class.clone(), uuid: *uuid }.to_string()
        };
        agents.map(id).chain(std::iter::once(self.mandate.workload.id(td))).collect()
    }

    /// Whether it is counted as live.
    pub fn is_seated(&self) -> bool {
        self.seated
    }

    /// Whether it has children in the state.
    pub fn has_children(&self) -> bool {
        self.children > 0
    }

    /// Whether it acts for a user or for nobody.
    pub fn mode(&self) -> Mode {
        if self.delegation.is_some() { Mode::Delegated } else { Mode::Autonomous }
    }

    /// Its stamps: its parent's plus its own. Of duplicates the one with the lower revision stays.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> {
        let stamp = |subject, since| Stamp { subject, since };
        let above = self.lineage.as_ref().map_or(&[][..], |lineage| &lineage.stamps);
        let top = self.lineage.is_none().then(|| {
            let workload = stamp(self.mandate.workload_subject, self.revision);
            let first = self.delegation.as_ref().map_or(self.revision, |d| d.revision.min(self.revision));
            let delegation = self.delegation.iter().flat_map(|d| d.stamps());
            delegation.chain([workload, stamp(*EVERYTHING, first)])
        });
        let class = self.mandate.class_subject;
        let own_class = above.iter().all(|s| s.subject != class).then(|| stamp(class, self.revision));
        above.iter().copied().chain(top.into_iter().flatten()).chain([stamp(self.subject, self.revision)]).chain(own_class)
    }

    /// The binding of a credential that the record at `revision` allowed, limited to `scopes`.
    pub fn binding(&self, td: &TrustDomain, incarnation: Uuid, revision: u64, scopes: &[String]) -> Binding {
        Binding {
            incarnation,
            revision,
            stamps: self.stamps().collect(),
            delegation: self.delegation.as_ref().map(|d| d.id),
            user: self.delegation.as_ref().map(|d| d.user.clone()),
            chain: self.chain(td),
            mode: self.mode(),
            scopes: scopes.to_vec(),
            lease_expires_at: self.lease_ends_at,
        }
    }

    /// Its last certificate. `None` before its ticket is redeemed.
    pub fn last(&self) -> Option<&Certificate> {
        self.rare.next.as_ref().or(self.current.as_ref())
    }

    /// What its children inherit.
    pub(crate) fn lineage_below(&self) -> Arc<Lineage> {
        if let Some(known) = &self.rare.below {
            return Arc::clone(known);
        }
        let above = self.lineage.iter().flat_map(|lineage| lineage.agents.iter().cloned());
        let agents = std::iter::once((self.mandate.class.clone(), self.uuid)).chain(above).collect();
        Arc::new(Lineage { agents, stamps: self.stamps().collect(), subject: self.subject })
    }

    /// Marks a copy that an overlay no longer counts as live.
    pub(crate) fn unseat_copy(&mut self, gone: bool) {
        self.seated = self.seated && !gone;
    }

    /// The counters that include it while it is live: those below everything it relies on, of its class, and directly below its
    /// spawner.
    pub(crate) fn seats(&self) -> impl Iterator<Item = Seat> {
        let below = self.stamps().filter(|s| s.subject != self.subject).map(|s| Seat(Count::Below, s.subject));
        let spawner = self.lineage.as_ref().map_or(self.mandate.workload_subject, |lineage| lineage.subject);
        below.chain([Seat(Count::OfClass, self.mandate.class_subject), Seat(Count::DirectlyBelow, spawner)])
    }

    /// SHA-256 of every public key that was certified for it.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.current.iter().chain(&self.rare.next).map(|c| &c.key).chain(&self.rare.keys)
    }

    /// Unix microseconds at which its last certificate, its ticket or its lease ends.
    pub(super) fn expires_at(&self) -> u64 {
        seconds(self.svid_ends_at.min(self.lease_ends_at))
    }

    /// Unix microseconds from which on it may not act, whatever its ancestors do. Without a key it has no certificate.
    pub(super) fn acts_until(&self) -> u64 {
        if self.is_keyless() { seconds(self.lease_ends_at) } else { self.expires_at() }
    }

    /// When the next event of its life comes.
    pub(super) fn due(&self) -> Option<When> {
        match self.next {
            Next::Expires => Some((self.expires_at(), number(self.revision, 0, SEAT))),
            Next::IsForgotten => Some((self.forgotten_at(), number(self.revision, 0, AGENT))),
            Next::Nothing => None,
        }
    }

    /// Unix microseconds at which it is removed from the state.
    pub(crate) fn forgotten_at(&self) -> u64 {
        seconds(self.svid_ends_at).saturating_add(KEEP)
    }
}

/// What a seat counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// Live agents that rely on the subject.
    Below,
    /// Live agents of a class.
    OfClass,
    /// Live agents directly below a workload or an agent.
    DirectlyBelow,
    /// Questions that wait for a person's answer.
    Waiting,
}

/// A counter of live agents, or of waiting questions, for one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat(pub Count, pub Subject);
