//! The writer: judges all groups that wait, commits them once, applies the records, and settles every act.

use std::time::Instant;

use parking_lot::Mutex;

use super::notes::Told;
use super::{Bounds, Durable, Fate, Group, Head, Inner, Lane, Noted, Observer};
use crate::clock::Clock;
use crate::journal::chain::Digest;
use crate::journal::{self, AppendError, Journal};
use crate::judge::{Entry, Judgement, Note, Rules};
use crate::process::sparing::Sparing;
use crate::state::{AT_ONCE, State};

/// Most rows that one commit drops.
const DROP: usize = 512;
/// Attempts to append one batch. If another process has appended first, the batch is judged again.
const BEHIND: usize = 16;
/// Rows that are read at once to catch up.
const CATCH_UP: usize = 1024;

/// A group that waits for the writer, which puts the settled group back here.
pub(super) struct Slot {
    pub(super) lane: Lane,
    // Guards the group: the writer takes it out, and puts it back settled.
    group: Mutex<(Option<Box<dyn Group>>, bool)>,
}

impl Slot {
    pub(super) fn new(group: Box<dyn Group>) -> Slot {
        Slot { lane: group.lane(), group: Mutex::new((Some(group), false)) }
    }

    /// The group, if it is settled.
    pub(super) fn take(&self) -> Option<Box<dyn Group>> {
        let mut group = self.group.lock();
        if group.1 { group.0.take() } else { None }
    }

    fn begin(&self) -> Option<Box<dyn Group>> {
        self.group.lock().0.take()
    }

    fn settle(&self, settled: Box<dyn Group>) {
        *self.group.lock() = (Some(settled), true);
    }
}

/// The state of the writer, which only the holder of its lock may use.
pub(super) struct Writer {
    pub(super) journal: Box<dyn Journal>,
    bounds: Bounds,
    pub(super) clock: Clock,
    observer: Box<dyn Observer>,
    fatal: Box<dyn Fn(&str) + Send>,
    pub(super) stopped: bool,
    // Backups that are being copied. Rows stay in the journal until the last of them is done.
    backups: usize,
    measures: Measures,
    told: Told,
}

struct Measures {
    batch_records: metrics::Histogram,
    commit_seconds: metrics::Histogram,
    sync_seconds: metrics::Histogram,
    records: metrics::Counter,
    agents: metrics::Gauge,
}

impl Writer {
    pub(super) fn new(
        journal: Box<dyn Journal>,
        bounds: Bounds,
        clock: Clock,
        observer: Box<dyn Observer>,
        fatal: Box<dyn Fn(&str) + Send>,
    ) -> Writer {
        let measures = Measures {
            batch_records: metrics::histogram!("mayfly_journal_batch_records"),
            commit_seconds: metrics::histogram!("mayfly_journal_commit_seconds"),
            sync_seconds: metrics::histogram!("mayfly_journal_sync_seconds"),
            records: metrics::counter!("mayfly_journal_records_total"),
            agents: metrics::gauge!("mayfly_agents_known"),
        };
        Writer { journal, bounds, clock, observer, fatal, stopped: false, backups: 0, measures, told: Told::default() }
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn rows(&mut self, from: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, String> {
        self.journal.read(from, most)
    }

    pub(super) fn head(&self) -> Option<(u64, Digest)> {
        self.journal.head()
    }

    pub(super) fn chain_at(&self, revision: u64) -> Result<Option<Digest>, String> {
        self.journal.chain_at(revision)
    }

    pub(super) fn backup_begins(&mut self) {
        self.backups += 1;
    }

    pub(super) fn backup_ends(&mut self) {
        self.backups = self.backups.saturating_sub(1);
    }

    /// Commits `mine` with groups that wait, up to the bound.
    pub(super) fn carry(&mut self, inner: &Inner, mine: Option<&mut dyn Group>) {
        let mut taken = Vec::new();
        let mut count = mine.as_ref().map_or(0, |mine| mine.count());
        {
            let mut waiting = inner.waiting.lock();
            while count < self.bounds.batch
                && let Some(slot) = waiting.pop()
            {
                if let Some(group) = slot.begin() {
                    count += group.count();
                    taken.push((slot, group));
                }
            }
        }
        let mut guard = Panicked { writer: self, armed: true };
        {
            // In order of lanes; within a lane, waiting groups before the new one.
            let mut groups: Vec<&mut dyn Group> = Vec::with_capacity(taken.len() + 1);
            groups.extend(taken.iter_mut().map(|(_, group)| &mut **group as &mut dyn Group));
            groups.extend(mine);
            groups.sort_by_key(|group| group.lane());
            let rules = inner.rules.load_full();
            guard.writer.commit(inner, &rules, &mut groups);
        }
        guard.armed = false;
        drop(guard);
        for (slot, group) in taken {
            slot.settle(group);
        }
    }

    /// Commits one group by itself, judged by rules that the ledger does not use yet.
    pub(super) fn carry_by(&mut self, inner: &Inner, rules: &Rules, group: &mut dyn Group) {
        let mut guard = Panicked { writer: self, armed: true };
        guard.writer.commit(inner, rules, &mut [group]);
        guard.armed = false;
    }

    fn commit(&mut self, inner: &Inner, rules: &Rules, groups: &mut [&mut dyn Group]) {
        if self.stopped {
            return settle(groups, &Fate::Stopped);
        }
        let started = Instant::now();
        let mut notes = Vec::new();
        let mut recorded = self.record(inner, rules, groups, &mut notes);
        let mut groups = groups;
        if matches!(recorded, Err(AppendError::Full(_))) {
            (groups, recorded) = self.squeeze(inner, rules, groups, &mut notes, recorded);
        }
        if recorded.is_ok() {
            inner.pulse(|pulse| pulse.refusing = None);
        }
        // Notes are reported even if the batch was not recorded: an operator should learn of a thief even if the disk is full.
        for note in notes {
            self.told.tell(&note);
        }
        let (fate, count) = match recorded {
            Ok(count) => (Fate::Durable(Durable(())), count),
            Err(AppendError::Full(cause)) => {
                static WARNING: Sparing = Sparing::new();
                if let Some(left_out) = WARNING.next(started) {
                    tracing::error!(%cause, left_out, "the journal has no room");
                }
                if groups.first().is_some_and(|group| group.lane() == Lane::Revocation) {
                    inner.pulse(|pulse| pulse.refusing = pulse.refusing.or(Some(started)));
                }
                (Fate::Full, 0)
            }
            Err(cause) => {
                // After a failed fsync it is unknown what is on the disk. The process stops, and its next start replays the
                // journal.
                let cause = cause.to_string();
                settle(groups, &Fate::Failed(cause.clone()));
                return self.failed(inner, &cause);
            }
        };
        if count > 0 {
            self.measures.commit_seconds.record(started.elapsed());
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            self.measures.batch_records.record(count as f64);
            self.measures.records.increment(u64::try_from(count).unwrap_or(0));
            #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
            self.measures.agents.set(inner.state.read().agent_count() as f64);
        }
        settle(groups, &fate);
    }

    /// Judges, appends and applies; if another process appended in the meantime, catches up and judges again. Fills `notes`, and
    /// returns the number of records.
    pub(super) fn record(
        &mut self,
        inner: &Inner,
        rules: &Rules,
        groups: &mut [&mut dyn Group],
        notes: &mut Vec<Note>,
    ) -> Result<usize, AppendError> {
        for _ in 0..BEHIND {
            let now = self.clock.now();
            // Only the holder of the writer's lock changes the state, so a decision under the read lock still holds below.
            let (entries, first, dropped) = {
                let state = inner.state.read();
                let mut judgement = Judgement::new(&state, rules, now);
                groups.iter_mut().for_each(|group| group.judge(&mut judgement));
                let (entries, found) = judgement.finish();
                *notes = found;
                (entries, state.revision + 1, self.dropped(&state))
            };
            if entries.is_empty() {
                return Ok(0);
            }
            match self.append(inner, first, &entries, &dropped) {
                Ok(()) => {}
                Err(AppendError::Behind) => {
                    self.catch_up(inner)?;
                    continue;
                }
                Err(other) => return Err(other),
            }
            let count = entries.len();
            self.apply(inner, (first..).zip(entries), &dropped)?;
            return Ok(count);
        }
        Err(AppendError::Fatal("others append to this journal faster than this issuer".into()))
    }

    /// Stops the ledger, because it is unknown what is durable.
    pub(super) fn failed(&mut self, inner: &Inner, cause: &str) {
        self.stopped = true;
        inner.pulse(|pulse| pulse.stopped = true);
        (self.fatal)(cause);
    }

    /// Rows that the next append drops.
    pub(super) fn dropped(&self, state: &State) -> Vec<u64> {
        let mut dropped = if self.backups > 0 { Vec::new() } else { state.obsolete(DROP) };
        // INVARIANT: no row is dropped that the observer has not copied; they are dropped in their order. The last row stays.
        let copied = self.observer.copied().min(state.revision.saturating_sub(1));
        dropped.truncate(dropped.iter().take_while(|revision| **revision <= copied).count());
        dropped
    }

    pub(super) fn append(&mut self, inner: &Inner, first: u64, entries: &[Entry], dropped: &[u64]) -> Result<(), AppendError> {
        let encoded: Vec<Vec<u8>> = entries.iter().map(|entry| prost::Message::encode_to_vec(&entry.record)).collect();
        let started = Instant::now();
        inner.pulse(|pulse| pulse.appending = Some(started));
        let appended = self.journal.append(first, &encoded, dropped);
        inner.pulse(|pulse| pulse.appending = None);
        self.measures.sync_seconds.record(started.elapsed());
        appended
    }

    /// Applies durable records to the state, and notifies the observer.
    pub(super) fn apply(
        &mut self,
        inner: &Inner,
        entries: impl IntoIterator<Item = (u64, Entry)>,
        dropped: &[u64],
    ) -> Result<(), AppendError> {
        let (mut cuts, mut noted) = (Vec::new(), Vec::new());
        let mut budget = AT_ONCE;
        let mut state = inner.state.write();
        // Numbers acts uniquely, because the first revision of a commit belongs to no other commit.
        let commit = (state.revision + 1) << 16;
        for (revision, Entry { record, agent, act, origin }) in entries {
            state.apply_within(revision, &record, agent, &mut budget).map_err(|misfit| AppendError::Fatal(misfit.to_string()))?;
            cuts.extend(state.cuts_of(revision, &record));
            cuts.extend(state.take_subsumed());
            let act = if act == 0 { 0 } else { commit | u64::from(act & 0xffff) };
            noted.push(Noted { revision, record, act, origin });
        }
        state.dropped(dropped);
        let chain = self.journal.head().filter(|(at, _)| *at == state.revision).map(|(_, chain)| chain);
        let head = Head { incarnation: state.incarnation, revision: state.revision, chain };
        drop(state);
        // ORDER: the feed is notified before any caller is answered. A caller that sees this head finds every cut up to it in the
        // feed.
        self.observer.committed(head, cuts);
        self.observer.recorded(noted);
        Ok(())
    }

    /// Applies what others appended.
    fn catch_up(&mut self, inner: &Inner) -> Result<(), AppendError> {
        loop {
            let from = inner.state.read().revision + 1;
            let rows = self.journal.read(from, CATCH_UP).map_err(AppendError::Fatal)?;
            let more = rows.len() == CATCH_UP;
            let mut entries = Vec::with_capacity(rows.len());
            // Revisions have gaps where another process dropped rows that no longer matter.
            for (revision, body) in rows {
                let record = journal::decode(&body).map_err(AppendError::Fatal)?;
                entries.push((revision, Entry { record, agent: None, act: 0, origin: None }));
            }
            if !entries.is_empty() {
                self.apply(inner, entries, &[])?;
            }
            if !more {
                return Ok(());
            }
        }
    }
}

pub(super) fn settle(groups: &mut [&mut dyn Group], fate: &Fate) {
    groups.iter_mut().for_each(|group| group.settle(fate));
}

/// Stops the ledger if a thread panics while it is the writer: it may have left the state half changed.
struct Panicked<'a> {
    writer: &'a mut Writer,
    armed: bool,
}

impl Drop for Panicked<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.writer.stopped = true;
            (self.writer.fatal)("a thread panicked while it held the ledger");
        }
    }
}
