//! The watermark: the last head that this issuer has signed, kept outside the journal, so that an older copy of the journal is
//! noticed at the next start. A thread of its own writes it, so no commit waits for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use uuid::Uuid;

use super::Ledger;
use crate::clock::Clock;
use crate::denial::Fault;
use crate::journal::chain::Digest;
use crate::process;

/// How often the head is read.
const EVERY: Duration = Duration::from_secs(1);

/// The head of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The incarnation of the journal.
    pub incarnation: Uuid,
    /// Its last revision.
    pub revision: u64,
    /// The digest of the chain at that revision, if the journal keeps one.
    pub chain: Option<Digest>,
}

impl Ledger {
    /// The head of what is durable. Blocks while something is committed.
    pub fn head(&self) -> Head {
        // ORDER: the writer is held while the state is read, so that both are of one moment.
        let writer = self.0.writer.lock();
        let (incarnation, revision) = self.read(|state| (state.incarnation, state.revision));
        let chain = writer.head().filter(|(at, _)| *at == revision).map(|(_, chain)| chain);
        Head { incarnation, revision, chain }
    }
}

impl Ledger {
    /// Whether the journal continues from this earlier head. `false` if its last revision is lower, or if its records up to there
    /// differ; `true` also if that is no longer known, because the records were dropped. Blocks while something is committed.
    pub fn contains(&self, head: Head) -> Result<bool, Fault> {
        let writer = self.0.writer.lock();
        let (incarnation, revision) = self.read(|state| (state.incarnation, state.revision));
        if incarnation != head.incarnation || revision < head.revision {
            return Ok(incarnation != head.incarnation);
        }
        let is = writer.chain_at(head.revision).map_err(|e| Fault::new("read the journal", e))?;
        Ok(is.zip(head.chain).is_none_or(|(is, told)| is == told))
    }
}

/// Keeps the head somewhere outside the journal.
pub trait Watermark: Send {
    /// Writes the head of an incarnation, if it has moved or was written long ago. `now` is in Unix microseconds.
    fn write(&mut self, head: Head, now: u64);
}

/// The thread that writes the watermark. Dropping it lets the thread write the last head and end.
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes the watermark now, then about once a second, and when the keeper is dropped.
pub fn keep(ledger: Ledger, mut watermark: Box<dyn Watermark>, clock: Clock) -> Result<Keeper, String> {
    let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
    let mut write = move || {
        ledger.tend();
        watermark.write(ledger.head(), clock.now());
    };
    write();
    let thread = process::thread("mayfly-watermark", move || {
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            write();
        }
        write();
    });
    Ok(Keeper { stop: Some(stop), thread: Some(thread.map_err(|e| e.to_string())?) })
}
