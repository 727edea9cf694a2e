//! Expiry: expired agents are no longer counted as live, ended things are removed from the state, and records that no longer matter
//! are listed for dropping.

use std::collections::BTreeSet;

use mayfly_verify::{DelegationId, Subject, Target};
use uuid::Uuid;

use super::agent::Next;
use super::{Agent, KEEP, State, seconds};
use crate::clock::SECOND;

/// Key of an entry: the due time in Unix microseconds, then a number made of the record's revision, `nth` and the kind.
pub(super) type When = (u64, u64);

/// The highest number of a thing among those of one kind and one record.
const NTH: u16 = 0xfff;

/// A scheduled event. Events of agents are not here: see [`super::agents::Agents`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A delegation is forgotten.
    Delegation(Box<DelegationId>),
    /// A ticket is forgotten.
    Ticket(Box<[u8; 32]>),
    /// The outcome of a request is removed.
    Request(Box<[u8; 32]>),
    /// A workload's certificate is removed, with its key and its line if it is the last of these.
    Key(Box<([u8; 32], u64)>),
    /// A cut ends. Its row is dropped with the standing of its target.
    Cut(Subject),
    /// The standing of a target ends.
    Standing(Box<Target>),
    /// A record becomes obsolete, without another effect.
    Record,
    /// A meter's reading ends.
    Meter([u8; 16]),
    /// An assertion expires, so its use need not be remembered.
    Assertion([u8; 16]),
    /// The time for an answer to a question has passed.
    Waiting([u8; 16]),
    /// An approval is forgotten.
    Approval([u8; 16]),
    /// The time of a reservation passes.
    Hold,
    /// The outcome of a spend is removed.
    Spend(Box<[u8; 32]>),
}

/// Most events that one commit handles, so that a commit does not take long when 700,000 agents expire in one second.
pub const AT_ONCE: usize = 1024;

/// The kind number of an agent's removal from the state.
pub(super) const AGENT: u64 = 0;
/// The kind number of an agent's expiry, after which it is no longer counted as live.
pub(super) const SEAT: u64 = 8;

/// A due event: of an agent, or any other.
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
    // INVARIANT: revisions stay below 2^48, which takes nine years at a million a second; one record has at most 4,096 such things.
    revision << 16 | u64::from(nth & NTH) << 4 | kind
}

impl State {
    pub(super) fn due(&mut self, when: u64, revision: u64, what: Due) {
        self.due_nth(when, revision, 0, what);
    }

    /// Schedules an event. `nth` distinguishes events of one kind and one record.
    pub(super) fn due_nth(&mut self, when: u64, revision: u64, nth: u16, what: Due) {
        self.due.insert((when, number(revision, nth, kind(&what))), what);
    }

    /// Removes an event that [`State::due`] has scheduled.
    pub(super) fn no_longer_due(&mut self, when: u64, revision: u64, what: &Due) {
        self.due.remove(&(when, number(revision, 0, kind(what))));
    }

    /// Agents that have expired by `now` (Unix microseconds) but are still counted as live, because there was no record since. If
    /// very many things are due, only the first are returned.
    pub(crate) fn run_out(&self, now: u64) -> BTreeSet<Uuid> {
        let due = self.due_by(now).take(AT_ONCE);
        let agents = due.filter_map(|what| if let Happens::Agent(agent) = what { Some(agent) } else { None });
        agents.filter(|agent| agent.seated && self.seat_ends_at(agent) <= now).map(|agent| agent.uuid).collect()
    }

    /// Unix microseconds until which an agent counts as live, as far as is known now. An agent without a key counts as long as its
    /// parent, because nobody can use it after that, even if its lease is longer.
    fn seat_ends_at(&self, agent: &Agent) -> u64 {
        let parent = agent.parent().filter(|_| agent.is_keyless() && agent.rare.ended.is_none());
        match parent.and_then(|parent| self.agents.get(&parent)) {
            Some(parent) => parent.expires_at().min(seconds(agent.lease_ends_at)),
            None => agent.expires_at(),
        }
    }

    /// The events that are due by `now` (Unix microseconds), in order.
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

    /// Handles the events that are due by the time of a record (Unix microseconds), but at most `budget` of them.
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
                // It is removed with the last extended agent under it.
                Due::Delegation(id) if self.prolonged.contains_key(&*id) => false,
                Due::Delegation(id) => {
                    self.forget_delegation(&id);
                    true
                }
                Due::Ticket(hash) => {
                    self.tickets.remove(&*hash);
                    true
                }
                // The row of an admission is dropped with its agent.
                Due::Request(key) => self.requests.remove(&*key).is_some_and(|done| done.agent.is_none()),
                Due::Key(certified) => {
                    let (key, line) = *certified;
                    // A key that was certified again stays, with its later record.
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
                    // A closed target stays until somebody reopens it.
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

    /// Handles the next event of an agent: it expires, or is removed from the state.
    fn time_came(&mut self, uuid: Uuid, when: u64) {
        // The parent of an agent without a key was renewed meanwhile, so the agent's expiry is checked again when the new
        // certificate expires.
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

    /// Removes an agent whose time has come, unless a child's record still needs it; then its ancestors in the same way.
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
