//! Expiry: seats are given back, ended things are forgotten, and records that no longer matter are named.

use std::collections::BTreeSet;

use mayfly_verify::{DelegationId, Subject, Target};
use uuid::Uuid;

use super::agent::Next;
use super::{Agent, KEEP, State, seconds};
use crate::clock::SECOND;

/// Key of an entry: the due time in Unix microseconds, then a number made of the record's revision, `nth` and the kind.
pub(super) type When = (u64, u64);

/// The highest number that tells things of one kind and one record apart.
const NTH: u16 = 0xfff;

/// Something that happens at a known time. What happens to agents is not among it: see [`super::agents::Agents`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A delegation is forgotten.
    Delegation(Box<DelegationId>),
    /// A ticket is forgotten.
    Ticket(Box<[u8; 32]>),
    /// The outcome of a request is forgotten.
    Request(Box<[u8; 32]>),
    /// A workload's certificate is forgotten, with its key and its line if it is the last of each.
    Key(Box<([u8; 32], u64)>),
    /// A cut ends. Its row goes with the standing of its target.
    Cut(Subject),
    /// The standing of a target ends.
    Standing(Box<Target>),
    /// A record becomes obsolete, and nothing else happens.
    Record,
    /// A meter's reading ends.
    Meter([u8; 16]),
    /// An assertion expires, so it need not be remembered that it was used.
    Assertion([u8; 16]),
    /// A question has waited long enough.
    Waiting([u8; 16]),
    /// An approval is forgotten.
    Approval([u8; 16]),
    /// The time of a reservation passes.
    Hold,
    /// The outcome of a spend is forgotten.
    Spend(Box<[u8; 32]>),
}

/// Things that one commit lets happen at most. When 700,000 agents end in one second, nobody waits for all of them.
pub const AT_ONCE: usize = 1024;

/// What happens to an agent, as a kind: it is forgotten.
pub(super) const AGENT: u64 = 0;
/// It gives its seats back.
pub(super) const SEAT: u64 = 8;

/// What happens next: to an agent, or anything else.
pub(super) enum Happens<'a> {
    Agent(&'a Agent),
    Other(&'a Due),
}

fn kind(what: &Due) -> u64 {
    // 0 and 8 are for agents.
    match what {
        Due::Delegation(_) => 1,
        Due::Ticket(_) => 2,
        Due::Request(_) => 3,
        Due::Key(_) => 4,
        Due::Cut(_) => 5,
        Due::Standing(_) => 6,
        Due::Record => 7,
        Due::Meter(_) => 9,
        Due::Assertion(_) => 10,
        Due::Waiting(_) => 13,
        Due::Approval(_) => 14,
        Due::Hold => 11,
        Due::Spend(_) => 12,
    }
}

/// The number of an entry: the record's revision, `nth` and the kind.
pub(super) fn number(revision: u64, nth: u16, kind: u64) -> u64 {
    // INVARIANT: revisions stay below 2^48, which at a million a second takes nine years; one record has 4,096 such things.
    revision << 16 | u64::from(nth & NTH) << 4 | kind
}

impl State {
    pub(super) fn due(&mut self, when: u64, revision: u64, what: Due) {
        self.due_nth(when, revision, 0, what);
    }

    /// `nth` tells things of one kind and one record apart.
    pub(super) fn due_nth(&mut self, when: u64, revision: u64, nth: u16, what: Due) {
        self.due.insert((when, number(revision, nth, kind(&what))), what);
    }

    /// Takes back what [`State::due`] was told.
    pub(super) fn no_longer_due(&mut self, when: u64, revision: u64, what: &Due) {
        self.due.remove(&(when, number(revision, 0, kind(what))));
    }

    /// Agents that have expired by `now` (Unix microseconds) and still hold their seats, because no record has come since: the
    /// first of them, if many things are due.
    pub(crate) fn run_out(&self, now: u64) -> BTreeSet<Uuid> {
        let due = self.due_by(now).take(AT_ONCE);
        let agents = due.filter_map(|what| if let Happens::Agent(agent) = what { Some(agent) } else { None });
        agents.filter(|agent| agent.seated && self.seat_ends_at(agent) <= now).map(|agent| agent.uuid).collect()
    }

    /// Unix microseconds at which an agent gives its seats back, as far as is known now. One without a key does so with its parent: nobody
    /// could use it any longer, though its lease goes on.
    fn seat_ends_at(&self, agent: &Agent) -> u64 {
        let parent = agent.parent().filter(|_| agent.is_keyless() && agent.rare.ended.is_none());
        match parent.and_then(|parent| self.agents.get(&parent)) {
            Some(parent) => parent.expires_at().min(seconds(agent.lease_ends_at)),
            None => agent.expires_at(),
        }
    }

    /// What happens by `now` (Unix microseconds), in order.
    pub(super) fn due_by(&self, now: u64) -> impl Iterator<Item = Happens<'_>> {
        let mut agents = self.agents.due_by(now).peekable();
        let mut others = self.due.range(..=(now, u64::MAX)).peekable();
        std::iter::from_fn(move || match (agents.peek(), others.peek()) {
            (Some((when, _)), other) if other.is_none_or(|(first, _)| when < first) => {
                agents.next().map(|(_, agent)| Happens::Agent(agent))
            }
            _ => others.next().map(|(_, what)| Happens::Other(what)),
        })
    }

    /// Lets the time of a record (Unix microseconds) take effect, on at most `budget` things.
    pub(super) fn expire(&mut self, now: u64, budget: &mut usize) {
        self.out.forget(now);
        while *budget > 0 {
            let agent = self.agents.first_due().filter(|((at, _), _)| *at <= now);
            let Some(entry) =
                self.due.first_entry().filter(|e| e.key().0 <= now && agent.is_none_or(|(first, _)| *e.key() < first))
            else {
                let Some(((when, _), uuid)) = agent else { return };
                *budget -= 1;
                self.time_came(uuid, when);
                continue;
            };
            *budget -= 1;
            let ((when, by), what) = entry.remove_entry();
            let (revision, nth) = (by >> 16, u16::try_from(by >> 4 & u64::from(NTH)).unwrap_or(NTH));
            let obsolete = match what {
                // It goes with the last extended agent under it.
                Due::Delegation(id) if self.prolonged.contains_key(&*id) => false,
                Due::Delegation(id) => {
                    self.forget_delegation(&id);
                    true
                }
                Due::Ticket(hash) => {
                    self.tickets.remove(&*hash);
                    true
                }
                // An admission's row goes with its agent.
                Due::Request(key) => self.requests.remove(&*key).is_some_and(|done| done.agent.is_none()),
                Due::Key(certified) => {
                    let (key, line) = *certified;
                    // A key that was certified again lives on under its later record.
                    let over =
                        self.workload_keys.get(&key).is_some_and(|known| seconds(known.ends_at).saturating_add(KEEP) <= when);
                    if over {
                        self.workload_keys.remove(&key);
                    }
                    let used = self.unlinked(line, revision);
                    self.obsolete.extend(used);
                    true
                }
                Due::Cut(subject) => {
                    if self.cuts.get(&subject).is_some_and(|cut| cut.until <= when) {
                        self.cuts.remove(&subject);
                    }
                    false
                }
                Due::Standing(target) => match self.standings.get(&*target) {
                    // Closed until somebody reopens it, however long that takes.
                    Some(standing) if standing.revision == revision && standing.closed => false,
                    Some(standing) if standing.revision == revision => {
                        self.standings.remove(&*target);
                        self.told.remove(&revision);
                        if let Target::Agent(uuid) = *target
                            && !self.ended_trees.contains(&target.unsalted())
                        {
                            self.no_longer_taken_back(&uuid);
                        }
                        true
                    }
                    _ => false,
                },
                Due::Record => true,
                Due::Assertion(jti) => {
                    self.assertions.remove(&jti);
                    false
                }
                Due::Waiting(id) => {
                    self.no_longer_waits(&id);
                    false
                }
                Due::Approval(id) => {
                    self.forget_approval(&id);
                    false
                }
                Due::Hold => {
                    self.hold_ended(revision);
                    false
                }
                Due::Spend(key) => {
                    self.spend_forgotten(&key, revision);
                    false
                }
                Due::Meter(key) => {
                    match self.meters.get(&key).map(|reading| reading.until) {
                        Some(until) if until > when => self.due_nth(until, revision, nth, Due::Meter(key)),
                        _ => drop(self.meters.remove(&key)),
                    }
                    false
                }
            };
            if obsolete {
                self.obsolete.push_back(revision);
            }
        }
    }

    /// The time of an agent has come: it expires, or is forgotten.
    fn time_came(&mut self, uuid: Uuid, when: u64) {
        // The parent of an agent without a key was renewed meanwhile: it is looked at again when that certificate ends.
        let later = self.agents.get(&uuid).filter(|agent| agent.next == Next::Expires).map(|agent| self.seat_ends_at(agent));
        if let Some(later) = later.filter(|later| *later > when) {
            self.agents.change(&uuid, |agent| agent.svid_ends_at = later / SECOND);
            return;
        }
        if self.agents.get(&uuid).is_some_and(|agent| agent.next == Next::Expires) {
            self.unseat(&uuid);
            self.no_longer_counted(&uuid);
            self.agents.change(&uuid, |agent| agent.next = Next::IsForgotten);
        } else {
            self.agents.change(&uuid, |agent| agent.next = Next::Nothing);
            self.forget(uuid, when);
        }
    }

    /// Forgets an agent whose time has come, unless a child's record still needs it; then its parents in the same way.
    fn forget(&mut self, uuid: Uuid, when: u64) {
        let mut next = Some(uuid);
        while let Some(uuid) = next.take() {
            let Some(agent) = self.agents.get(&uuid) else { return };
            if agent.forgotten_at() > when || agent.children > 0 {
                return;
            }
            self.unseat(&uuid);
            self.no_longer_counted(&uuid);
            self.no_longer_taken_back(&uuid);
            self.account_forgotten(&uuid);
            let Some(agent) = self.agents.remove(&uuid) else { return };
            self.last(seconds(agent.lease_ends_at), false);
            if let Some(hash) = &agent.rare.ticket {
                self.tickets.remove(hash);
            }
            self.obsolete.push_back(agent.revision);
            self.obsolete.extend(&agent.rare.rows);
            if let Some(delegation) = agent.delegation.as_ref().filter(|_| agent.rare.extended.is_some()) {
                self.no_longer_prolonged(delegation.id, when);
            }
            if let Some(parent) = agent.parent()
                && let Some(above) = self.agents.get_mut(&parent)
            {
                above.children = above.children.saturating_sub(1);
                if above.children == 0 {
                    above.rare.below = None;
                    next = (above.next == Next::Nothing).then_some(parent);
                    let ended = self.ended_trees.remove(&Target::Agent(parent).unsalted());
                    if ended && !self.standings.contains_key(&Target::Agent(parent)) {
                        self.no_longer_taken_back(&parent);
                    }
                }
            }
        }
    }
}
