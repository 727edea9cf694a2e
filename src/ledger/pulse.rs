//! Whether the ledger can record now, for heartbeats and readiness, which must not wait for the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Inner, Ledger};

/// A handle to this information. It does not keep the ledger alive.
#[derive(Clone, Debug, Default)]
pub struct Pulse(
    // Guards the activity of the writer. It is held for a copy only.
    Arc<Mutex<Doing>>,
);

/// The activity of the writer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doing {
    // When the append began that is under way.
    pub(super) appending: Option<Instant>,
    // Since when revocations could not be recorded.
    pub(super) refusing: Option<Instant>,
    // Whether there was no room for the last batch.
    pub(super) full: bool,
    pub(super) stopped: bool,
}

/// Why the ledger cannot record everything now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unable {
    /// It was stopped, or its journal failed.
    Stopped,
    /// An append has been under way for this long.
    Hangs(Duration),
    /// There is no room for anything.
    Full,
    /// There is room for revocations, ends and authorities only.
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

    /// Fails if the ledger cannot record now. An append that takes longer than `patience` counts as hanging. Never blocks.
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
