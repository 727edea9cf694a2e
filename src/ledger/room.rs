//! Room in the journal: which records are written when there is not enough for all, and how room is made.
//!
//! Revocations, ends and authorities have a reserve that nothing else can use. Rows that no longer matter are dropped before
//! anything is refused. The passage of time is recorded even without requests, so that more rows cease to matter.

use super::commit::{Writer, settle};
use super::{Fate, Group, Inner, Lane, Ledger};
use crate::clock::SECOND;
use crate::journal::AppendError;
use crate::journal::record::{Passed, Record, record::Body};
use crate::judge::{Entry, Note, Rules};
use crate::state::AT_ONCE;

/// How long the journal may be quiet while something is due to end or rows wait to be dropped, in microseconds.
const QUIET: u64 = 10 * SECOND;

impl Ledger {
    /// Keeps room in the journal: refills its reserve, and records the passage of time if there were no other records. Call this
    /// about once a second. Blocks while something is committed.
    pub fn tend(&self) {
        let mut writer = self.0.writer.lock();
        if writer.stopped {
            return;
        }
        writer.pass(&self.0);
        if writer.stopped {
            return;
        }
        let space = writer.journal.tend();
        drop(writer);
        self.0.pulse(|pulse| {
            pulse.full = space.is_short;
            // If an operator has made room, revocations can be recorded again.
            pulse.refusing = pulse.refusing.filter(|_| space.is_short);
        });
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        for (name, bytes) in [
            ("mayfly_journal_bytes", space.used),
            ("mayfly_journal_free_bytes", space.free),
            ("mayfly_journal_reserve_bytes", space.reserve),
        ] {
            if let Some(bytes) = bytes {
                metrics::gauge!(name).set(bytes as f64);
            }
        }
    }
}

impl Writer {
    /// Called if a batch found no room. Drops rows that no longer matter, then records groups that may use the reserve, and refuses
    /// the rest. Returns the groups that are not settled yet, and their outcome.
    pub(super) fn squeeze<'a, 'b>(
        &mut self,
        inner: &Inner,
        rules: &Rules,
        groups: &'a mut [&'b mut dyn Group],
        notes: &mut Vec<Note>,
        mut recorded: Result<usize, AppendError>,
    ) -> (&'a mut [&'b mut dyn Group], Result<usize, AppendError>) {
        metrics::counter!("mayfly_journal_full_total").increment(1);
        match self.drop_rows(inner) {
            Ok(true) => recorded = self.record(inner, rules, groups, notes),
            Ok(false) | Err(AppendError::Full(_)) => {}
            Err(cause) => recorded = Err(cause),
        }
        if !matches!(recorded, Err(AppendError::Full(_))) {
            return (groups, recorded);
        }
        inner.pulse(|pulse| pulse.full = true);
        // The groups are in the order of their lanes.
        let vital = groups.iter().position(|group| group.lane() > Lane::Authority).unwrap_or(groups.len());
        let (vital, rest) = groups.split_at_mut(vital);
        settle(rest, &Fate::Full);
        if !vital.is_empty() {
            self.journal.may_use_reserve(true);
            // Notes were already made when the whole batch was judged.
            recorded = self.record(inner, rules, vital, &mut Vec::new());
            self.journal.may_use_reserve(false);
        }
        (vital, recorded)
    }

    /// Drops rows that no longer matter. Returns whether there were any.
    fn drop_rows(&mut self, inner: &Inner) -> Result<bool, AppendError> {
        let (next, dropped) = {
            let state = inner.state.read();
            (state.revision + 1, self.dropped(&state))
        };
        if dropped.is_empty() {
            return Ok(false);
        }
        self.append_vital(inner, next, &[], &dropped)?;
        inner.state.write().dropped(&dropped);
        Ok(true)
    }

    /// Records the passage of time if something is due to end and nothing was recorded for a while, and drops the rows that wait
    /// for the next commit.
    fn pass(&mut self, inner: &Inner) {
        let passed = match self.due(inner) {
            Due::Nothing => Ok(()),
            Due::Rows => self.drop_rows(inner).map(drop),
            Due::Time => self.record_passed(inner),
        };
        match passed {
            // The next commit handles other processes, and a later call a full disk.
            Ok(()) | Err(AppendError::Behind | AppendError::Full(_)) => {}
            // T72: it is unknown what is durable, and no later append may succeed.
            Err(cause) => self.failed(inner, &cause.to_string()),
        }
    }

    fn due(&self, inner: &Inner) -> Due {
        let (now, state) = (self.clock.now(), inner.state.read());
        let due = state.count_due(now);
        match () {
            // More is due than one commit can end.
            () if due == AT_ONCE => Due::Time,
            () if now < state.at.saturating_add(QUIET) => Due::Nothing,
            () if due > 0 => Due::Time,
            () if !self.dropped(&state).is_empty() => Due::Rows,
            () => Due::Nothing,
        }
    }

    fn record_passed(&mut self, inner: &Inner) -> Result<(), AppendError> {
        let (first, at, dropped) = {
            let state = inner.state.read();
            (state.revision + 1, self.clock.now().max(state.at), self.dropped(&state))
        };
        let record = Record { at, operator: String::new(), body: Some(Body::Passed(Passed {})) };
        let entries = vec![Entry { record, agent: None, act: 0, origin: None }];
        self.append_vital(inner, first, &entries, &dropped)?;
        self.apply(inner, (first..).zip(entries), &dropped)
    }

    fn append_vital(&mut self, inner: &Inner, first: u64, entries: &[Entry], dropped: &[u64]) -> Result<(), AppendError> {
        self.journal.may_use_reserve(true);
        let appended = self.append(inner, first, entries, dropped);
        self.journal.may_use_reserve(false);
        appended
    }
}

/// Why time has to be recorded.
enum Due {
    Nothing,
    /// Rows that no longer matter wait to be dropped.
    Rows,
    /// Something is due to end or to be dropped from the state.
    Time,
}
