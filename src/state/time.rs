//! Records about the time itself: since when the clock is in doubt, and which times were repaired.

use super::{AT_ONCE, State};
use crate::clock::SECOND;

/// Longest time for which rows are kept after the issuer was away, in microseconds.
pub const ROWS_KEPT: u64 = 24 * 3600 * SECOND;

/// A repair by an operator of records whose times were ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Revision of the first of them.
    pub first: u64,
    /// Revision of the record of the repair, which comes after the last of them.
    pub by: u64,
    /// The latest effective time of these records, in Unix microseconds.
    pub at: u64,
}

impl Repair {
    /// The effective time of a record, given its own.
    pub fn time_of(&self, revision: u64, at: u64) -> u64 {
        if (self.first..self.by).contains(&revision) { at.min(self.at) } else { at }
    }
}

impl State {
    /// The effective time of the record of a revision, given its own (Unix microseconds).
    pub fn time_of(&self, revision: u64, at: u64) -> u64 {
        self.repairs.iter().fold(at, |at, repair| repair.time_of(revision, at))
    }

    /// When the last credential of any agent that was ever permitted expires, in Unix seconds.
    pub fn last_end(&self) -> u64 {
        self.out.last()
    }

    /// At most `most` revisions of records that no longer matter. After the issuer was away it returns none for as long as that
    /// was, up to [`ROWS_KEPT`], so that nothing is lost if its clock turns out to be wrong.
    pub fn obsolete(&self, most: usize) -> Vec<u64> {
        let most = if self.at < self.rows_kept_until { 0 } else { most };
        self.obsolete.iter().take(most).copied().collect()
    }

    /// Number of events that are due by `now` (Unix microseconds), counted up to [`AT_ONCE`]. Zero while no rows may be dropped.
    pub fn count_due(&self, now: u64) -> usize {
        if now < self.rows_kept_until { 0 } else { self.due_by(now).take(AT_ONCE).count() }
    }

    /// Keeps rows as `State::resumed` does, for a start without room for its record. Times are in Unix microseconds.
    pub fn keep_rows(&mut self, at: u64, last: u64) {
        let _ = self.resumed(at, last);
    }

    /// Applies a start at `at`, before which `last` was the last known time. Returns until when rows are kept.
    pub(super) fn resumed(&mut self, at: u64, last: u64) -> u64 {
        let away = at.saturating_sub(last).min(ROWS_KEPT);
        self.rows_kept_until = self.rows_kept_until.max(at.saturating_add(away));
        self.rows_kept_until
    }

    /// Applies a repair: the record `by` moves the times of the records from `first` on back to `at`.
    pub(super) fn repaired(&mut self, first: u64, by: u64, at: u64) {
        self.rows_kept_until = 0;
        self.repairs.push(Repair { first, by, at });
    }
}
