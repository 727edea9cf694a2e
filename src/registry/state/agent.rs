//! One agent as state knows it: where it stands in its tree, which certificates it holds, what it relies on.

use std::sync::Arc;

use mayfly_verify::{
    AgentId, Binding, ClassName, DelegationId, Mode, Stamp, Subject, Target, TrustDomain, User, Workload, add_stamp,
};
use uuid::Uuid;

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
}

/// What stands above an agent that an agent spawned. All children of one parent share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The agents above, the parent first.
    pub agents: Vec<(ClassName, Uuid)>,
    /// The stamps of the parent.
    pub stamps: Vec<Stamp>,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its class.
    pub class: ClassName,
    /// The workload at the root.
    pub workload: Workload,
    /// The agents above; none directly below the workload.
    pub lineage: Option<Arc<Lineage>>,
    /// The delegation; none for an autonomous agent.
    pub delegation: Option<Arc<Delegation>>,
    /// Its certificate; none before its ticket was redeemed.
    pub current: Option<Certificate>,
    /// A renewed certificate that was not used yet.
    pub next: Option<Certificate>,
    /// Serial numbers of renewed certificates that were replaced before they were used.
    pub replaced: Vec<Vec<u8>>,
    /// The record by which the current certificate became that.
    pub used_since: u64,
    /// SHA-256 of its ticket's secret, when it came with one.
    pub ticket: Option<[u8; 32]>,
    /// Sorted.
    pub scopes: Vec<String>,
    /// Sorted.
    pub audiences: Vec<String>,
    /// Levels of agents that may stand below it.
    pub depth_left: u32,
    /// Unix seconds.
    pub lease_ends_at: u64,
    /// Unix seconds, of its last certificate or its ticket.
    pub svid_ends_at: u64,
    /// Unix microseconds.
    pub admitted_at: u64,
    /// Its admission.
    pub revision: u64,
    /// What was asked for and not given.
    pub clipped: Vec<String>,
    /// Its end, if it was ended.
    pub ended: Option<u64>,
    /// What it relies on; made once, because every call asks.
    stamps: Arc<[Stamp]>,
    /// What its children inherit; none before it has one.
    pub(super) below: Option<Arc<Lineage>>,
    /// Children that are still known: their records need this one.
    pub(super) children: u32,
    /// Over, and known only for its children.
    pub(super) over: bool,
    /// Whether it counts as one that lives.
    pub(super) seated: bool,
    /// Revisions of its other records.
    pub(super) rows: Vec<u64>,
    /// SHA-256 of every public key it was certified with.
    pub(super) keys: Vec<[u8; 32]>,
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
        delegation: Option<Arc<Delegation>>,
        lineage: Option<Arc<Lineage>>,
    ) -> Result<Agent, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let ticket = match a.ticket.as_slice() {
            [] => None,
            hash => Some(fixed(hash).ok_or(misfit("ticket"))?),
        };
        let current = match a.key.as_slice() {
            [] if ticket.is_some() => None,
            key => Some(Certificate {
                key: fixed(key).ok_or(misfit("key"))?,
                serial: a.serial.clone(),
                begins_at: a.svid_begins_at,
                ends_at: a.svid_ends_at,
                revision,
            }),
        };
        let keys = current.iter().map(|c| c.key).collect();
        let mut agent = Agent {
            uuid: Uuid::from_slice(&a.agent).map_err(|_| misfit("agent"))?,
            class: a.class.parse().map_err(|_| misfit("class"))?,
            workload: a.workload.parse().map_err(|_| misfit("workload"))?,
            lineage,
            delegation,
            current,
            next: None,
            replaced: Vec::new(),
            used_since: revision,
            ticket,
            scopes: a.scopes.clone(),
            audiences: a.audiences.clone(),
            depth_left: a.depth_left,
            lease_ends_at: a.lease_ends_at,
            svid_ends_at: a.svid_ends_at,
            admitted_at: at,
            revision,
            clipped: a.clipped.clone(),
            ended: None,
            below: None,
            children: 0,
            over: false,
            seated: true,
            rows: Vec::new(),
            keys,
            stamps: Arc::new([]),
        };
        agent.stamps = agent.make_stamps().into();
        Ok(agent)
    }

    /// Its SPIFFE ID.
    pub fn id(&self, td: &TrustDomain) -> AgentId {
        AgentId { trust_domain: td.clone(), class: self.class.clone(), uuid: self.uuid }
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
        agents.map(id).chain(std::iter::once(self.workload.id(td))).collect()
    }

    /// Whether agents below it are known.
    pub fn has_children(&self) -> bool {
        self.children > 0
    }

    /// By which right it exists.
    pub fn mode(&self) -> Mode {
        if self.delegation.is_some() { Mode::Delegated } else { Mode::Autonomous }
    }

    /// What it relies on.
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// DESIGN 6: a child's stamps are its parent's plus its own, duplicates keep the lowest.
    fn make_stamps(&self) -> Vec<Stamp> {
        let stamp = |target: Target, since| Stamp { subject: target.subject(), since };
        let mut stamps = match &self.lineage {
            Some(lineage) => {
                let mut stamps = Vec::with_capacity(lineage.stamps.len() + 2);
                stamps.extend_from_slice(&lineage.stamps);
                stamps
            }
            None => {
                let mut stamps = Vec::with_capacity(6);
                let mut first = self.revision;
                if let Some(delegation) = &self.delegation {
                    first = first.min(delegation.revision);
                    add_stamp(&mut stamps, stamp(Target::User(delegation.user.clone()), delegation.revision));
                    add_stamp(&mut stamps, stamp(Target::Delegation(delegation.id), delegation.revision));
                }
                add_stamp(&mut stamps, stamp(Target::Workload(self.workload.clone()), self.revision));
                add_stamp(&mut stamps, stamp(Target::TrustDomain, first));
                stamps
            }
        };
        add_stamp(&mut stamps, stamp(Target::Agent(self.uuid), self.revision));
        add_stamp(&mut stamps, stamp(Target::Class(self.class.clone()), self.revision));
        stamps
    }

    /// The binding of a credential that the record at `revision` allowed, for what the agent may do by it.
    pub fn binding(&self, td: &TrustDomain, incarnation: Uuid, revision: u64, scopes: &[String]) -> Binding {
        Binding {
            incarnation,
            revision,
            stamps: self.stamps.to_vec(),
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
            () if is(&self.next) => Generation::Next,
            () if self.replaced.iter().any(|r| r == serial) => Generation::Replaced,
            () => Generation::Past,
        }
    }

    /// Its last certificate; none before its ticket was redeemed.
    pub fn last(&self) -> Option<&Certificate> {
        self.next.as_ref().or(self.current.as_ref())
    }

    /// What its children inherit.
    pub(in crate::registry) fn lineage_below(&self) -> Arc<Lineage> {
        if let Some(known) = &self.below {
            return Arc::clone(known);
        }
        let above = self.lineage.iter().flat_map(|lineage| lineage.agents.iter().cloned());
        let agents = std::iter::once((self.class.clone(), self.uuid)).chain(above).collect();
        Arc::new(Lineage { agents, stamps: self.stamps.to_vec() })
    }

    /// In a copy for an overlay that has given its seats back.
    pub(in crate::registry) fn unseat_copy(&mut self, gone: bool) {
        self.seated = self.seated && !gone;
    }

    /// Where it is counted while it lives: below everything it relies on, in its class, and directly below its spawner.
    pub(super) fn seats(&self) -> Vec<Seat> {
        let own = Target::Agent(self.uuid).subject();
        let mut seats: Vec<Seat> =
            self.stamps().iter().filter(|s| s.subject != own).map(|s| Seat(Count::Below, s.subject)).collect();
        seats.push(Seat(Count::OfClass, Target::Class(self.class.clone()).subject()));
        let spawner = self.parent().map_or_else(|| Target::Workload(self.workload.clone()), Target::Agent);
        seats.push(Seat(Count::DirectlyBelow, spawner.subject()));
        seats
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
