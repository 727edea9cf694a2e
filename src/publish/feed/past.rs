//! The cuts that were published before this process started, reconstructed from the journal, so that followers can resume.

use super::set::Set;
use crate::clock::SECOND;
use crate::ledger::Listens;
use crate::state::CutMade;

/// Ended cuts are removed when the set has doubled since the last time, and has more cuts than this.
const SMALL: usize = 4096;

/// The cuts of a replayed journal, each with the end that was published with it.
#[derive(Default)]
pub struct Past {
    set: Set,
    // Number of cuts at which ended ones are removed.
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
        // Removal visits all cuts, so it is not done at each record.
        if self.set.len() > self.limit {
            self.set.expire(at / SECOND);
            self.limit = self.set.len().saturating_mul(2).max(SMALL as u64);
        }
    }
}

impl Past {
    /// The set of published cuts, completed with cuts in force that are in no record. Followers that resume get these again.
    pub(super) fn completed(mut self, all: impl Iterator<Item = CutMade>) -> Set {
        for mut cut in all {
            if !self.set.covers(&cut) {
                let _ = self.set.add(&mut cut);
            }
        }
        self.set
    }
}
