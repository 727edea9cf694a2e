//! One agent as state knows it: where it stands in its tree, which certificates it holds, what it relies on.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use mayfly_verify::{AgentId, Binding, ClassName, DelegationId, Mode, Stamp, Subject, Target, TrustDomain, User, Workload};
use uuid::Uuid;

use super::mandate::{EVERYTHING, Mandate};
use super::{Certificate, KEEP, Misfit, fixed, seconds};
use crate::journal::record;

/// What a user lets a workload do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// SHA-256 of its canonical JSON.
    pub id: DelegationId,
    /// Whose.
    pub user: User,
    /// Whom it names.
    pub workload: Workload,
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
    /// Of its user, and its own.
    subjects: (Subject, Subject),
}

impl Delegation {
    /// What a record says. `ends_at` is in unix microseconds.
    pub(in crate::registry) fn recorded(revision: u64, d: &record::Delegated) -> Result<Delegation, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let id = DelegationId(fixed(&d.id).ok_or(misfit("delegation id"))?);
        let user = User { iss: d.iss.clone(), sub: d.sub.clone() };
        Ok(Delegation {
            subjects: (Target::User(user.clone()).subject(), Target::Delegation(id).subject()),
            id,
            user,
            workload: d.workload.parse().map_err(|_| misfit("workload"))?,
            proof: fixed(&d.proof).ok_or(misfit("proof"))?,
            token: fixed(&d.token).ok_or(misfit("token"))?,
            scopes: d.scopes_limited.then(|| d.scopes.clone()),
            ends_at: d.ends_at,
            revision,
        })
    }

    /// What those who rely on it rely on.
    pub fn stamps(&self) -> [Stamp; 2] {
        let since = self.revision;
        [Stamp { subject: self.subjects.0, since }, Stamp { subject: self.subjects.1, since }]
    }
}

/// What stands above an agent that an agent spawned. All children of one parent share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The agents above, the parent first.
    pub agents: Vec<(ClassName, Uuid)>,
    /// The stamps of the parent.
    pub stamps: Vec<Stamp>,
    // Of the parent.
    subject: Subject,
}

/// One agent. There may be a million: what is seldom needed stands apart, and what many share is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its UUID.
    pub uuid: Uuid,
    /// What it may do.
    pub mandate: Arc<Mandate>,
    /// The agents above; none directly below the workload.
    pub lineage: Option<Arc<Lineage>>,
    /// The delegation; none for an autonomous agent.
    pub delegation: Option<Arc<Delegation>>,
    /// Its certificate; none before its ticket was redeemed.
    pub current: Option<Certificate>,
    /// The record by which the current certificate became that.
    pub used_since: u64,
    /// Unix seconds.
    pub lease_ends_at: u64,
    /// Unix seconds, of its last certificate or its ticket.
    pub svid_ends_at: u64,
    /// Unix microseconds.
    pub admitted_at: u64,
    /// Its admission.
    pub revision: u64,
    /// What most agents lack.
    pub rare: Rare,
    subject: Subject,
    /// Children that are still known: their records need this one.
    pub(super) children: u32,
    /// Over, and known only for its children.
    pub(super) over: bool,
    /// Whether it counts as one that lives.
    pub(super) seated: bool,
}

/// What most agents lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// A renewed certificate that was not used yet.
    pub next: Option<Certificate>,
    /// Serial numbers of renewed certificates that were replaced before they were used.
    pub replaced: Vec<[u8; 16]>,
    /// SHA-256 of its ticket's secret, when it came with one.
    pub ticket: Option<[u8; 32]>,
    /// What was asked for and not given.
    pub clipped: Vec<String>,
    /// Its end, if it was ended.
    pub ended: Option<u64>,
    /// What its children inherit; none before it has one.
    pub(super) below: Option<Arc<Lineage>>,
    /// Revisions of its other records.
    pub(super) rows: Vec<u64>,
    /// SHA-256 of the public keys of those before the current certificate, and of those that were replaced.
    pub(super) keys: Vec<[u8; 32]>,
}

static NOTHING_MORE: More = More {
    next: None,
    replaced: Vec::new(),
    ticket: None,
    clipped: Vec::new(),
    ended: None,
    below: None,
    rows: Vec::new(),
    keys: Vec::new(),
};

/// Takes room only where there is something.
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
    /// An agent above it has ended or expired.
    Orphaned,
}

impl Standing {
    /// Why an agent that stands so may not act: code and message; none when it may.
    pub fn refusal(self) -> Option<(&'static str, &'static str)> {
        match self {
            Standing::Live => None,
            Standing::Expired => Some(("AGENT_EXPIRED", "the agent has expired")),
            Standing::Ended => Some(("AGENT_ENDED", "the agent has ended")),
            Standing::Cut => Some(("AGENT_REVOKED", "the agent was revoked")),
            Standing::Orphaned => Some(("AGENT_ORPHANED", "an agent above this one has ended or expired, and it with that one")),
        }
    }
}

/// Which of an agent's certificates one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The one in use.
    Current,
    /// Renewed, and now used for the first time.
    Next,
    /// Renewed, then replaced before it was used.
    Replaced,
    /// From before the one in use.
    Past,
}

impl Agent {
    /// The agent of an admission.
    pub(in crate::registry) fn admitted(
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
        }
        if !a.clipped.is_empty() {
            rare.clipped.clone_from(&a.clipped);
        }
        let current = match a.key.as_slice() {
            [] if rare.ticket.is_some() => None,
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
            subject: Target::Agent(uuid).subject(),
            children: 0,
            over: false,
            seated: true,
        })
    }

    /// Its SPIFFE ID.
    pub fn id(&self, td: &TrustDomain) -> AgentId {
        AgentId { trust_domain: td.clone(), class: self.mandate.class.clone(), uuid: self.uuid }
    }

    /// The agent that spawned it; none directly below the workload.
    pub fn parent(&self) -> Option<Uuid> {
        self.ancestors().next()
    }

    /// The agents above it, the parent first.
    pub fn ancestors(&self) -> impl Iterator<Item = Uuid> {
        self.lineage.iter().flat_map(|lineage| lineage.agents.iter().map(|(_, uuid)| *uuid))
    }

    /// Levels below the workload; 1 directly below it.
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

    /// Whether agents below it are known.
    pub fn has_children(&self) -> bool {
        self.children > 0
    }

    /// By which right it exists.
    pub fn mode(&self) -> Mode {
        if self.delegation.is_some() { Mode::Delegated } else { Mode::Autonomous }
    }

    /// What it relies on. DESIGN 6: a child's stamps are its parent's plus its own, duplicates keep the lowest.
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

    /// The binding of a credential that the record at `revision` allowed, for what the agent may do by it.
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

    /// Which of its certificates one with this serial number is. It is one of its own: the chain was verified.
    pub fn generation(&self, serial: &[u8]) -> Generation {
        let is = |certificate: &Option<Certificate>| certificate.as_ref().is_some_and(|c| c.serial == serial);
        match () {
            () if is(&self.current) => Generation::Current,
            () if is(&self.rare.next) => Generation::Next,
            () if self.rare.replaced.iter().any(|r| r == serial) => Generation::Replaced,
            () => Generation::Past,
        }
    }

    /// Its last certificate; none before its ticket was redeemed.
    pub fn last(&self) -> Option<&Certificate> {
        self.rare.next.as_ref().or(self.current.as_ref())
    }

    /// A renewed certificate, which waits for its first use.
    pub(super) fn renewed(&mut self, certificate: Certificate) {
        if let Some(unused) = self.rare.next.replace(certificate) {
            self.rare.replaced.push(unused.serial);
            self.rare.keys.push(unused.key);
        }
    }

    /// The first use of the renewed certificate, as the record at `revision` tells.
    pub(super) fn used(&mut self, revision: u64) {
        if let Some(next) = self.rare.next.take() {
            let past = self.current.replace(next);
            self.rare.keys.extend(past.map(|c| c.key));
        }
        self.used_since = revision;
        self.rare.rows.push(revision);
    }

    /// What its children inherit.
    pub(in crate::registry) fn lineage_below(&self) -> Arc<Lineage> {
        if let Some(known) = &self.rare.below {
            return Arc::clone(known);
        }
        let above = self.lineage.iter().flat_map(|lineage| lineage.agents.iter().cloned());
        let agents = std::iter::once((self.mandate.class.clone(), self.uuid)).chain(above).collect();
        Arc::new(Lineage { agents, stamps: self.stamps().collect(), subject: self.subject })
    }

    /// In a copy for an overlay that has given its seats back.
    pub(in crate::registry) fn unseat_copy(&mut self, gone: bool) {
        self.seated = self.seated && !gone;
    }

    /// Where it is counted while it lives: below everything it relies on, in its class, and directly below its spawner.
    pub(in crate::registry) fn seats(&self) -> impl Iterator<Item = Seat> {
        let below = self.stamps().filter(|s| s.subject != self.subject).map(|s| Seat(Count::Below, s.subject));
        let spawner = self.lineage.as_ref().map_or(self.mandate.workload_subject, |lineage| lineage.subject);
        below.chain([Seat(Count::OfClass, self.mandate.class_subject), Seat(Count::DirectlyBelow, spawner)])
    }

    /// SHA-256 of every public key it was certified with.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.current.iter().chain(&self.rare.next).map(|c| &c.key).chain(&self.rare.keys)
    }

    /// Unix microseconds at which its last certificate, its ticket or its lease has run out.
    pub(super) fn expires_at(&self) -> u64 {
        seconds(self.svid_ends_at.min(self.lease_ends_at))
    }

    /// Unix microseconds at which it is forgotten.
    pub(super) fn forgotten_at(&self) -> u64 {
        seconds(self.svid_ends_at).saturating_add(KEEP)
    }
}

/// What is counted of those that live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// Everything that relies on the subject.
    Below,
    /// Of the class itself.
    OfClass,
    /// Directly below a workload or an agent.
    DirectlyBelow,
}

/// One count of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat(pub Count, pub Subject);
