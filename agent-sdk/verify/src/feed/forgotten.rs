//! What a verifier keeps of the cuts that it has no room for: their number and their digest, by the second at which they expire, so
//! that the signed count and digest of the feed can still be compared; and the revision up to which they were made.

use std::collections::BTreeMap;

use super::{CutDigest, FeedCut};
use crate::Subject;
use crate::cuts::{Cuts, Entry};

/// One part in so many of all cuts is forgotten at once, so that the work is spread over many cuts.
pub(super) const SHARE: usize = 8;

/// Cuts that are not held. Only those are forgotten whose subject never comes back: agents, delegations, keys and authorities.
#[derive(Clone, Debug, Default)]
pub(super) struct Forgotten {
    /// Number of them that have not ended.
    pub(super) count: usize,
    /// Their digest.
    pub(super) digest: CutDigest,
    /// The revision up to which cuts may be missing; 0 if none is.
    pub(super) until: u64,
    ends: BTreeMap<u64, (usize, CutDigest)>,
}

impl Forgotten {
    /// Adds a cut that ends at `keep_until`, in Unix seconds.
    pub(super) fn add(&mut self, subject: Subject, keep_until: u64) {
        let (count, digest) = self.ends.entry(keep_until).or_default();
        *count += 1;
        digest.add(subject, u64::MAX);
        self.count += 1;
        self.digest.add(subject, u64::MAX);
    }

    /// Removes a cut that the feed removes. `all` is the digest of all cuts, forgotten or not.
    pub(super) fn take(&mut self, cut: &FeedCut, all: &mut CutDigest) {
        let Some((count, digest)) = self.ends.get_mut(&cut.keep_until).filter(|(count, _)| *count > 0) else { return };
        *count -= 1;
        digest.remove(cut.subject, u64::MAX);
        self.count -= 1;
        self.digest.remove(cut.subject, u64::MAX);
        all.remove(cut.subject, u64::MAX);
    }

    /// Lets time pass. Returns the digest of the cuts that have ended.
    pub(super) fn expire(&mut self, now: u64) -> CutDigest {
        let mut ended = CutDigest::default();
        while let Some(entry) = self.ends.first_entry().filter(|entry| *entry.key() <= now) {
            let (count, digest) = entry.remove();
            self.count -= count;
            self.digest.remove_all(digest);
            ended.add_all(digest);
        }
        if self.count == 0 {
            self.until = 0;
        }
        ended
    }

    /// Forgets the oldest of too many cuts. Returns the rest, which is below `most` unless too few can be forgotten.
    pub(super) fn thin(&mut self, cuts: &Cuts, most: usize) -> Cuts {
        let goes = |e: &Entry| e.before == u64::MAX;
        let mut arrivals: Vec<u64> = cuts.entries().filter(goes).map(|e| e.arrived).collect();
        let excess = cuts.len().saturating_sub(most - most / SHARE).min(arrivals.len());
        let Some(last) = excess.checked_sub(1) else { return cuts.clone() };
        let (_, latest, _) = arrivals.select_nth_unstable(last);
        let latest = *latest;
        // All cuts that arrived before `latest` are forgotten. Of those that arrived at `latest`, only `ties` are, so that exactly
        // `excess` are forgotten.
        let mut ties = excess - cuts.entries().filter(|e| goes(e) && e.arrived < latest).count();
        let kept = cuts.entries().filter(|e| {
            let tie = goes(e) && e.arrived == latest && ties > 0;
            ties -= usize::from(tie);
            let forget = tie || goes(e) && e.arrived < latest;
            if forget {
                self.add(e.subject, e.keep_until);
            }
            !forget
        });
        let kept = Cuts::collect(cuts.incarnation, kept.collect());
        self.until = self.until.max(latest);
        kept
    }
}
