//! Rate-limited warnings: a warning whose cause persists is logged once in a while, with the number of those left out.

use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a warning is not repeated.
const QUIET: Duration = Duration::from_secs(10);

/// One warning. Make it a `static` next to the code that logs it.
pub struct Sparing {
    // Guards when the warning was last logged, and how many were left out since.
    said: Mutex<Option<(Instant, u64)>>,
}

impl Sparing {
    /// A warning that was not logged yet.
    pub const fn new() -> Sparing {
        Sparing { said: Mutex::new(None) }
    }

    /// Whether to log it at `now`. Returns the number of those that were left out since the last one, or `None` to leave this one
    /// out too.
    pub fn next(&self, now: Instant) -> Option<u64> {
        let mut said = self.said.lock();
        match &mut *said {
            Some((last, left_out)) if now.saturating_duration_since(*last) < QUIET => {
                *left_out = left_out.saturating_add(1);
                None
            }
            before => Some(before.replace((now, 0)).map_or(0, |(_, left_out)| left_out)),
        }
    }
}

impl Default for Sparing {
    fn default() -> Sparing {
        Sparing::new()
    }
}

/// Warns that a listener could not accept a connection, usually because the process has no file descriptors left. The listener tries
/// again many times a second.
pub fn cannot_accept(error: &io::Error) {
    static WARNING: Sparing = Sparing::new();
    if let Some(left_out) = WARNING.next(Instant::now()) {
        tracing::warn!(%error, left_out, "cannot accept a connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t216_a_repeated_warning_is_said_once_in_ten_seconds_with_the_number_left_out() {
        let (warning, start) = (Sparing::new(), Instant::now());
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        let said: Vec<_> = (0..250).filter_map(|n| Some((n, warning.next(at(n))?))).collect();
        assert_eq!(said, [(0, 0), (100, 99), (200, 99)]);
        assert_eq!(warning.next(at(5000)), Some(49), "none is lost from the count, however long nothing happens");
        assert_eq!(warning.next(at(4999)), None, "two threads may come in another order than their times");
    }
}
