//! Sends the history to a collector: each entry as one JSON line, in order and at least once.
//!
//! A thread of its own reads durable entries, so no request waits for the collector, and entries that could not be written are
//! written later: a file in the home holds the position. [`Audit::trouble`] reports a collector that accepts nothing or is too
//! slow.

mod sink;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mayfly_verify::User;
use parking_lot::{Condvar, Mutex};

use super::History;
use super::inbox::Inbox;
use super::line::{message, object};
use super::read::{Range, Reader};
use crate::keys::keystore::write_private;
use crate::ledger::Ledger;
use crate::process;
pub use sink::Sink;
use sink::Target;

/// Pause between two reads for new entries.
const LOOK: Duration = Duration::from_millis(250);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Most entries, and most bytes, that are sent at once.
const GROUP: (usize, usize) = (1024, 1 << 20);
/// How long sending an entry may take before it counts as a failure, because a pipe without a reader gives no error.
const LATE: Duration = Duration::from_secs(10);
/// How long a stop waits for entries that were not sent yet.
const LAST: Duration = Duration::from_secs(5);

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where entries go.
    pub sink: Sink,
    /// Whether issuance stops while entries cannot be sent. Otherwise the failures are only counted.
    pub refuse: bool,
}

/// The thread that sends the entries.
pub struct Audit {
    shared: Arc<Shared>,
    refuse: bool,
    // Guards the thread's end, which is waited for once.
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    // Guards the state that the thread shares with its callers; held to read or change a field.
    told: Mutex<Told>,
    changed: Condvar,
}

struct Told {
    /// Why the last attempt failed.
    failure: Option<String>,
    /// Everything that had been recorded by then was sent.
    complete: Instant,
    stopping: bool,
    done: bool,
}

impl Audit {
    /// Starts to send the entries of a history, from the position in a file in `home`. Fails if that file is damaged, or if the
    /// collector cannot be written and nothing may be issued without it.
    pub fn start(settings: &Settings, history: &History, home: &Path) -> Result<Audit, String> {
        let cursor = home.join("audit.cursor");
        let (first, end) = history.opened;
        let next = match std::fs::read_to_string(&cursor) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| format!("`{}` is damaged: remove it, and everything is handed on again", cursor.display()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => first,
            Err(e) => return Err(format!("`{}`: {e}", cursor.display())),
        };
        let next = if next > end {
            tracing::warn!(
                next,
                end,
                "the history ends before what was handed to the audit collector: all of it is handed on again"
            );
            first
        } else {
            next
        };
        let told = Told { failure: None, complete: Instant::now(), stopping: false, done: false };
        let shared = Arc::new(Shared { told: Mutex::new(told), changed: Condvar::new() });
        let mut worker = Worker {
            reader: history.reader().clone(),
            inbox: history.inbox.clone(),
            ledger: history.ledger.clone(),
            target: Target::new(settings.sink.clone()),
            cursor,
            next,
            mark: None,
            shared: Arc::clone(&shared),
        };
        if let Err(why) = worker.target.open()
            && settings.refuse
        {
            return Err(format!("[audit]: {why}"));
        }
        let thread = process::thread("mayfly-audit", move || worker.run()).map_err(|e| e.to_string())?;
        Ok(Audit { shared, refuse: settings.refuse, thread: Mutex::new(Some(thread)) })
    }

    /// Why entries are not being sent now. `None` if they are.
    pub fn trouble(&self) -> Option<String> {
        let told = self.shared.told.lock();
        let late = || (told.complete.elapsed() > LATE).then(|| format!("nothing was taken for {} seconds", LATE.as_secs()));
        told.failure.clone().or_else(late)
    }

    /// Whether nothing may be issued now.
    pub fn refuses(&self) -> bool {
        self.refuse && self.trouble().is_some()
    }

    /// Sends the remaining entries, for at most five seconds, and stops. Blocks. The history must have stopped.
    pub fn stop(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        let mut told = self.shared.told.lock();
        told.stopping = true;
        self.shared.changed.notify_all();
        let until = Instant::now() + LAST;
        while !told.done {
            if self.shared.changed.wait_until(&mut told, until).timed_out() {
                tracing::warn!("the audit collector did not take everything: the rest is handed on after the next start");
                return;
            }
        }
        drop(told);
        let _ = thread.join();
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    reader: Reader,
    inbox: Inbox,
    ledger: Ledger,
    target: Target,
    cursor: PathBuf,
    // Index of the next entry.
    next: u64,
    mark: Option<Mark>,
    shared: Arc<Shared>,
}

/// A moment, to find out when all entries from before it were sent.
struct Mark {
    at: Instant,
    /// The journal's revision then.
    revision: u64,
    /// The index after the last entry, once the history held that revision. `None` before.
    end: Option<u64>,
}

impl Worker {
    fn run(mut self) {
        loop {
            // ORDER: before entries are read, so that all entries from before the stop are sent.
            let stopping = self.shared.told.lock().stopping;
            let begun = self.begin();
            let done = self.hand_on();
            self.tell(&done, begun);
            let pause = match done {
                Ok(true) => continue,
                Ok(false) => LOOK,
                Err(_) => AGAIN,
            };
            let mut told = self.shared.told.lock();
            if stopping {
                told.done = true;
                self.shared.changed.notify_all();
                return;
            }
            if !told.stopping {
                self.shared.changed.wait_for(&mut told, pause);
            }
        }
    }

    /// Sets a mark, or checks whether the history has reached the last one. Returns when the mark was set.
    fn begin(&mut self) -> Instant {
        let (ledger, inbox, reader) = (&self.ledger, &self.inbox, &self.reader);
        let mark = self.mark.get_or_insert_with(|| {
            let at = Instant::now();
            Mark { at, revision: ledger.read(|state| state.revision), end: None }
        });
        if mark.end.is_none() {
            if inbox.copied() >= mark.revision {
                mark.end = Some(reader.places().1);
            } else {
                // After a restart the history may be behind the journal, and an idle one would not catch up unless it is flushed.
                drop(inbox.flush());
            }
        }
        mark.at
    }

    /// Sends some entries. Returns whether there are more.
    fn hand_on(&mut self) -> Result<bool, String> {
        let (first, end) = self.reader.places();
        if first > self.next {
            metrics::counter!("mayfly_audit_entries_lost_total").increment(first - self.next);
            tracing::error!(entries = first - self.next, "the history dropped entries that the audit collector had not taken");
            self.next = first;
        }
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        metrics::gauge!("mayfly_audit_entries_behind").set(end.saturating_sub(self.next) as f64);
        if self.next >= end {
            // Opened even without an entry, so that a file that was renamed or a missing folder is noticed early.
            return self.target.open().map(|()| false);
        }
        let (mut lines, mut bytes, mut failed) = (Vec::new(), 0, None);
        let rules = self.ledger.rules();
        self.reader.each(Range { from: self.next, ..Range::default() }, |index, sealed| {
            match sealed.open() {
                Ok(entry) => {
                    let mut entry = message(entry);
                    if let Some(user) = &mut entry.user {
                        let of = User { iss: user.iss.clone(), sub: user.sub.clone() };
                        user.name = rules.user_name(&of);
                    }
                    let object = object(&entry).to_string();
                    bytes += object.len();
                    lines.push((index, object));
                }
                Err(e) => failed = Some(format!("entry {index} is damaged: {e}")),
            }
            if failed.is_some() || lines.len() == GROUP.0 || bytes >= GROUP.1 || index + 1 >= end {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let (taken, outcome) = self.target.write(&lines);
        if let Some((last, _)) = taken.checked_sub(1).and_then(|n| lines.get(n)) {
            self.next = last + 1;
            let text = format!("{}\n", self.next);
            write_private(&self.cursor, text.as_bytes()).map_err(|e| format!("`{}`: {e}", self.cursor.display()))?;
            metrics::counter!("mayfly_audit_entries_total").increment(u64::try_from(taken).unwrap_or(0));
        }
        // ORDER: after the entries before the damage were sent.
        outcome?;
        failed.map_or(Ok(self.next < end), Err)
    }

    /// Publishes the outcome, and logs when failures begin and end.
    fn tell(&mut self, done: &Result<bool, String>, begun: Instant) {
        let complete = done.is_ok() && self.mark.as_ref().is_some_and(|mark| mark.end.is_some_and(|end| self.next >= end));
        if complete {
            self.mark = None;
        }
        if done.is_err() {
            metrics::counter!("mayfly_audit_failures_total").increment(1);
        }
        let before = {
            let mut told = self.shared.told.lock();
            if complete {
                told.complete = begun;
            }
            std::mem::replace(&mut told.failure, done.as_ref().err().cloned())
        };
        match (before, done) {
            (None, Err(cause)) => {
                tracing::error!(%cause, "entries cannot be handed to the audit collector: they are kept and tried again");
            }
            (Some(_), Ok(_)) => tracing::info!("entries are handed to the audit collector again"),
            _ => {}
        }
    }
}
