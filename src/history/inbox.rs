//! The queue of the history: the records of commits, and entries for denials and looks. It is bounded, and adding to it never
//! blocks: records that find no room are read from the journal later, and other entries are counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::entry::Draft;
use super::flood::{Flood, Gap, Whose};
use crate::ledger::Noted;

/// Most records that wait.
const RECORDS: usize = 65_536;
/// Most denials and looks that wait.
const OTHERS: usize = 8192;

/// The ledger's end of the queue: it takes the records of each commit, and returns the revision up to which they were copied.
#[derive(Clone)]
pub struct Inbox(Arc<Shared>);

struct Shared {
    // Guards the queue; held to add to it or to take everything.
    waiting: Mutex<Waiting>,
    wakes: Condvar,
    // Ends a pause of the writer early.
    hurries: Condvar,
    copied: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Noted>,
    others: Vec<Draft>,
    flood: Flood,
    flushes: Vec<oneshot::Sender<()>>,
    // Set when records found no room. No more are added until the queue is taken, so that there is no hole among them.
    lost: bool,
    idle: bool,
    stop: bool,
}

/// The content of the queue.
pub(super) struct Taken {
    pub(super) records: VecDeque<Noted>,
    pub(super) others: Vec<Draft>,
    pub(super) gap: Option<Gap>,
    /// The callers that wait until this is written.
    pub(super) flushes: Vec<oneshot::Sender<()>>,
    pub(super) stop: bool,
}

impl Inbox {
    /// An empty queue. No row of the journal counts as copied until the writer says so.
    pub(super) fn new() -> Inbox {
        Inbox(Arc::new(Shared {
            waiting: Mutex::default(),
            wakes: Condvar::new(),
            hurries: Condvar::new(),
            copied: AtomicU64::new(0),
        }))
    }

    /// Adds the records of a commit. Never blocks.
    pub fn record(&self, records: Vec<Noted>) {
        let mut waiting = self.0.waiting.lock();
        waiting.lost |= waiting.records.len() + records.len() > RECORDS;
        if !waiting.lost {
            waiting.records.extend(records);
        }
        self.wake(&mut waiting);
    }

    /// Revision up to which every record is durable in the history.
    pub fn copied(&self) -> u64 {
        self.0.copied.load(Ordering::Acquire)
    }

    pub(super) fn set_copied(&self, revision: u64) {
        self.0.copied.store(revision, Ordering::Release);
    }

    /// Adds an entry that is not of a record. If its rate limit is reached it is counted instead.
    pub(super) fn add(&self, whose: Whose, draft: Draft) {
        let mut waiting = self.0.waiting.lock();
        let room = waiting.others.len() < OTHERS;
        if waiting.flood.admits(whose, &draft, room) {
            waiting.others.push(draft);
        }
        self.wake(&mut waiting);
    }

    /// Asks for everything so far to be written at once. Resolves when it is, or with an error when the writer has stopped.
    pub(super) fn flush(&self) -> oneshot::Receiver<()> {
        let (done, flushed) = oneshot::channel();
        let mut waiting = self.0.waiting.lock();
        if !waiting.stop {
            waiting.flushes.push(done);
        }
        self.0.hurries.notify_one();
        self.wake(&mut waiting);
        flushed
    }

    pub(super) fn stop(&self) {
        let mut waiting = self.0.waiting.lock();
        waiting.stop = true;
        self.0.hurries.notify_one();
        self.wake(&mut waiting);
    }

    // Only the first entry wakes the writer; later ones are taken with it.
    fn wake(&self, waiting: &mut Waiting) {
        if std::mem::take(&mut waiting.idle) {
            self.0.wakes.notify_one();
        }
    }

    /// Waits until the queue is not empty, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        let mut waiting = self.0.waiting.lock();
        if waiting.records.is_empty() && waiting.others.is_empty() && waiting.flushes.is_empty() && !waiting.stop {
            waiting.idle = true;
            self.0.wakes.wait_for(&mut waiting, timeout);
            waiting.idle = false;
        }
    }

    /// Lets entries accumulate for `pause`, or until a caller waits for a flush.
    pub(super) fn gather(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut waiting = self.0.waiting.lock();
        while waiting.flushes.is_empty() && !waiting.stop {
            if self.0.hurries.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }

    /// Takes everything. Gaps are included at most once a second, and at the end.
    pub(super) fn take(&self, now: u64) -> Taken {
        let mut waiting = self.0.waiting.lock();
        let stop = waiting.stop;
        waiting.lost = false;
        Taken {
            records: std::mem::take(&mut waiting.records),
            others: std::mem::take(&mut waiting.others),
            gap: waiting.flood.gap(now, stop),
            flushes: std::mem::take(&mut waiting.flushes),
            stop,
        }
    }

    /// Puts back entries that could not be written, before newer ones; entries that find no room are counted.
    pub(super) fn put_back(&self, others: Vec<Draft>, gap: Option<Gap>) {
        let mut waiting = self.0.waiting.lock();
        if let Some(gap) = gap {
            waiting.flood.put_back(gap);
        }
        let later = std::mem::replace(&mut waiting.others, others);
        for draft in later {
            if waiting.others.len() < OTHERS {
                waiting.others.push(draft);
            } else {
                waiting.flood.missed(&draft);
            }
        }
    }
}
