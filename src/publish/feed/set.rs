//! The cuts in force, their digest for heartbeats, and their latest changes.

use std::collections::{HashMap, VecDeque};

use mayfly_agent::api::v1;
use mayfly_verify::Subject;
use mayfly_verify::feed::CutDigest;

use crate::state::CutMade;

/// Most changes that are remembered (3 MiB). A subscriber that missed more gets a snapshot.
const RECENT: usize = 65_536;

/// The cuts in force as of the last message, one for each subject.
pub(super) struct Set {
    cuts: HashMap<Subject, Cut>,
    // Earliest `keep_until` in the set, Unix seconds.
    earliest: u64,
    digest: CutDigest,
    // The latest changes, in order of their revisions, including removed cuts.
    recent: VecDeque<CutMade>,
    // Every change after this revision is in `recent`.
    floor: u64,
}

#[derive(Clone, Copy)]
struct Cut {
    // Everything that relies on the subject since a revision before this one is revoked; above 0.
    before: u64,
    // Unix seconds.
    keep_until: u64,
}

impl Default for Set {
    fn default() -> Set {
        Set::after(0)
    }
}

impl Set {
    /// An empty set. Changes up to this revision are not remembered.
    pub(super) fn after(floor: u64) -> Set {
        let (cuts, digest, recent) = (HashMap::new(), CutDigest::default(), VecDeque::new());
        Set { cuts, earliest: u64::MAX, digest, recent, floor }
    }

    /// Adds a cut. It is merged with an earlier cut of the same subject: the higher `before` and the later `keep_until` count. A
    /// cut with `before` 0 removes the subject's cut, and gets its `keep_until`. Returns whether anything has changed.
    pub(super) fn add(&mut self, cut: &mut CutMade) -> bool {
        let is_told = self.change(cut);
        if is_told {
            // At a start some commits repeat cuts that the state has already given, so the order of revisions is enforced here.
            let revision = self.recent.back().map_or(cut.revision, |last| last.revision.max(cut.revision));
            self.recent.push_back(CutMade { revision, ..*cut });
            if self.recent.len() > RECENT
                && let Some(oldest) = self.recent.pop_front()
            {
                self.floor = oldest.revision;
            }
        }
        is_told
    }

    fn change(&mut self, cut: &mut CutMade) -> bool {
        let known = self.cuts.get(&cut.subject).copied();
        if let Some(known) = known {
            self.digest.remove(cut.subject, known.before);
        }
        if cut.before == 0 {
            self.cuts.remove(&cut.subject);
            cut.keep_until = known.map_or(0, |known| known.keep_until);
            return known.is_some();
        }
        let merged = Cut {
            before: cut.before.max(known.map_or(0, |k| k.before)),
            keep_until: cut.keep_until.max(known.map_or(0, |k| k.keep_until)),
        };
        self.cuts.insert(cut.subject, merged);
        self.digest.add(cut.subject, merged.before);
        self.earliest = self.earliest.min(merged.keep_until);
        true
    }

    /// Removes every cut that can affect no credential any more at `now`, in Unix seconds.
    pub(super) fn expire(&mut self, now: u64) {
        if now < self.earliest {
            return;
        }
        let digest = &mut self.digest;
        let mut earliest = u64::MAX;
        self.cuts.retain(|subject, cut| {
            let keep = cut.keep_until > now;
            if keep {
                earliest = earliest.min(cut.keep_until);
            } else {
                digest.remove(*subject, cut.before);
            }
            keep
        });
        self.earliest = earliest;
    }

    /// Whether there is a cut of the same subject that revokes at least as much.
    pub(super) fn covers(&self, cut: &CutMade) -> bool {
        self.cuts.get(&cut.subject).is_some_and(|known| known.before >= cut.before)
    }

    /// The changes since a revision, in order. `None` if they are no longer remembered.
    pub(super) fn since(&self, revision: u64) -> Option<Vec<CutMade>> {
        let first = self.recent.partition_point(|cut| cut.revision <= revision);
        (revision >= self.floor).then(|| self.recent.range(first..).copied().collect())
    }

    /// Number of cuts.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.cuts.len()).unwrap_or(u64::MAX)
    }

    /// The digest of all cuts, as heartbeats carry it.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest.to_bytes()
    }

    /// Every cut as a message, in no order, at the revision `head`.
    pub(super) fn messages(&self, head: u64) -> Vec<v1::Cut> {
        let message = |(subject, cut): (&Subject, &Cut)| v1::Cut {
            subject: subject.0.to_vec(),
            before: cut.before,
            keep_until: cut.keep_until,
            revision: head,
        };
        self.cuts.iter().map(message).collect()
    }
}
