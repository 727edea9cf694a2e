//! Turns: deficit round-robin. Every caller with waiting items gets a turn equally often, however many items the others have; an
//! item that costs more waits for more turns.

use std::collections::{HashMap, VecDeque};

/// The key by which turns are taken: first among roots, then among the parts of one root. The numbers are hashes; two callers with
/// the same number share their turns, which is the only effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Turn {
    /// The root: a workload with everything below it, a user who revokes, the operators, or all strangers.
    pub root: u64,
    /// The part of the root: one user, its autonomous agents, or the root itself.
    pub part: u64,
}

/// The operators. Their acts are taken before all others in the lane.
pub(super) const OPERATORS: Turn = Turn { root: 0, part: 0 };
/// All strangers together.
pub(super) const STRANGERS: Turn = Turn { root: 1, part: 0 };

/// Acts that one turn allows. It is small, so that turns are short; the costliest item waits for a few rounds.
const QUANTUM: usize = 4;

/// Items that wait, by their turn. A caller without items takes no memory.
pub(super) struct Turns<T> {
    first: Line<T>,
    roots: Ring<Ring<Line<T>>>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { first: Line::default(), roots: Ring::default(), len: 0 }
    }
}

impl<T> Turns<T> {
    /// Number of items.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an item that counts as `cost` acts. Items of one turn keep their order.
    pub(super) fn push(&mut self, turn: Turn, cost: usize, item: T) {
        self.len += 1;
        let line = if turn == OPERATORS { &mut self.first } else { self.roots.of(turn.root).of(turn.part) };
        line.0.push_back((cost.max(1), item));
    }

    /// Takes the next item in turn with its cost, if it costs at most `most`.
    pub(super) fn pop(&mut self, most: usize) -> Option<(usize, T)> {
        let source: &mut dyn Source<T> = if self.first.0.is_empty() { &mut self.roots } else { &mut self.first };
        let cost = source.cost().filter(|cost| *cost <= most)?;
        let item = source.take()?;
        self.len -= 1;
        Some((cost, item))
    }
}

/// Something that items are taken from, one after the other.
trait Source<T> {
    /// The cost of the item that [`Source::take`] returns next.
    fn cost(&mut self) -> Option<usize>;
    fn take(&mut self) -> Option<T>;
    fn is_empty(&self) -> bool;
}

/// First in, first out.
struct Line<T>(VecDeque<(usize, T)>);

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line(VecDeque::new())
    }
}

impl<T> Source<T> for Line<T> {
    fn cost(&mut self) -> Option<usize> {
        self.0.front().map(|(cost, _)| *cost)
    }

    fn take(&mut self) -> Option<T> {
        self.0.pop_front().map(|(_, item)| item)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Shares that take turns.
struct Ring<S> {
    // INVARIANT: holds each key of `shares` once, and no share in it is empty between two calls.
    order: VecDeque<u64>,
    shares: HashMap<u64, Share<S>>,
}

struct Share<S> {
    /// Acts that may still be taken in this turn.
    credit: usize,
    source: S,
}

impl<S> Default for Ring<S> {
    fn default() -> Ring<S> {
        Ring { order: VecDeque::new(), shares: HashMap::new() }
    }
}

impl<S: Default> Ring<S> {
    /// The share of a key, for adding an item.
    fn of(&mut self, key: u64) -> &mut S {
        let order = &mut self.order;
        let share = self.shares.entry(key).or_insert_with(|| {
            order.push_back(key);
            Share { credit: QUANTUM, source: S::default() }
        });
        &mut share.source
    }
}

impl<T, S: Source<T>> Source<T> for Ring<S> {
    fn cost(&mut self) -> Option<usize> {
        // This loop ends, because every share gets more credit in each round.
        loop {
            let share = self.shares.get_mut(self.order.front()?)?;
            let cost = share.source.cost()?;
            if cost <= share.credit {
                return Some(cost);
            }
            share.credit += QUANTUM;
            self.order.rotate_left(1);
        }
    }

    fn take(&mut self) -> Option<T> {
        let cost = self.cost()?;
        let key = *self.order.front()?;
        let share = self.shares.get_mut(&key)?;
        share.credit -= cost;
        let item = share.source.take();
        if share.source.is_empty() {
            self.order.pop_front();
            self.shares.remove(&key);
        }
        item
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests;
