//! Every revocation in force, made so that one more costs the same whether a thousand or a million are known.
//!
//! The cuts lie in sorted shards. A copy shares all of them, and a change copies the one shard it falls into and the list of
//! shards: about the square root of the whole. A base with a delta beside it would do the same on average, and stop for a copy
//! of the whole each time the delta is merged.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::{Stamp, Subject};

/// The list of shards doubles when it would be shorter than half the square root of the number of cuts.
const PER_SQUARE: usize = 4;
/// 65,536 shards hold far more than any bound here allows.
const MOST_BITS: u32 = 16;

/// One revocation: everything that relies on `subject` since before `before` is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) subject: Subject,
    pub(crate) before: u64,
    /// Unix seconds after which it can hit nothing; `u64::MAX` where nobody said.
    pub(crate) keep_until: u64,
}

impl Entry {
    /// Of two cuts of one subject the later revision and the later end count.
    pub(crate) fn merged(self, other: Entry) -> Entry {
        Entry { subject: self.subject, before: self.before.max(other.before), keep_until: self.keep_until.max(other.keep_until) }
    }
}

/// Sorted by subject, none twice.
type Shard = Arc<Vec<Entry>>;

/// Every revocation in force in one incarnation of the journal. A clone shares what the two have in common.
#[derive(Clone)]
pub struct Cuts {
    /// Which incarnation of the journal these revisions belong to.
    pub incarnation: Uuid,
    len: usize,
    bits: u32,
    // INVARIANT: 2^bits shards; a subject's first bits name its shard, so that the whole is sorted.
    shards: Arc<Vec<Shard>>,
}

impl Cuts {
    /// No cuts yet, for this incarnation.
    pub fn new(incarnation: Uuid) -> Cuts {
        Cuts { incarnation, len: 0, bits: 0, shards: Arc::new(vec![Shard::default()]) }
    }

    /// Many at once: sorting them is cheaper than to insert one by one.
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

    /// Kills what relies on `subject` since before `before`. A later cut never moves an earlier one back.
    pub fn cut(&mut self, subject: Subject, before: u64) {
        self.insert(Entry { subject, before, keep_until: u64::MAX });
    }

    /// Adds a cut to what may be known of its subject already.
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

    /// The revision before which reliance on `subject` is dead, if it was ever cut.
    pub fn before(&self, subject: Subject) -> Option<u64> {
        self.get(subject).map(|e| e.before)
    }

    pub(crate) fn get(&self, subject: Subject) -> Option<Entry> {
        let shard = self.shards.get(shard_of(subject, self.bits))?;
        let at = shard.binary_search_by_key(&subject, |e| e.subject).ok()?;
        shard.get(at).copied()
    }

    /// Takes a cut away that can hit nothing any more.
    pub fn forget(&mut self, subject: Subject) {
        // Looked at first: what is not there is no reason to copy a shard.
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

    /// Number of cuts.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Each cut as (subject, before), in order of subject.
    pub fn iter(&self) -> impl Iterator<Item = (Subject, u64)> + '_ {
        self.entries().map(|e| (e.subject, e.before))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.shards.iter().flat_map(|shard| shard.iter().copied())
    }

    /// The stamp by which these stamps are dead, if any: `since` < `before`.
    pub fn killing<'a>(&self, stamps: impl IntoIterator<Item = &'a Stamp>) -> Option<Stamp> {
        stamps.into_iter().find(|s| self.before(s.subject).is_some_and(|before| s.since < before)).copied()
    }

    /// The shard of a subject, this set's own from here on.
    fn shard_mut(&mut self, subject: Subject) -> Option<&mut Vec<Entry>> {
        let index = shard_of(subject, self.bits);
        Arc::make_mut(&mut self.shards).get_mut(index).map(Arc::make_mut)
    }

    /// Halves every shard until there are enough of them.
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

/// A million of them help nobody.
impl fmt::Debug for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuts").field("incarnation", &self.incarnation).field("len", &self.len).finish_non_exhaustive()
    }
}

/// The first `bits` of a subject. Subjects are digests: they fall into all shards alike.
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
        let subject = Target::TrustDomain.subject();
        let mut cuts = Cuts::new(Uuid::nil());
        cuts.cut(subject, 5);
        assert!(cuts.killing(&[Stamp { subject, since: 4 }]).is_some());
        assert!(cuts.killing(&[Stamp { subject, since: 5 }]).is_none());
        cuts.cut(subject, 3);
        assert_eq!(cuts.before(subject), Some(5), "an earlier cut never weakens a later one");
    }

    #[test]
    fn one_more_cut_copies_one_shard_and_leaves_readers_what_they_had() {
        let entry = |n: u128| Entry { subject: Target::Agent(Uuid::from_u128(n)).subject(), before: 1, keep_until: 1 };
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
            let subject = |n: u8| Target::Key([n; 32]).subject();
            let mut model: HashMap<Subject, u64> = HashMap::new();
            let enter = |model: &mut HashMap<Subject, u64>, n, before: u64| {
                let at = model.entry(subject(n)).or_insert(before);
                *at = before.max(*at);
            };
            bulk.iter().for_each(|(n, before)| enter(&mut model, *n, *before));
            let entries = bulk.iter().map(|(n, before)| Entry { subject: subject(*n), before: *before, keep_until: 0 });
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
