//! The cuts in force, with the digest that each heartbeat signs.

use std::collections::HashMap;

use mayfly_agent::api::v1;
use mayfly_verify::Subject;
use mayfly_verify::feed::CutDigest;

use crate::state::CutMade;

/// The cuts in force as of the last message, one for each subject.
pub(super) struct Set {
    cuts: HashMap<Subject, Cut>,
    // Earliest `keep_until` in the set, Unix seconds.
    earliest: u64,
    digest: CutDigest,
}

#[derive(Clone, Copy)]
struct Cut {
    // Revision before which reliance on the subject is dead; above 0.
    before: u64,
    // Unix seconds.
    keep_until: u64,
}

impl Default for Set {
    fn default() -> Set {
        Set { cuts: HashMap::new(), earliest: u64::MAX, digest: CutDigest::default() }
    }
}

impl Set {
    /// Adds a cut. With an earlier cut of the same subject it is merged: the later `before` and the later `keep_until` hold. One
    /// with `before` 0 takes the subject's cut off, and gets the `keep_until` of that. Returns whether there is something to tell.
    pub(super) fn add(&mut self, cut: &mut CutMade) -> bool {
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

    /// Removes every cut that can kill nothing any more at `now`, in Unix seconds.
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
