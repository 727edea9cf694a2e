//! The thread that writes the history. It follows the journal, and is never ahead of it.
//!
//! Records after the last entry are read from the journal at the start, and whenever the inbox had no room. So even kill -9 loses
//! no entry of a record: its row stays in the journal until the entry is durable.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::entry::{Draft, Sealed};
use super::inbox::{Inbox, Taken};
use super::log::Log;
use super::store::{Store, StoreError};
use super::translate::{Translator, follows};
use crate::clock::Clock;
use crate::journal;
use crate::ledger::{Ledger, Noted};
use crate::process::sparing::Sparing;

/// For how long records accumulate before they are written with one fsync.
const GATHER: Duration = Duration::from_millis(20);
/// Least time between two checkpoints.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// Pause between two searches for entries that are too old.
const EXPIRE: Duration = Duration::from_secs(60);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Most entries that are written at once.
const GROUP: usize = 1024;
/// Records that are translated under one lock of the state.
const LOOK: usize = 16;
/// Rows that are read from the journal at once.
const ROWS: usize = 512;

pub(super) struct Keeper {
    inbox: Inbox,
    ledger: Ledger,
    clock: Clock,
    store: Store,
    log: Log,
    // Revision up to which records are written, or no longer in the journal.
    seen: u64,
    // The last record, with its decision.
    last: Option<(Noted, String)>,
    published: Option<Instant>,
    expired: Option<Instant>,
    broken: bool,
    measures: Measures,
}

struct Measures {
    entries: metrics::Counter,
    failures: metrics::Counter,
    behind: metrics::Gauge,
    bytes: metrics::Gauge,
}

impl Keeper {
    pub(super) fn new(inbox: Inbox, ledger: Ledger, clock: Clock, store: Store, log: Log) -> Keeper {
        let measures = Measures {
            entries: metrics::counter!("mayfly_history_entries_total"),
            failures: metrics::counter!("mayfly_history_failures_total"),
            behind: metrics::gauge!("mayfly_history_records_behind"),
            bytes: metrics::gauge!("mayfly_history_bytes"),
        };
        let seen = store.head();
        Keeper { inbox, ledger, clock, store, log, seen, last: None, published: None, expired: None, broken: false, measures }
    }

    /// Writes until it is stopped, and then the rest of the journal.
    pub(super) fn run(mut self) {
        loop {
            let pause = if self.log.is_ahead() { self.due_in() } else { EXPIRE };
            self.inbox.wait(pause.max(Duration::from_millis(1)));
            self.inbox.gather(GATHER);
            let taken = self.inbox.take(self.clock.now());
            let stop = taken.stop;
            let written = self.write(taken);
            if let Err(error) = &written {
                self.failed(error, stop);
            }
            if let Err(error) = self.publish(stop) {
                self.failed(&error, stop);
            }
            if stop {
                return;
            }
        }
    }

    fn failed(&mut self, error: &str, stop: bool) {
        self.measures.failures.increment(1);
        static WARNING: Sparing = Sparing::new();
        if let Some(left_out) = WARNING.next(Instant::now()) {
            tracing::error!(error, left_out, "the history cannot be written: the journal keeps its records until it can");
        }
        if !stop {
            std::thread::sleep(AGAIN);
        }
    }

    /// Writes the content of the queue, after earlier records that are only in the journal.
    fn write(&mut self, taken: Taken) -> Result<(), String> {
        let Taken { mut records, mut others, gap, flushes, .. } = taken;
        if self.broken {
            self.inbox.put_back(others, gap);
            return Ok(());
        }
        let written = self.records(&mut records).and_then(|()| {
            let at = self.clock.now();
            let all = || gap.iter().map(|gap| gap.draft(at)).chain(others.iter().cloned());
            // Records and other entries are sorted by their times. The sort is stable, so records keep theirs.
            let mut drafts = self.drafts(&mut records);
            drafts.extend(all().map(|draft| (draft, 0)));
            drafts.sort_by_key(|(draft, _)| draft.leaf.at);
            self.append(drafts)
        });
        if let Err(error) = written {
            // Records are read from the journal again.
            self.seen = self.store.head();
            self.last = None;
            self.inbox.put_back(std::mem::take(&mut others), gap);
            return Err(error);
        }
        let head = self.ledger.read(|state| state.revision);
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        self.measures.behind.set(head.saturating_sub(self.seen) as f64);
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        self.measures.bytes.set(self.store.bytes() as f64);
        // The caller that waited may have given up.
        for flushed in flushes {
            let _ = flushed.send(());
        }
        Ok(())
    }

    /// Writes the records of the journal before the first of these, or all of them if these are empty. Drops those of these that
    /// are then written.
    fn records(&mut self, records: &mut VecDeque<Noted>) -> Result<(), String> {
        loop {
            records.retain(|noted| noted.revision > self.seen);
            let until = match records.front() {
                Some(first) if first.revision == self.seen + 1 => return Ok(()),
                Some(first) => first.revision - 1,
                None => self.ledger.read(|state| state.revision),
            };
            if self.seen >= until {
                return Ok(());
            }
            let rows = self.ledger.rows(self.seen + 1, ROWS).map_err(|e| e.to_string())?;
            let mut late = VecDeque::new();
            for (revision, body) in rows.into_iter().filter(|(revision, _)| *revision <= until) {
                let record = journal::decode(&body)?;
                late.push_back(Noted { revision, record, act: 0, origin: None });
            }
            let seen = late.back().map_or(until, |last| last.revision);
            let drafts = self.translated(&mut late, true);
            self.append(drafts)?;
            // Missing rows were dropped before there was a history.
            self.seen = seen.max(self.seen);
        }
    }

    fn drafts(&mut self, records: &mut VecDeque<Noted>) -> Vec<(Draft, u64)> {
        self.translated(records, false)
    }

    /// An entry for each record, with its revision.
    fn translated(&mut self, records: &mut VecDeque<Noted>, late: bool) -> Vec<(Draft, u64)> {
        let trust_domain = self.ledger.trust_domain().clone();
        let mut drafts = Vec::with_capacity(records.len());
        for some in records.make_contiguous().chunks(LOOK) {
            self.ledger.read(|state| {
                let translator = Translator { trust_domain: &trust_domain, state, late };
                drafts.extend(some.iter().map(|noted| (translator.draft(noted), noted.revision)));
            });
        }
        for (noted, (draft, revision)) in records.drain(..).zip(&mut drafts) {
            let decision = match self.last.take() {
                Some((before, decision)) if follows(&before, &noted) => decision,
                _ => format!("r{revision}"),
            };
            draft.leaf.decision_id.clone_from(&decision);
            self.last = Some((noted, decision));
        }
        drafts
    }

    /// Makes entries durable, each with the revision of its record or 0.
    fn append(&mut self, drafts: Vec<(Draft, u64)>) -> Result<(), String> {
        let mut drafts = drafts.into_iter().peekable();
        while drafts.peek().is_some() {
            let (mut index, mut head) = (self.store.next(), self.store.head());
            let mut sealed = Vec::new();
            let mut salts = vec![0u8; 32 * GROUP];
            aws_lc_rs::rand::fill(&mut salts).map_err(|_| "the system gave no randomness".to_owned())?;
            for (salt, (draft, revision)) in salts.as_chunks::<32>().0.iter().zip(drafts.by_ref()) {
                head = head.max(revision);
                let at = draft.leaf.at;
                sealed.push((at, Sealed::seal(draft, index, head, *salt)?));
                index += 1;
            }
            self.store.append(&sealed).map_err(|error| {
                self.broken = matches!(error, StoreError::Broken(_));
                error.to_string()
            })?;
            sealed.iter().for_each(|(_, entry)| self.log.push(entry));
            self.seen = self.seen.max(head);
            self.inbox.set_copied(head);
            self.measures.entries.increment(u64::try_from(sealed.len()).unwrap_or(0));
        }
        Ok(())
    }

    fn due_in(&self) -> Duration {
        self.published.map_or(Duration::ZERO, |at| CHECKPOINT.saturating_sub(at.elapsed()))
    }

    /// Signs the head of the tree if it has grown, at most once a second or at the end, and drops entries that are too old.
    fn publish(&mut self, stop: bool) -> Result<(), String> {
        if self.log.is_ahead() && (stop || self.due_in().is_zero()) {
            self.published = Some(Instant::now());
            self.log.publish()?;
        }
        // At a start too, because tiles that were written again are not durable.
        self.log.settle(stop || self.expired.is_none())?;
        if self.expired.is_none_or(|at| at.elapsed() >= EXPIRE) {
            self.expired = Some(Instant::now());
            self.store.expire(self.clock.now(), self.log.durable())?;
            self.log.prune(self.store.minimum())?;
        }
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Callers that wait for a flush get an error.
        drop(self.inbox.take(self.clock.now()));
    }
}
