//! The deadline of a client (`grpc-timeout`). When it passes, the work is dropped as if the client had hung up.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::denial::No;
use crate::doors::status;

/// The deadline. `None` if the client gave none; the listener's own limit applies in any case.
#[derive(Clone, Copy)]
pub(super) struct Until(Option<Instant>);

impl Until {
    /// Reads the deadline from the headers. A malformed or far too large value counts as none.
    pub(super) fn of(headers: &MetadataMap) -> Until {
        let timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(timeout);
        Until(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Waits for `work`, and drops it at the deadline. An act that is not in a commit by then is dropped with it.
    pub(super) async fn wait<T>(self, work: impl Future<Output = Result<T, No>>) -> Result<T, No> {
        match self.0 {
            None => work.await,
            Some(end) => tokio::time::timeout_at(end, work).await.unwrap_or_else(|_| Err(status::deadline().into())),
        }
    }
}

/// At most eight digits and a unit, as in the specification of gRPC over HTTP/2.
fn timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_at_most_eight_digits_and_a_unit() {
        for (value, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("300m", Some(Duration::from_millis(300))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("100000000S", None),
            ("-1S", None),
            ("+1S", None),
            ("1s", None),
            ("1 S", None),
            ("1é", None),
        ] {
            assert_eq!(timeout(value), expected, "{value}");
        }
    }
}
