//! The set of all revocations in force. Adding one costs about the same whether a thousand or a million are known.
//!
//! The cuts are kept in sorted shards. A clone shares all shards; a change copies the one shard it affects and the list of
//! shards, which is about the square root of the whole set. A large base with a small delta would cost the same on average, but
//! would copy the whole set each time the delta is merged.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::{Stamp, Subject};

/// The number of shards doubles when it falls below half the square root of the number of cuts.
const PER_SQUARE: usize = 4;
/// At most 65,536 shards, enough for far more cuts than any limit here allows.
const MOST_BITS: u32 = 16;

/// One revocation: it revokes every credential that relies on `subject` since a revision below `before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) subject: Subject,
    pub(crate) before: u64,
    /// Unix seconds after which no credential can be affected any more; `u64::MAX` if unknown.
    pub(crate) keep_until: u64,
    /// The signed revision with which the cut arrived: it was made at this revision or before.
    pub(crate) arrived: u64,
}

impl Entry {
    /// Merges two cuts of one subject: the higher revision and the later end count.
    pub(crate) fn merged(self, other: Entry) -> Entry {
        Entry {
            subject: self.subject,
            before: self.before.max(other.before),
            keep_until: self.keep_until.max(other.keep_until),
            arrived: self.arrived.max(other.arrived),
        }
    }
}

/// The cuts of one shard, sorted by subject, without duplicates.
type Shard = Arc<Vec<Entry>>;

/// Every revocation in force in one epoch of the journal. A clone shares the shards that the two have in common.
#[derive(Clone)]
pub struct Cuts {
    /// Epoch of the journal that the revisions belong to.
    pub incarnation: Uuid,
    len: usize,
    bits: u32,
    // INVARIANT: there are 2^bits shards, and the first bits of a subject select its shard. So the whole set is sorted.
    shards: Arc<Vec<Shard>>,
}

impl Cuts {
    /// An empty set for the incarnation of the journal that `incarnation` names.
    pub fn new(incarnation: Uuid) -> Cuts {
        Cuts { incarnation, len: 0, bits: 0, shards: Arc::new(vec![Shard::default()]) }
    }

    /// Builds the set from many entries: sorting once is cheaper than inserting one by one.
    pub(crate) fn collect(incarnation: Uuid, mut entries: Vec<Entry>) -> Cuts {
        entries.sort_unstable_by_key(|e| e.subject);
        entries.dedup_by(|later, kept| {
            let same = later.subject == kept.subject;
            if same {
                *kept = kept.merged(*later);
            }
            same
        });
        let len = entries.len();
        let mut cuts = Cuts { incarnation, len, bits: 0, shards: Arc::new(vec![Arc::new(entries)]) };
        cuts.grow();
        cuts
    }

    /// Revokes everything that relies on `subject` since a revision below `before`. A second cut never lowers `before`.
    pub fn cut(&mut self, subject: Subject, before: u64) {
        self.insert(Entry { subject, before, keep_until: u64::MAX, arrived: 0 });
    }

    /// Adds a cut, or merges it with the cut of its subject.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let Some(shard) = self.shard_mut(entry.subject) else { return };
        match shard.binary_search_by_key(&entry.subject, |e| e.subject) {
            Ok(at) => {
                if let Some(known) = shard.get_mut(at) {
                    *known = known.merged(entry);
                }
            }
            Err(at) => {
                shard.insert(at, entry);
                self.len += 1;
                self.grow();
            }
        }
    }

    /// The revision below which reliance on `subject` is revoked, or `None` if there is no cut of it.
    pub fn before(&self, subject: Subject) -> Option<u64> {
        self.get(subject).map(|e| e.before)
    }

    pub(crate) fn get(&self, subject: Subject) -> Option<Entry> {
        let shard = self.shards.get(shard_of(subject, self.bits))?;
        let at = shard.binary_search_by_key(&subject, |e| e.subject).ok()?;
        shard.get(at).copied()
    }

    /// Removes the cut of a subject, when it cannot affect any credential any more.
    pub fn forget(&mut self, subject: Subject) {
        // Checked first, because taking the shard for a change copies it.
        if self.get(subject).is_none() {
            return;
        }
        if let Some(shard) = self.shard_mut(subject)
            && let Ok(at) = shard.binary_search_by_key(&subject, |e| e.subject)
        {
            shard.remove(at);
            self.len -= 1;
        }
    }

    /// The number of cuts.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no cuts.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All cuts as (subject, before), in the order of their subjects.
    pub fn iter(&self) -> impl Iterator<Item = (Subject, u64)> + '_ {
        self.entries().map(|e| (e.subject, e.before))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.shards.iter().flat_map(|shard| shard.iter().copied())
    }

    /// The first of these stamps that is revoked (`since` < `before`), or `None` if all of them hold.
    pub fn killing<'a>(&self, stamps: impl IntoIterator<Item = &'a Stamp>) -> Option<Stamp> {
        stamps.into_iter().find(|s| self.before(s.subject).is_some_and(|before| s.since < before)).copied()
    }

    /// The shard of a subject, for a change: from here on it is not shared.
    fn shard_mut(&mut self, subject: Subject) -> Option<&mut Vec<Entry>> {
        let index = shard_of(subject, self.bits);
        Arc::make_mut(&mut self.shards).get_mut(index).map(Arc::make_mut)
    }

    /// Splits every shard in two until there are enough of them.
    fn grow(&mut self) {
        while self.bits < MOST_BITS && self.len > PER_SQUARE << (2 * self.bits) {
            self.bits += 1;
            let halves = |shard: &Shard| {
                let at = shard.partition_point(|e| shard_of(e.subject, self.bits).is_multiple_of(2));
                let (low, high) = shard.split_at_checked(at).unwrap_or_default();
                [Arc::new(low.to_vec()), Arc::new(high.to_vec())]
            };
            self.shards = Arc::new(self.shards.iter().flat_map(halves).collect());
        }
    }
}

impl Default for Cuts {
    fn default() -> Cuts {
        Cuts::new(Uuid::nil())
    }
}

/// Leaves out the cuts themselves: there may be a million.
impl fmt::Debug for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuts").field("incarnation", &self.incarnation).field("len", &self.len).finish_non_exhaustive()
    }
}

/// The first `bits` bits of a subject. Subjects are digests, so they spread evenly over the shards.
fn shard_of(subject: Subject, bits: u32) -> usize {
    let [a, b, c, ..] = subject.0;
    let first = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    first >> (24 - bits)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Target;

    #[test]
    fn a_cut_kills_what_is_older_and_spares_what_is_newer() {
        let subject = Target::TrustDomain.unsalted();
        let mut cuts = Cuts::new(Uuid::nil());
        cuts.cut(subject, 5);
        assert!(cuts.killing(&[Stamp { subject, since: 4 }]).is_some());
        assert!(cuts.killing(&[Stamp { subject, since: 5 }]).is_none());
        cuts.cut(subject, 3);
        assert_eq!(cuts.before(subject), Some(5), "an earlier cut never weakens a later one");
    }

    #[test]
    fn one_more_cut_copies_one_shard_and_leaves_readers_what_they_had() {
        let entry =
            |n: u128| Entry { subject: Target::Agent(Uuid::from_u128(n)).unsalted(), before: 1, keep_until: 1, arrived: 0 };
        let readers = Cuts::collect(Uuid::nil(), (0..100_000).map(entry).collect());
        let mut next = readers.clone();
        assert!(Arc::ptr_eq(&readers.shards, &next.shards), "a clone copies nothing");
        let new = entry(100_000).subject;
        next.cut(new, 7);
        let copied = readers.shards.iter().zip(next.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!((copied, next.before(new), readers.before(new)), (1, Some(7), None));
        let largest = readers.shards.iter().map(|s| s.len()).max().unwrap();
        assert!(largest < 2000 && readers.shards.len() < 2000, "{largest} in each of {}", readers.shards.len());
    }

    proptest! {
        #[test]
        fn cuts_are_a_map_whatever_is_done_to_them(
            steps in proptest::collection::vec((any::<bool>(), 0u8..40, 0u64..9), 0..400),
            bulk in proptest::collection::vec((0u8..40, 0u64..9), 0..200),
        ) {
            let subject = |n: u8| Target::Key([n; 32]).unsalted();
            let mut model: HashMap<Subject, u64> = HashMap::new();
            let enter = |model: &mut HashMap<Subject, u64>, n, before: u64| {
                let at = model.entry(subject(n)).or_insert(before);
                *at = before.max(*at);
            };
            bulk.iter().for_each(|(n, before)| enter(&mut model, *n, *before));
            let entries = bulk.iter().map(|(n, before)| Entry { subject: subject(*n), before: *before, keep_until: 0, arrived: 0 });
            let mut cuts = Cuts::collect(Uuid::nil(), entries.collect());
            for (add, n, before) in steps {
                if add {
                    cuts.cut(subject(n), before);
                    enter(&mut model, n, before);
                } else {
                    cuts.forget(subject(n));
                    model.remove(&subject(n));
                }
            }
            prop_assert_eq!(cuts.len(), model.len());
            prop_assert!(cuts.iter().map(|(s, _)| s).is_sorted_by(|a, b| a < b));
            prop_assert_eq!(cuts.iter().collect::<HashMap<_, _>>(), model);
        }
    }
}
