//! The watermark: the last head that this issuer has signed, kept outside the journal, so that an older copy of the journal is
//! noticed at the next start. It is written by a thread of its own; no commit waits for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use uuid::Uuid;

use super::Ledger;
use crate::clock::Clock;
use crate::process;

/// How often the head is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps the head somewhere outside the journal.
pub trait Watermark: Send {
    /// Writes the head of an incarnation, if it has moved or was written long ago. `now` is in Unix microseconds.
    fn write(&mut self, incarnation: Uuid, head: u64, now: u64);
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
        let (incarnation, head) = ledger.read(|state| (state.incarnation, state.revision));
        watermark.write(incarnation, head, clock.now());
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
