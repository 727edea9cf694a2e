//! The one clock: microseconds since 1970, real or set by a test.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

/// Tells the time. Everything that is not a door or `app` gets `now` as an argument instead.
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

    /// A clock that stands where the cell says, in microseconds.
    pub fn set(at: Arc<AtomicU64>) -> Clock {
        Clock(Source::Set(at))
    }

    /// Microseconds since 1970.
    pub fn now(&self) -> u64 {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
            }
            Source::Set(at) => at.load(Ordering::SeqCst),
        }
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> u64 {
        self.now() / SECOND
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

// TLS and minting share one clock.
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_micros(self.now())))
    }
}
