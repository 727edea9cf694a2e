//! Whether the ledger can record now, for those who must not wait for it: heartbeats and readiness.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Inner, Ledger};

/// The pulse of a ledger. It keeps nothing of the ledger alive.
#[derive(Clone, Debug, Default)]
pub struct Pulse(
    // Guards what the writer is doing. Nobody holds it for longer than a copy takes.
    Arc<Mutex<Doing>>,
);

/// What the writer is doing and could do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doing {
    // When the append began that has not returned yet.
    pub(super) appending: Option<Instant>,
    // Since when revocations could not be recorded.
    pub(super) refusing: Option<Instant>,
    // There was no room for the last batch.
    pub(super) full: bool,
    pub(super) stopped: bool,
}

/// Why the ledger does not record everything that it is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unable {
    /// It was stopped, or its journal failed.
    Stopped,
    /// An append has not returned for so long.
    Hangs(Duration),
    /// There is no room for anything.
    Full,
    /// There is room for revocations, ends and authorities alone.
    Reserved,
}

impl Pulse {
    /// How long ago the ledger could record a revocation for certain: zero, or the time since an append began that has not returned, or
    /// since a revocation found no room. Never blocks.
    pub fn held(&self) -> Duration {
        let pulse = *self.0.lock();
        let since = [pulse.appending, pulse.refusing].into_iter().flatten().min();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Ledger {
    /// Its pulse.
    pub fn pulse(&self) -> &Pulse {
        &self.0.pulse
    }

    /// Whether the ledger records what it is asked to; an append that takes longer than `patience` hangs. Never blocks.
    pub fn able(&self, patience: Duration) -> Result<(), Unable> {
        let pulse = *self.0.pulse.0.lock();
        let hangs = pulse.appending.map(|since| since.elapsed()).filter(|time| *time > patience);
        match (pulse.stopped, hangs) {
            (true, _) => Err(Unable::Stopped),
            (_, Some(time)) => Err(Unable::Hangs(time)),
            _ if pulse.refusing.is_some() => Err(Unable::Full),
            _ if pulse.full => Err(Unable::Reserved),
            _ => Ok(()),
        }
    }

    /// Groups that wait for the writer. Never blocks for long.
    pub fn waiting(&self) -> usize {
        self.0.waiting.lock().len()
    }
}

impl Inner {
    pub(super) fn pulse(&self, change: impl FnOnce(&mut Doing)) {
        change(&mut self.pulse.0.lock());
    }
}
