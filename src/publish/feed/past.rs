//! The cuts that were published before this process began, as the records of the journal tell them: followers go on from there.

use super::set::Set;
use crate::clock::SECOND;
use crate::ledger::Listens;
use crate::state::CutMade;

/// What ended is forgotten when the set has doubled since the last time, and not below this number of cuts.
const SMALL: usize = 4096;

/// The cuts of a journal that is replayed, each with the end that was published with it.
#[derive(Default)]
pub struct Past {
    set: Set,
    // Number of cuts at which those that have ended are forgotten.
    limit: u64,
}

impl Listens for Past {
    fn begin(&mut self) {
        *self = Past::default();
    }

    fn told(&mut self, at: u64, cuts: Vec<CutMade>) {
        for mut cut in cuts {
            let _ = self.set.add(&mut cut);
        }
        // Each time costs as much as there are cuts, so not at each record.
        if self.set.len() > self.limit {
            self.set.expire(at / SECOND);
            self.limit = self.set.len().saturating_mul(2).max(SMALL as u64);
        }
    }
}

impl Past {
    /// The set of published cuts, with those in force that no record told. Whoever goes on from the past is told these once more.
    pub(super) fn completed(mut self, all: impl Iterator<Item = CutMade>) -> Set {
        for mut cut in all {
            if !self.set.covers(&cut) {
                let _ = self.set.add(&mut cut);
            }
        }
        self.set
    }
}
