//! What the records say about the time itself: from when on it is not proven yet, and where it was brought back.

use super::{AT_ONCE, State};
use crate::clock::SECOND;

/// How long rows are kept at most after the issuer was away, in microseconds.
pub const ROWS_KEPT: u64 = 24 * 3600 * SECOND;

/// Records whose times were ahead, and the time that they count with since an operator repaired it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Revision of the first of them.
    pub first: u64,
    /// Revision of the record that repaired them, which comes after the last of them.
    pub by: u64,
    /// The latest time that they count with, in Unix microseconds.
    pub at: u64,
}

impl Repair {
    /// The time with which a record counts, given its own.
    pub fn time_of(&self, revision: u64, at: u64) -> u64 {
        if (self.first..self.by).contains(&revision) { at.min(self.at) } else { at }
    }
}

impl State {
    /// The time with which the record of a revision counts, given its own (Unix microseconds).
    pub fn time_of(&self, revision: u64, at: u64) -> u64 {
        self.repairs.iter().fold(at, |at, repair| repair.time_of(revision, at))
    }

    /// When the last credential of any agent ends that was ever allowed, in Unix seconds.
    pub fn last_end(&self) -> u64 {
        self.out.last()
    }

    /// At most `most` revisions of records that no longer matter. After the issuer was away none is named for as long as it was
    /// away, up to [`ROWS_KEPT`]: if its clock turns out to be wrong, everything that it seemed to have outlived is still there.
    pub fn obsolete(&self, most: usize) -> Vec<u64> {
        let most = if self.at < self.rows_kept_until { 0 } else { most };
        self.obsolete.iter().take(most).copied().collect()
    }

    /// How many things end or are forgotten by `now` (Unix microseconds), counted up to [`AT_ONCE`]. Zero while their rows are kept.
    pub fn count_due(&self, now: u64) -> usize {
        if now < self.rows_kept_until { 0 } else { self.due_by(now).take(AT_ONCE).count() }
    }

    /// Keeps rows as after `State::resumed`, though there was no room for a record of it. Times are in Unix microseconds.
    pub fn keep_rows(&mut self, at: u64, last: u64) {
        let _ = self.resumed(at, last);
    }

    /// The issuer was started at `at`, and the last time that it knew before was `last`. Returns until when rows are kept.
    pub(super) fn resumed(&mut self, at: u64, last: u64) -> u64 {
        let away = at.saturating_sub(last).min(ROWS_KEPT);
        self.rows_kept_until = self.rows_kept_until.max(at.saturating_add(away));
        self.rows_kept_until
    }

    /// The record `by` brings the time back to `at` for the records from `first` on.
    pub(super) fn repaired(&mut self, first: u64, by: u64, at: u64) {
        self.rows_kept_until = 0;
        self.repairs.push(Repair { first, by, at });
    }
}
