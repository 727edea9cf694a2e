//! A sorted set in blocks. If it is filled in order its blocks stay full, whereas a B-tree leaves half of its room empty. An entry
//! may be only the position of a value that contains the key.

/// Most entries of one block.
const MOST: usize = 256;
/// A block with fewer entries is merged with a neighbour, if both together fill at most half a block.
const FEW: usize = MOST / 4;

/// A sorted set of entries `E` with keys `K`. Each call gets a function that reads the key of an entry. Keys are unique, and must
/// not change while an entry is in the set.
#[derive(Clone, Debug)]
pub(super) struct Order<K, E> {
    blocks: Vec<Block<K, E>>,
}

#[derive(Clone, Debug)]
struct Block<K, E> {
    // INVARIANT: at most the key of its first entry, and above the keys of all earlier blocks.
    from: K,
    // INVARIANT: sorted, not empty, and no longer than `MOST`.
    entries: Vec<E>,
}

impl<K, E> Default for Order<K, E> {
    fn default() -> Order<K, E> {
        Order { blocks: Vec::new() }
    }
}

impl<K: Copy + Ord, E: Copy> Order<K, E> {
    /// Adds an entry. An entry with the same key stays as it is.
    pub(super) fn insert(&mut self, key: K, entry: E, key_of: impl Fn(E) -> K) {
        let mut n = self.block_of(key);
        let last = n + 1 >= self.blocks.len();
        let Some(block) = self.blocks.get_mut(n) else {
            return self.blocks.push(Block { from: key, entries: vec![entry] });
        };
        let len = block.entries.len();
        // An entry after the last one needs no search, and a full last block is not split.
        let behind = block.entries.last().is_some_and(|last| key_of(*last) < key);
        let mut place = if behind { len } else { block.entries.partition_point(|e| key_of(*e) < key) };
        if block.entries.get(place).is_some_and(|found| key_of(*found) == key) {
            return;
        }
        if len >= MOST {
            if behind && last {
                return self.blocks.push(Block { from: key, entries: vec![entry] });
            }
            let upper = block.entries.split_off(MOST / 2);
            let from = upper.first().map_or(key, |first| key_of(*first));
            self.blocks.insert(n + 1, Block { from, entries: upper });
            if place > MOST / 2 {
                (n, place) = (n + 1, place - MOST / 2);
            }
        }
        if let Some(block) = self.blocks.get_mut(n) {
            block.from = block.from.min(key);
            block.entries.insert(place, entry);
        }
    }

    /// Removes the entry with this key. Returns whether there was one.
    pub(super) fn remove(&mut self, key: K, key_of: impl Fn(E) -> K) -> bool {
        let n = self.block_of(key);
        let Some(block) = self.blocks.get_mut(n) else { return false };
        let Ok(place) = block.entries.binary_search_by_key(&key, |e| key_of(*e)) else { return false };
        block.entries.remove(place);
        let left = block.entries.len();
        if left == 0 {
            self.blocks.remove(n);
        } else if left < FEW && !self.merge(n) && n > 0 {
            self.merge(n - 1);
        }
        true
    }

    /// Merges a block with the next one, if both together fill half a block at most. Returns whether they did.
    fn merge(&mut self, n: usize) -> bool {
        let Some([block, next]) = self.blocks.get_mut(n..n.saturating_add(2)) else { return false };
        if block.entries.len() + next.entries.len() > MOST / 2 {
            return false;
        }
        block.entries.append(&mut next.entries);
        self.blocks.remove(n + 1);
        true
    }

    /// The entry with this key.
    pub(super) fn find(&self, key: K, key_of: impl Fn(E) -> K) -> Option<E> {
        let block = self.blocks.get(self.block_of(key))?;
        let place = block.entries.binary_search_by_key(&key, |e| key_of(*e)).ok()?;
        block.entries.get(place).copied()
    }

    /// The entries from this key on, in order.
    pub(super) fn from(&self, key: K, key_of: impl Fn(E) -> K) -> impl Iterator<Item = E> {
        let n = self.block_of(key);
        let first = self.blocks.get(n).and_then(|block| {
            let place = block.entries.partition_point(|e| key_of(*e) < key);
            block.entries.get(place..)
        });
        let others = self.blocks.get(n + 1..).unwrap_or_default();
        first.into_iter().flatten().chain(others.iter().flat_map(|block| &block.entries)).copied()
    }

    /// All entries, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = E> {
        self.blocks.iter().flat_map(|block| &block.entries).copied()
    }

    /// The entry with the lowest key.
    pub(super) fn first(&self) -> Option<E> {
        self.blocks.first()?.entries.first().copied()
    }

    /// The block in which a key is or would be.
    fn block_of(&self, key: K) -> usize {
        self.blocks.partition_point(|block| block.from <= key).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{FEW, MOST, Order};

    /// Whether the invariants of the blocks hold.
    fn sound(order: &Order<u16, u16>) -> bool {
        let inside = order.blocks.iter().all(|b| {
            let full = !b.entries.is_empty() && b.entries.len() <= MOST;
            full && b.entries.is_sorted() && b.entries.first().is_some_and(|first| b.from <= *first)
        });
        let between = order.blocks.windows(2).all(|pair| match pair {
            [a, b] => a.entries.last().is_some_and(|last| *last < b.from),
            _ => false,
        });
        inside && between
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_set_in_blocks_is_a_sorted_set(work in prop::collection::vec((0u8..8, any::<u16>()), 0..1500), look in any::<u16>()) {
            let (mut order, mut model) = (Order::default(), BTreeSet::new());
            for (what, n) in work {
                match what {
                    // Removes the first entry from `n` on, so that there mostly is one.
                    0..3 => {
                        let there = model.range(n..).next().copied().unwrap_or(n);
                        prop_assert_eq!(order.remove(there, |e| e), model.remove(&there));
                    }
                    // Inserts in order, close together, and at random.
                    3 => for next in n..n.saturating_add(50) {
                        order.insert(next, next, |e| e);
                        model.insert(next);
                    },
                    _ => {
                        order.insert(n, n, |e| e);
                        model.insert(n);
                    }
                }
                prop_assert_eq!(order.first(), model.first().copied());
            }
            prop_assert!(sound(&order));
            prop_assert_eq!(order.find(look, |e| e), model.get(&look).copied());
            prop_assert!(order.iter().eq(model.iter().copied()));
            prop_assert!(order.from(look, |e| e).eq(model.range(look..).copied()));
            while let Some(first) = order.first() {
                prop_assert!(order.remove(first, |e| e) && sound(&order));
            }
            prop_assert!(order.blocks.is_empty());
        }
    }

    #[test]
    fn what_arrives_in_order_leaves_full_blocks() {
        let mut order = Order::default();
        (0..10_000u16).for_each(|n| order.insert(n, n, |e| e));
        assert_eq!(order.blocks.len(), 10_000usize.div_ceil(MOST));
        // Of every 64 entries all but one are removed, and the rest takes little room.
        (0..10_000u16).filter(|n| n % 64 != 0).for_each(|n| assert!(order.remove(n, |e| e)));
        assert!(order.blocks.len() <= 10_000 / 64 / (FEW / 2) + 1, "{} blocks", order.blocks.len());
    }
}
