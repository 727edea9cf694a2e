//! The one clock, in Unix microseconds. It is the machine's clock, or one that a test sets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

/// The clock. Doors, acts, and the threads of the ledger and the feed read it; whatever judges, applies or signs gets `now` as an
/// argument.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Set(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock whose time is the value of the cell, in Unix microseconds.
    pub fn set(at: Arc<AtomicU64>) -> Clock {
        Clock(Source::Set(at))
    }

    /// The time in Unix microseconds. It is 0 if the machine's clock is before 1970.
    pub fn now(&self) -> u64 {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
            }
            Source::Set(at) => at.load(Ordering::SeqCst),
        }
    }

    /// The time in Unix seconds, rounded down.
    pub fn seconds(&self) -> u64 {
        self.now() / SECOND
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

// With this, TLS and the issuing of credentials share one clock.
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_micros(self.now())))
    }
}
