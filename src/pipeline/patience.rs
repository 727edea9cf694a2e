//! Estimates how long an act would wait for its answer, from the length of the queue and the time of a commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::LARGE;
use crate::ledger::Pulse;

/// The estimate, and the limit for it.
pub(super) struct Patience {
    pulse: Pulse,
    // Half of the time that callers wait, because the estimate may be wrong by a factor of two.
    longest: Duration,
    // How long the last commit took, in microseconds.
    last: AtomicU64,
}

impl Patience {
    /// Callers wait `longest` for an answer.
    pub(super) fn new(pulse: Pulse, longest: Duration) -> Patience {
        Patience { pulse, longest: longest / 2, last: AtomicU64::new(0) }
    }

    /// Notes how long a commit took.
    pub(super) fn committed(&self, took: Duration) {
        self.last.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether an act behind `waiting` others would be answered in time. One full group is always accepted, because its commit
    /// measures how long commits take now.
    pub(super) fn lasts(&self, waiting: usize) -> bool {
        waiting < LARGE || {
            // A commit that is under way takes at least as long as it has taken so far.
            let commit = Duration::from_micros(self.last.load(Ordering::Relaxed)).max(self.pulse.held());
            // The commit that is under way, those of earlier groups, and that of this act.
            let commits = u32::try_from(waiting / LARGE + 2).unwrap_or(u32::MAX);
            commit.saturating_mul(commits) <= self.longest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t235_what_would_be_answered_too_late_is_refused_and_a_full_group_is_always_taken() {
        let patience = Patience::new(Pulse::default(), Duration::from_secs(10));
        let most = |commit: Duration| {
            patience.committed(commit);
            (0..100_000).step_by(LARGE).take_while(|waiting| patience.lasts(*waiting)).last()
        };
        assert_eq!(most(Duration::from_millis(2)), Some(99_968), "a usual disk: the queue has another bound");
        // Answered within 5 seconds: 100 commits, 5, and never less than one group.
        assert_eq!(most(Duration::from_millis(50)), Some(98 * LARGE));
        assert_eq!(most(Duration::from_secs(1)), Some(3 * LARGE));
        assert_eq!(most(Duration::from_secs(30)), Some(0));
        assert!(patience.lasts(LARGE - 1) && !patience.lasts(LARGE));
    }
}
