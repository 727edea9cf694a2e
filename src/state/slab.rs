//! A slab: values in blocks, each identified by a number of four bytes. It never moves values, so growing never stalls, and it
//! frees empty blocks.

/// Most values of one block.
const MOST: usize = 1024;

/// The position of a value, until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub(super) u32);

/// Values in blocks.
#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    blocks: Vec<Block<T>>,
    // INVARIANT: every block that is not full, once. The last of them gets the next value.
    open: Vec<usize>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Block<T> {
    slots: Vec<Option<T>>,
    // INVARIANT: the slots that are empty.
    free: Vec<u16>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { blocks: Vec::new(), open: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value at a place.
    pub(super) fn get(&self, place: Place) -> Option<&T> {
        let (block, slot) = parts(place);
        self.blocks.get(block)?.slots.get(slot)?.as_ref()
    }

    /// The value at a place, for a change.
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        let (block, slot) = parts(place);
        self.blocks.get_mut(block)?.slots.get_mut(slot)?.as_mut()
    }

    /// Adds a value, and returns its place.
    pub(super) fn put(&mut self, value: T) -> Place {
        let n = self.open.last().copied().unwrap_or_else(|| {
            // The first block grows, so that few values take little memory. The others are allocated in full, so that nothing is
            // copied.
            let room = if self.blocks.is_empty() { 0 } else { MOST };
            self.blocks.push(Block { slots: Vec::with_capacity(room), free: Vec::new() });
            self.open.push(self.blocks.len() - 1);
            self.blocks.len() - 1
        });
        self.len += 1;
        let mut place = Place(u32::MAX);
        if let Some(block) = self.blocks.get_mut(n) {
            let slot = match block.free.pop() {
                Some(free) => usize::from(free),
                None => {
                    block.slots.push(None);
                    block.slots.len() - 1
                }
            };
            if let Some(slot) = block.slots.get_mut(slot) {
                *slot = Some(value);
            }
            if block.free.is_empty() && block.slots.len() >= MOST {
                self.open.pop();
            }
            // Four billion values do not fit into memory.
            place = Place(u32::try_from(n * MOST + slot).unwrap_or(u32::MAX));
        }
        place
    }

    /// Removes the value at a place. The place may be used again.
    pub(super) fn take(&mut self, place: Place) -> Option<T> {
        let (n, slot) = parts(place);
        let block = self.blocks.get_mut(n)?;
        let value = block.slots.get_mut(slot)?.take()?;
        self.len -= 1;
        if block.free.is_empty() && block.slots.len() >= MOST {
            self.open.push(n);
        }
        block.free.push(u16::try_from(slot).unwrap_or(u16::MAX));
        if block.free.len() == block.slots.len() {
            *block = Block { slots: Vec::new(), free: Vec::new() };
        }
        Some(value)
    }
}

/// Number of the block, and of the slot in it.
fn parts(place: Place) -> (usize, usize) {
    let place = usize::try_from(place.0).unwrap_or(usize::MAX);
    (place / MOST, place % MOST)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{MOST, Slab};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_put_in_is_found_until_it_is_taken_out(work in prop::collection::vec((any::<bool>(), 0usize..5000), 0..5000)) {
            let (mut slab, mut model) = (Slab::default(), HashMap::new());
            let mut order = Vec::new();
            for (put, n) in work {
                if put || order.is_empty() {
                    let place = slab.put(n);
                    prop_assert!(model.insert(place.0, n).is_none(), "a place is given once");
                    order.push(place);
                } else {
                    let place = order.swap_remove(n % order.len());
                    prop_assert_eq!(slab.take(place), model.remove(&place.0));
                    prop_assert_eq!(slab.get(place), None);
                }
            }
            prop_assert_eq!(slab.len(), model.len());
            for place in order {
                prop_assert_eq!(slab.get(place), model.get(&place.0));
            }
        }
    }

    #[test]
    fn an_empty_block_takes_no_memory_and_is_used_again() {
        let mut slab = Slab::default();
        let places: Vec<_> = (0..3 * MOST).map(|n| slab.put(n)).collect();
        places.iter().for_each(|place| assert!(slab.take(*place).is_some()));
        assert!(slab.blocks.iter().all(|block| block.slots.capacity() == 0) && slab.len() == 0);
        (0..3 * MOST).for_each(|n| assert!(slab.put(n).0 < 3 * 1024));
        assert_eq!(slab.blocks.len(), 3);
    }
}
