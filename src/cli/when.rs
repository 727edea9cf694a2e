//! A time as people write it: RFC 3339, or how long ago.

use std::str::FromStr;
use std::time::Duration;

use prost_types::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::Clock;

/// A moment, in Unix seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When(i64, i32);

impl When {
    pub(super) fn timestamp(self) -> Timestamp {
        Timestamp { seconds: self.0, nanos: self.1 }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        parse(text, OffsetDateTime::now_utc())
    }
}

/// Waits until this second (Unix) has passed.
pub(super) async fn second_after(second: i64) {
    let clock = Clock::system();
    while i64::try_from(clock.seconds()).unwrap_or(i64::MAX) <= second {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn parse(text: &str, now: OffsetDateTime) -> Result<When, String> {
    let moment = |at: OffsetDateTime| {
        let nanos = i32::try_from(at.nanosecond()).unwrap_or(0);
        if at.unix_timestamp() > 0 { Ok(When(at.unix_timestamp(), nanos)) } else { Err("write a time after 1970".to_owned()) }
    };
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return moment(at);
    }
    let malformed =
        || format!("`{text}`: write a time such as 2026-11-27T11:00:00Z, or how long ago, such as 90s, 15m, 8h or 30d");
    let unit = text.chars().last().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    });
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<u32>().ok());
    let (unit, number) = unit.zip(number).ok_or_else(malformed)?;
    let ago = time::Duration::seconds(i64::from(number).saturating_mul(unit));
    now.checked_sub(ago).map_or_else(|| Err(malformed()), moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_how_long_ago() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let seconds = |text| parse(text, now).map(|when| when.0);
        assert_eq!(seconds("1h"), Ok(1_800_000_000 - 3600));
        assert_eq!(seconds("30d"), Ok(1_800_000_000 - 30 * 86_400));
        assert_eq!(seconds("2027-01-15T08:00:00Z"), Ok(1_800_000_000));
        assert_eq!(parse("2027-01-15T08:00:00.25Z", now), Ok(When(1_800_000_000, 250_000_000)));
        for bad in ["", "h", "1", "-1h", "1w", "yesterday", "1969-01-01T00:00:00Z", "999999999d", "é"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }
}
