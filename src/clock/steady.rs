//! A steady time: it advances with the monotonic clock, and the machine's clock corrects it by a little at a time.
//!
//! The machine's clock and the monotonic clock have an offset. While it changes little, the machine's clock is trusted, and is
//! followed to the microsecond. A leap of the offset is not followed, however long it lasts; when the machine's clock is set right
//! again, it is followed again.

use super::SECOND;

/// The greatest correction of the machine's clock that is followed at once, in microseconds. What was issued under a clock that
/// was this far ahead can be used when the clock is right again, because certificates begin ten seconds early.
pub const LEAP: u64 = 5 * SECOND;

/// Besides [`LEAP`], the machine's clock may be adjusted by one part in so many of the time that has passed, which is faster than
/// any daemon slews a clock. Without this bound many small steps would add up to a large one.
const SLEW: i64 = 10;

/// The slew is not computed for shorter times, so that it is not rounded away.
const MOMENT: i64 = 1000;

/// What is known of the machine's clock. All fields are in microseconds.
#[derive(Debug)]
pub(super) struct Steady {
    // The trusted offset. It moves towards the last one that was followed, at a bounded speed.
    trusted: i64,
    // The last offset that was followed.
    followed: i64,
    // The monotonic clock when `trusted` was last adjusted.
    at: i64,
}

impl Steady {
    /// Both clocks, at a moment at which the machine's clock is right.
    pub(super) fn begin(wall: u64, monotonic: u64) -> Steady {
        let offset = signed(wall) - signed(monotonic);
        Steady { trusted: offset, followed: offset, at: signed(monotonic) }
    }

    /// The time, and by how much the machine's clock is ahead of it if it is not followed.
    pub(super) fn look(&mut self, wall: u64, monotonic: u64) -> (u64, i64) {
        let monotonic = signed(monotonic);
        let offset = signed(wall) - monotonic;
        if offset.abs_diff(self.trusted) > LEAP {
            let time = monotonic.saturating_add(self.followed);
            return (u64::try_from(time).unwrap_or(0), signed(wall) - time);
        }
        self.followed = offset;
        let passed = monotonic - self.at;
        if passed.unsigned_abs() >= MOMENT.unsigned_abs() {
            let most = passed.saturating_abs() / SLEW;
            self.trusted += (offset - self.trusted).clamp(-most, most);
            self.at = monotonic;
        }
        (wall, 0)
    }
}

/// Half the range is 292,000 years.
fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX / 2).min(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_800_000_000 * SECOND;
    const DAY: u64 = 24 * 3600 * SECOND;

    /// A machine that was started an hour ago.
    fn machine() -> (Steady, u64) {
        let monotonic = 3600 * SECOND;
        (Steady::begin(NOON, monotonic), monotonic)
    }

    #[test]
    fn t132_a_leap_of_the_clock_is_not_followed_and_heals_when_the_clock_is_set_right() {
        for leap in [30 * SECOND, 16 * 60 * SECOND, 3600 * SECOND, 3 * DAY, 400 * DAY] {
            let (mut steady, m) = machine();
            for passed in [0, SECOND, 7200 * SECOND] {
                let right = NOON + passed;
                assert_eq!(steady.look(right + leap, m + passed), (right, signed(leap)), "ahead by {leap}");
                assert_eq!(steady.look(right - leap, m + passed), (right, -signed(leap)), "behind by {leap}");
            }
            let later = 7201 * SECOND;
            assert_eq!(steady.look(NOON + later, m + later), (NOON + later, 0), "right again");
        }
    }

    #[test]
    fn small_corrections_are_followed_at_once_in_both_directions() {
        let (mut steady, m) = machine();
        assert_eq!(steady.look(NOON + LEAP, m), (NOON + LEAP, 0));
        assert_eq!(steady.look(NOON, m), (NOON, 0));
        assert_eq!(steady.look(NOON - LEAP, m), (NOON - LEAP, 0));
        assert_eq!(steady.look(NOON + SECOND, m + SECOND), (NOON + SECOND, 0));
    }

    #[test]
    fn a_leap_after_a_small_correction_goes_on_from_the_correction() {
        let (mut steady, m) = machine();
        assert_eq!(steady.look(NOON + 3 * SECOND, m), (NOON + 3 * SECOND, 0));
        assert_eq!(steady.look(NOON + DAY, m + SECOND).0, NOON + 4 * SECOND);
    }

    #[test]
    fn t132_many_small_steps_do_not_add_up_to_a_leap() {
        let (mut steady, m) = machine();
        let mut time = 0;
        // Three seconds ahead in each second that passes.
        for second in 1..=3600 {
            time = steady.look(NOON + 4 * second * SECOND, m + second * SECOND).0;
        }
        assert!(time <= NOON + 3600 * SECOND + LEAP + 360 * SECOND, "{}", (time - NOON) / SECOND);
        // Read a thousand times in each millisecond it is not followed further either.
        let (mut steady, m) = machine();
        for n in 1..=1_000_000 {
            time = steady.look(NOON + 4 * n, m + n).0;
        }
        assert!(time <= NOON + SECOND + 4 * SECOND);
    }

    #[test]
    fn a_machine_that_slept_has_not_leapt_and_a_slew_is_followed() {
        let (mut steady, m) = machine();
        assert_eq!(steady.look(NOON + 3 * DAY, m + 3 * DAY), (NOON + 3 * DAY, 0));
        // A slew of two percent for a day: half an hour.
        let (mut steady, m) = machine();
        for minute in 0..1440 {
            let passed = minute * 60 * SECOND;
            assert_eq!(steady.look(NOON + passed + passed / 50, m + passed), (NOON + passed + passed / 50, 0));
        }
    }
}
