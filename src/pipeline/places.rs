//! Limits the acts of one caller that are in the pipeline, waiting or being handled; each act has a *place*. A caller at its limit
//! is refused, and all others are still accepted.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::turns::{OPERATORS, STRANGERS, Turn};

/// One part of a root may have a fourth of all places.
const PART: usize = 4;
/// All strangers together may have an eighth.
const STRANGE: usize = 8;
/// An eighth is left for roots that have none.
const SPARE: usize = 8;

/// A bounded number of places.
pub(super) struct Places {
    bound: usize,
    // Guards the counts; held to change one.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: usize,
    roots: HashMap<u64, usize>,
    parts: HashMap<Turn, usize>,
}

/// One place, given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    turn: Turn,
}

impl Places {
    pub(super) fn new(bound: usize) -> Arc<Places> {
        Arc::new(Places { bound: bound.max(1), held: Mutex::default() })
    }

    /// Takes a place. Returns `None` if this caller holds its share already, or if there is none.
    ///
    /// A root may have as many places as are free, so a single one gets about half of them, and two get a third each. The last
    /// places are for roots that have none, so that these are accepted however many others there are.
    pub(super) fn take(self: &Arc<Places>, turn: Turn) -> Option<Place> {
        let mut held = self.held.lock();
        let free = self.bound - held.all;
        let root = held.roots.get(&turn.root).copied().unwrap_or(0);
        let part = held.parts.get(&turn).copied().unwrap_or(0);
        let most = match turn {
            // Operators may take all places that are left.
            OPERATORS => self.bound,
            STRANGERS => (self.bound / STRANGE).max(1),
            _ => (self.bound / PART).max(1),
        };
        let greedy = root > 0 && root >= free.saturating_sub(self.bound / SPARE);
        if free == 0 || part >= most || (turn != OPERATORS && greedy) {
            return None;
        }
        held.all += 1;
        held.roots.insert(turn.root, root + 1);
        held.parts.insert(turn, part + 1);
        Some(Place { places: Arc::clone(self), turn })
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.held.lock().all
    }

    /// Number of callers with places.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        let held = self.held.lock();
        held.all + held.roots.len() + held.parts.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock();
        held.all -= 1;
        give_back(&mut held.roots, self.turn.root);
        give_back(&mut held.parts, self.turn);
    }
}

fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn turn(root: u64, part: u64) -> Turn {
        Turn { root: root + 10, part }
    }

    fn fill(places: &Arc<Places>, turn: Turn) -> Vec<Place> {
        std::iter::from_fn(|| places.take(turn)).collect()
    }

    #[test]
    fn one_part_holds_a_fourth_and_its_root_a_half_and_others_are_still_taken() {
        let places = Places::new(64);
        let part = fill(&places, turn(1, 1));
        assert_eq!(part.len(), 16);
        let rest: Vec<Place> = (2..50).flat_map(|n| fill(&places, turn(1, n))).collect();
        assert_eq!(part.len() + rest.len(), 28, "the root has about half, in however many parts");
        assert_eq!(fill(&places, turn(2, 1)).len(), 14, "another root finds half of what is left");
    }

    #[test]
    fn t98_strangers_hold_an_eighth_and_nobody_else_feels_it() {
        let places = Places::new(64);
        let strangers = fill(&places, STRANGERS);
        assert_eq!(strangers.len(), 8);
        assert!(places.take(turn(1, 1)).is_some() && places.take(OPERATORS).is_some());
    }

    #[test]
    fn t98_a_newcomer_finds_a_place_however_many_are_greedy() {
        let places = Places::new(64);
        let mut greedy = Vec::new();
        for n in 0..12 {
            let more = fill(&places, turn(n, 0));
            assert!(!more.is_empty(), "caller {n} finds a place");
            greedy.push(more);
        }
        assert!(places.take(OPERATORS).is_some());
        // Another root can take the places that one gives back.
        let held: usize = greedy.iter().map(Vec::len).sum();
        greedy.clear();
        assert!(held <= 64);
        assert_eq!(places.counted(), 0, "nothing is remembered of who holds nothing");
    }

    #[test]
    fn the_bound_is_a_bound_even_of_one() {
        let places = Places::new(1);
        let held = places.take(turn(1, 1)).unwrap();
        assert!(places.take(turn(2, 2)).is_none() && places.take(OPERATORS).is_none());
        drop(held);
        assert!(places.take(turn(2, 2)).is_some());
    }
}
