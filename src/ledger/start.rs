//! Checks the machine's clock at a start. Order comes from revisions, but expiry from times: under a wrong clock a start would
//! expire everything, or issue credentials that cannot be used yet.

use std::time::Duration;

use super::OpenError;
use crate::clock::{LEAP, SECOND};
use crate::journal::record::{Record, Resumed, record::Body};
use crate::journal::{AppendError, Journal};
use crate::state::State;

/// How far the clock may be behind the last known time, in microseconds. Credentials that are issued then can still be used at
/// once.
pub const BEHIND: u64 = 2 * LEAP;

/// No issuer of this version has run before this time (1 January 2026), in Unix microseconds.
const EARLIEST: u64 = 1_767_225_600 * SECOND;

/// Why a clock is not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// It shows a time before this version was made.
    #[error("the machine's clock shows a time before 2026: set it right")]
    Unset,
    /// It is behind the last record, or behind the time in the watermark.
    #[error(
        "the machine's clock is {} behind the journal. If the clock is wrong, set it right. If it is right, the clock was ahead \
         earlier: `mayfly journal repair-time` brings the journal's time back, and what lives by its certificates lives on",
        told(.0)
    )]
    Behind(u64),
    /// It is further ahead of the last known time than the configured longest downtime.
    #[error(
        "the machine's clock is {} ahead of the last time that this issuer knew, and it may be stopped for {} \
         (`journal.max_downtime`). If the clock is wrong, set it right: a start would end every agent and forget what was revoked. If \
         it is right, start once with --accept-clock",
        told(.0),
        told(.1)
    )]
    Ahead(u64, u64),
}

/// Checks the clock of a start. `last` is the last known time and `now` that of the clock, both in Unix microseconds; `last` is 0
/// at a first start.
pub fn check(last: u64, now: u64, max_downtime: Duration) -> Result<(), ClockError> {
    let most = u64::try_from(max_downtime.as_micros()).unwrap_or(u64::MAX);
    if now < EARLIEST {
        Err(ClockError::Unset)
    } else if now.saturating_add(BEHIND) < last {
        Err(ClockError::Behind(last - now))
    } else if last > 0 && now - last.min(now) > most {
        Err(ClockError::Ahead(now - last, most))
    } else {
        Ok(())
    }
}

/// Records that the issuer was away until now, so that nothing is dropped from the journal before its clock has proved right.
/// `last` is the last known time, and `now` that of the clock, both in Unix microseconds.
pub fn resume(journal: &mut dyn Journal, state: &mut State, last: u64, now: u64) -> Result<(), OpenError> {
    if state.revision == 0 || now <= last.saturating_add(BEHIND) {
        return Ok(());
    }
    let record = Record { at: now, operator: String::new(), body: Some(Body::Resumed(Resumed { last })) };
    journal.may_use_reserve(true);
    let appended = journal.append(state.revision + 1, &[prost::Message::encode_to_vec(&record)], &[]);
    journal.may_use_reserve(false);
    match appended {
        Ok(()) => state.apply(state.revision + 1, &record).map_err(|e| OpenError::Replay(e.to_string())),
        // An issuer without room still serves its feed, so it starts. Its rows are kept all the same.
        Err(AppendError::Full(cause)) => {
            tracing::error!(%cause, "the journal has no room");
            state.keep_rows(now, last);
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}

/// A time in microseconds, for people.
fn told(micros: &u64) -> String {
    let seconds = micros / SECOND;
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7200.. => format!("{} hours", seconds / 3600),
        120.. => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t133_a_start_believes_a_clock_that_downtime_explains_and_no_other() {
        let (now, day, week) = (1_800_000_000 * SECOND, 86_400 * SECOND, Duration::from_secs(7 * 86_400));
        let ahead_by = |by: u64| check(now, now + by, week);
        for by in [0, 5 * SECOND, 30 * SECOND, 16 * 60 * SECOND, 3600 * SECOND, 3 * day, 7 * day] {
            assert_eq!(ahead_by(by), Ok(()), "downtime of {by}");
        }
        assert_eq!(ahead_by(40 * day), Err(ClockError::Ahead(40 * day, 7 * day)));
        assert_eq!(ahead_by(400 * day), Err(ClockError::Ahead(400 * day, 7 * day)));
        assert_eq!(check(now, now + 400 * day, Duration::MAX), Ok(()), "an operator has accepted it");
        let behind_by = |by: u64| check(now, now - by, week);
        for by in [SECOND, 5 * SECOND, BEHIND] {
            assert_eq!(behind_by(by), Ok(()));
        }
        for by in [30 * SECOND, 16 * 60 * SECOND, 3600 * SECOND, 3 * day, 300 * day] {
            assert_eq!(behind_by(by), Err(ClockError::Behind(by)));
        }
        assert_eq!(check(0, now, week), Ok(()), "a first start");
        assert_eq!(check(0, 0, week), Err(ClockError::Unset), "a machine without a battery");
        let text = ClockError::Ahead(40 * day, 7 * day).to_string();
        assert!(text.contains("40 days ahead") && text.contains("7 days") && text.contains("--accept-clock"), "{text}");
    }
}
