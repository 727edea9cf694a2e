//! All agents, with their indexes. There may be a million of them, so an index holds only the position (*place*) of an agent in the
//! slab, and reads the key there.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::expiry::When;
use super::order::Order;
use super::slab::{Place, Slab};
use super::{Agent, half};

// There may be a million agents, so their size matters.
const _: () = assert!(size_of::<Option<Agent>>() == 184, "an agent is small");

/// The agents, with indexes by id, by key, and by the time of their next event.
#[derive(Clone, Default)]
pub(super) struct Agents {
    slab: Slab<Agent>,
    // INVARIANT: the places of all agents.
    by_id: Order<u128, Place>,
    // INVARIANT: the places of the agents that have a next event. See `Agent::due`.
    by_time: Order<When, Place>,
    // For each key a hash of the first half of its SHA-256, and the place of its agent. If somebody makes two keys whose halves
    // agree (2^64 attempts), the second is refused as in use.
    by_key: Order<u64, u64>,
    hasher: RandomState,
}

impl Agents {
    /// Number of agents.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// One agent.
    pub(super) fn get(&self, uuid: &Uuid) -> Option<&Agent> {
        self.slab.get(self.place(uuid)?)
    }

    /// Whether an agent is known.
    pub(super) fn contains(&self, uuid: &Uuid) -> bool {
        self.place(uuid).is_some()
    }

    /// One agent, for changes that affect neither its keys nor the time of its next event; [`Agents::change`] is for those.
    pub(super) fn get_mut(&mut self, uuid: &Uuid) -> Option<&mut Agent> {
        self.slab.get_mut(self.place(uuid)?)
    }

    /// Changes an agent. Returns whether it is known.
    pub(super) fn change(&mut self, uuid: &Uuid, change: impl FnOnce(&mut Agent)) -> bool {
        let Some(place) = self.place(uuid) else { return false };
        self.forget_time(place);
        if let Some(agent) = self.slab.get_mut(place) {
            change(agent);
        }
        self.note_time(place);
        true
    }

    /// Adds to the index a key that was certified for an agent and is already among its keys.
    pub(super) fn certified(&mut self, uuid: &Uuid, key: &[u8; 32]) {
        if let Some(place) = self.place(uuid) {
            let entry = entry(&self.hasher, &half(key), place);
            self.by_key.insert(entry, entry, |e| e);
        }
    }

    /// Adds an agent that is not known.
    pub(super) fn insert(&mut self, agent: Agent) {
        let id = agent.uuid.as_u128();
        let place = self.slab.put(agent);
        let slab = &self.slab;
        self.by_id.insert(id, place, |place| id_at(slab, place));
        self.note_time(place);
        let (slab, hasher) = (&self.slab, &self.hasher);
        for key in slab.get(place).into_iter().flat_map(Agent::keys) {
            let entry = entry(hasher, &half(key), place);
            self.by_key.insert(entry, entry, |e| e);
        }
    }

    /// Forgets an agent.
    pub(super) fn remove(&mut self, uuid: &Uuid) -> Option<Agent> {
        let place = self.place(uuid)?;
        self.forget_time(place);
        let slab = &self.slab;
        self.by_id.remove(uuid.as_u128(), |place| id_at(slab, place));
        let agent = self.slab.take(place)?;
        for key in agent.keys() {
            let entry = entry(&self.hasher, &half(key), place);
            self.by_key.remove(entry, |e| e);
        }
        Some(agent)
    }

    /// All agents, in order of id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.by_id.iter().filter_map(|place| self.slab.get(place))
    }

    /// The agents after this one, in order of id.
    pub(super) fn after(&self, uuid: Option<Uuid>) -> impl Iterator<Item = &Agent> {
        let last = uuid.is_some_and(|uuid| uuid.is_max());
        let from = uuid.map_or(0, |uuid| uuid.as_u128().saturating_add(1));
        let places = self.by_id.from(from, |place| id_at(&self.slab, place));
        places.filter(move |_| !last).filter_map(|place| self.slab.get(place))
    }

    /// The agent that has a key, by the first half of the key's SHA-256.
    pub(super) fn owner(&self, key: &[u8; 16]) -> Option<Uuid> {
        let from = entry(&self.hasher, key, Place(0));
        let same = self.by_key.from(from, |e| e).take_while(|entry| entry >> 32 == from >> 32);
        let agents = same.filter_map(|entry| self.slab.get(Place(u32::try_from(entry & u64::from(u32::MAX)).ok()?)));
        agents.filter(|agent| agent.keys().any(|known| half(known) == *key)).map(|agent| agent.uuid).next()
    }

    /// The agent with the next event, and its time.
    pub(super) fn first_due(&self) -> Option<(When, Uuid)> {
        let agent = self.slab.get(self.by_time.first()?)?;
        Some((agent.due()?, agent.uuid))
    }

    /// The agents with an event by `now` (Unix microseconds), in order of time.
    pub(super) fn due_by(&self, now: u64) -> impl Iterator<Item = (When, &Agent)> {
        let agents = self.by_time.iter().filter_map(|place| self.slab.get(place));
        agents.filter_map(|agent| Some((agent.due()?, agent))).take_while(move |((at, _), _)| *at <= now)
    }

    fn place(&self, uuid: &Uuid) -> Option<Place> {
        self.by_id.find(uuid.as_u128(), |place| id_at(&self.slab, place))
    }

    fn note_time(&mut self, place: Place) {
        let slab = &self.slab;
        if let Some(due) = slab.get(place).and_then(Agent::due) {
            self.by_time.insert(due, place, |place| time_at(slab, place));
        }
    }

    fn forget_time(&mut self, place: Place) {
        let slab = &self.slab;
        if let Some(due) = slab.get(place).and_then(Agent::due) {
            self.by_time.remove(due, |place| time_at(slab, place));
        }
    }
}

/// The index entry of a key. The hash is randomly seeded, so that nobody can make keys that collide.
fn entry(hasher: &RandomState, key: &[u8; 16], place: Place) -> u64 {
    hasher.hash_one(u128::from_ne_bytes(*key)) & !u64::from(u32::MAX) | u64::from(place.0)
}

fn id_at(slab: &Slab<Agent>, place: Place) -> u128 {
    slab.get(place).map_or(u128::MAX, |agent| agent.uuid.as_u128())
}

fn time_at(slab: &Slab<Agent>, place: Place) -> When {
    slab.get(place).and_then(Agent::due).unwrap_or((u64::MAX, u64::MAX))
}

// The indexes follow from the agents, and places do not matter, so neither is compared.
impl PartialEq for Agents {
    fn eq(&self, other: &Agents) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Agents {}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
