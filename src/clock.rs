//! The one clock, in Unix microseconds. It is the machine's clock, or one that a test sets.
//!
//! An issuer uses a [steady](Clock::steady) one: its time advances with the monotonic clock, and follows small corrections of the
//! machine's clock but no leaps.

mod steady;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use steady::LEAP;
use steady::Steady;

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

/// RFC 3339 of Unix seconds; empty if there is no such date.
pub fn rfc3339(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// The clock. Doors, acts, and the threads of the ledger and the feed read it; whatever judges, applies or signs gets `now` as an
/// argument.
#[derive(Clone)]
pub struct Clock {
    source: Source,
    // Guards the state of the steady clock; held for one reading. `None` means that the machine's clock is used as it is.
    steady: Option<Arc<Mutex<Steady>>>,
}

#[derive(Clone)]
enum Source {
    System,
    Set(Arc<AtomicU64>),
    Machine { wall: Arc<AtomicU64>, monotonic: Arc<AtomicU64> },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock { source: Source::System, steady: None }
    }

    /// A clock whose time is the value of the cell, in Unix microseconds. Its monotonic time is the same cell: every change of the
    /// cell is time that has passed.
    pub fn set(at: Arc<AtomicU64>) -> Clock {
        Clock { source: Source::Set(at), steady: None }
    }

    /// A machine whose clock shows `wall` (Unix microseconds) while `monotonic` (microseconds) is the time that really passes.
    pub fn machine(wall: Arc<AtomicU64>, monotonic: Arc<AtomicU64>) -> Clock {
        Clock { source: Source::Machine { wall, monotonic }, steady: None }
    }

    /// This clock as an issuer uses it: its current time is taken as right, and from now on a leap of the machine's clock of more
    /// than [`LEAP`] is not followed. Clones share one state.
    pub fn steady(&self) -> Clock {
        let (wall, monotonic) = self.source.read();
        Clock { source: self.source.clone(), steady: Some(Arc::new(Mutex::new(Steady::begin(wall, monotonic)))) }
    }

    /// The time in Unix microseconds. It is 0 if the machine's clock is before 1970.
    pub fn now(&self) -> u64 {
        self.look().0
    }

    /// By how many microseconds the machine's clock is ahead of this one (below 0: behind it), because it leapt and is not followed.
    /// It is 0 while the machine's clock is followed.
    pub fn lead(&self) -> i64 {
        self.look().1
    }

    /// The time in Unix seconds, rounded down.
    pub fn seconds(&self) -> u64 {
        self.now() / SECOND
    }

    fn look(&self) -> (u64, i64) {
        let Some(steady) = &self.steady else { return (self.source.read().0, 0) };
        let mut steady = steady.lock();
        // ORDER: read under the lock, so that readings come in the order in which they were taken.
        let (wall, monotonic) = self.source.read();
        steady.look(wall, monotonic)
    }
}

impl Source {
    /// The machine's clock in Unix microseconds, and microseconds of time that has passed since some point, sleep of the machine
    /// included.
    fn read(&self) -> (u64, u64) {
        match self {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                (u64::try_from(since.as_micros()).unwrap_or(u64::MAX), passed())
            }
            Source::Set(at) => {
                let at = at.load(Ordering::SeqCst);
                (at, at)
            }
            Source::Machine { wall, monotonic } => (wall.load(Ordering::SeqCst), monotonic.load(Ordering::SeqCst)),
        }
    }
}

/// Microseconds since the machine was started, with the time that it slept: so a machine that wakes up has not made a leap.
#[cfg(target_os = "linux")]
fn passed() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(SECOND).saturating_add(u64::try_from(now.tv_nsec / 1000).unwrap_or(0))
}

/// Microseconds since the first call. Whether a sleep of the machine counts depends on the system; where it does not, an issuer
/// reports after a sleep that the clock is ahead, and has to be restarted.
#[cfg(not(target_os = "linux"))]
fn passed() -> u64 {
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    u64::try_from(BEGAN.get_or_init(std::time::Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
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
