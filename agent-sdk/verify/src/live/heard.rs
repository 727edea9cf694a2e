//! What a verifier heard last, and how old it is.
//!
//! Its age is the time since it arrived, by the verifier's own monotonic time, and how much later it arrived than others did, by the
//! issuer's time. Wall clocks need not agree to the second: where they do the delay of a heartbeat is known exactly, and where they
//! differ by up to [`CLOCKS`] it is compared with the shortest one that was seen. So a relay that delays everything from the first
//! heartbeat on can hide that much and no more.

use std::sync::Arc;
use std::time::Duration;

use crate::Staleness;
use crate::feed::Known;

/// How far the verifier's clock may be ahead of the issuer's, besides the bound on the age.
const CLOCKS: Duration = Duration::from_secs(30);
/// The issuer's time stands still for up to this long when its clock was a little ahead and is corrected; that is no delay where the
/// clocks agree.
const CORRECTION: Duration = Duration::from_secs(5);
/// Greatest lead of the issuer's clock over ours.
const LEAD: Duration = Duration::from_secs(120);
/// Two monotonic clocks differ by less than one part in so many.
const DRIFT: i64 = 1000;

/// The last knowledge, and when it arrived. Times without a name are microseconds.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) known: Arc<Known>,
    // By the verifier's monotonic time.
    at: Duration,
    // Arrival minus the issuer's time: the delay, plus a constant that is the same for all heartbeats.
    delay: i64,
    // The shortest delay so far, plus the same constant.
    shortest: i64,
}

impl Heard {
    /// Knowledge that arrives at `at`, in monotonic time, after what was heard `before`.
    pub(super) fn now(known: Arc<Known>, at: Duration, before: Option<&Heard>) -> Heard {
        let delay = micros(at).saturating_sub(i64::try_from(known.as_of).unwrap_or(i64::MAX / 2));
        // The issuer's time was brought back, or begins anew: earlier delays say nothing about later ones.
        let before = before.filter(|b| b.known.as_of <= known.as_of && b.known.cuts.incarnation == known.cuts.incarnation);
        let shortest = before.map_or(delay, |before| {
            let drift = micros(at.saturating_sub(before.at)) / DRIFT;
            before.shortest.saturating_add(drift).min(delay)
        });
        Heard { known, at, delay, shortest }
    }

    /// Refuses knowledge that is older than `bound`. `elapsed` is the monotonic time, and `now` the time since the Unix epoch.
    pub(super) fn aged(&self, bound: Duration, elapsed: Duration, now: Duration) -> Result<(), Staleness> {
        let silence = elapsed.saturating_sub(self.at);
        if silence > bound {
            return Err(Staleness::Old(silence));
        }
        let as_of = Duration::from_micros(self.known.as_of);
        let (age, ahead) = (now.saturating_sub(as_of), as_of.saturating_sub(now));
        let later = Duration::from_micros(u64::try_from(self.delay.saturating_sub(self.shortest)).unwrap_or(0));
        let late = silence.saturating_add(later);
        if age <= bound && ahead <= bound && late <= bound.saturating_add(CORRECTION) {
            Ok(())
        } else if late > bound {
            Err(Staleness::Old(late))
        } else if age > bound.saturating_add(CLOCKS) {
            Err(Staleness::Old(age))
        } else if ahead > LEAD {
            Err(Staleness::Future(ahead))
        } else {
            Ok(())
        }
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cuts;
    use uuid::Uuid;

    const BOUND: Duration = Duration::from_secs(5);
    /// The issuer's time at the verifier's monotonic zero.
    const START: u64 = 1_800_000_000;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn known(as_of: u64) -> Arc<Known> {
        Arc::new(Known { cuts: Cuts::new(Uuid::from_u128(1)), head: 1, as_of: as_of * 1_000_000, forgotten: 0, heartbeat: None })
    }

    /// Heartbeats that arrive at these seconds, each with the issuer's time.
    fn heard(beats: &[(u64, u64)]) -> Heard {
        let mut last: Option<Heard> = None;
        for (at, as_of) in beats {
            last = Some(Heard::now(known(START + as_of), secs(*at), last.as_ref()));
        }
        last.unwrap_or_else(|| Heard::now(known(START), secs(0), None))
    }

    #[test]
    fn t136_a_verifier_whose_clock_is_wrong_by_seconds_is_as_fresh_as_another() {
        let steady = heard(&[(0, 0), (1, 1), (2, 2)]);
        for wrong in [0, 6, 8, 30] {
            assert_eq!(steady.aged(BOUND, secs(2), secs(START + 2 + wrong)), Ok(()), "{wrong} ahead");
        }
        for wrong in [6, 100] {
            assert_eq!(steady.aged(BOUND, secs(2), secs(START + 2 - wrong)), Ok(()), "{wrong} behind");
        }
        assert_eq!(steady.aged(BOUND, secs(2), secs(START + 2 + 36)), Err(Staleness::Old(secs(36))));
        assert_eq!(steady.aged(BOUND, secs(2), secs(START + 2 - 121)), Err(Staleness::Future(secs(121))));
    }

    #[test]
    fn t136_silence_is_noticed_by_the_bound_whatever_the_clock_shows() {
        let steady = heard(&[(0, 0), (1, 1)]);
        for now in [START - 100, START - 6, START, START + 7, START + 30] {
            assert_eq!(steady.aged(BOUND, secs(6) + secs(1), secs(now)), Err(Staleness::Old(secs(6))), "{now}");
        }
    }

    #[test]
    fn t136_a_delay_is_noticed_by_the_bound_whatever_the_clock_shows() {
        // Heartbeats come each second, and are eleven seconds late from some moment on.
        let late = heard(&[(0, 0), (1, 1), (13, 2), (14, 3)]);
        for now in [START + 14, START + 14 + 6, START + 14 - 8, START + 14 - 60, START + 14 + 20] {
            assert!(matches!(late.aged(BOUND, secs(14), secs(now)), Err(Staleness::Old(_))), "{now}");
        }
        // In time again.
        assert_eq!(heard(&[(0, 0), (1, 1), (13, 2), (15, 15)]).aged(BOUND, secs(15), secs(START + 15 + 6)), Ok(()));
    }

    #[test]
    fn small_corrections_of_the_issuers_clock_make_nothing_stale() {
        // Five seconds ahead, and back: the issuer's time stands still until it is right.
        let stood = heard(&[(0, 0), (1, 6), (2, 6), (3, 6), (4, 6), (5, 6)]);
        assert_eq!(stood.aged(BOUND, secs(6), secs(START + 6)), Ok(()));
    }

    #[test]
    fn t135_after_a_repair_of_the_issuers_time_delays_are_measured_anew() {
        let repaired = heard(&[(0, 259_200), (1, 259_201), (20, 20)]);
        assert_eq!(repaired.aged(BOUND, secs(21), secs(START + 21 + 6)), Ok(()));
    }
}
