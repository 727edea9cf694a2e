//! Whether our own certificate can be used now, which is known before any connection is made.

use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_verify::{about, rfc3339};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Clocks may differ by so many seconds before an error names the clock.
const TOLERANCE: u64 = 60;

/// From when and until when a certificate is valid, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second in which it is valid.
    pub begins_at: u64,
    /// The first second in which it is not valid any more.
    pub ends_at: u64,
}

/// Why a certificate cannot be used now. Times are in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTime {
    /// It has expired.
    #[error("expired {} ago, at {}", about(now.saturating_sub(*.ends_at)), rfc3339(*.ends_at))]
    Expired {
        /// When it expired.
        ends_at: u64,
        /// What this machine's clock says.
        now: u64,
    },
    /// It was made in the future, so this machine's clock is wrong.
    #[error(
        "is valid from {} on, and the clock of this machine says {}, {} earlier: set the clock",
        rfc3339(*.begins_at), rfc3339(*.now), about(begins_at.saturating_sub(*.now))
    )]
    ClockBehind {
        /// When it begins to be valid.
        begins_at: u64,
        /// What this machine's clock says.
        now: u64,
    },
}

impl Validity {
    /// Reads a certificate (DER). `None` if the bytes are not a certificate.
    pub fn of(certificate: &[u8]) -> Option<Validity> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let seconds = |at: x509_parser::time::ASN1Time| u64::try_from(at.timestamp()).unwrap_or(0);
        let validity = certificate.validity();
        // A certificate is valid through its last second (RFC 5280, 4.1.2.5); the issuer refuses it from that second on.
        Some(Validity { begins_at: seconds(validity.not_before), ends_at: seconds(validity.not_after) })
    }

    /// Whether it can be used at `now`, in Unix seconds.
    pub fn check(self, now: u64) -> Result<(), OutOfTime> {
        if now >= self.ends_at {
            Err(OutOfTime::Expired { ends_at: self.ends_at, now })
        } else if now.saturating_add(TOLERANCE) < self.begins_at {
            Err(OutOfTime::ClockBehind { begins_at: self.begins_at, now })
        } else {
            Ok(())
        }
    }

    /// When half of its life has passed, in Unix seconds: then it is renewed.
    pub fn half(self) -> u64 {
        self.begins_at + self.ends_at.saturating_sub(self.begins_at) / 2
    }
}

/// This machine's clock, in Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t152_who_is_out_of_time_is_told_since_when_or_that_the_clock_is_wrong() {
        let day = Validity { begins_at: 1_795_741_000, ends_at: 1_795_741_341 };
        let told = |now| day.check(now).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(
            (told(1_795_741_000), told(1_795_741_340), told(1_795_740_940)),
            (String::new(), String::new(), String::new())
        );
        assert_eq!(told(1_795_741_341), "expired 0 seconds ago, at 2026-11-27T01:02:21Z");
        assert_eq!(told(1_795_741_341 + 250), "expired 4 minutes ago, at 2026-11-27T01:02:21Z");
        let behind = told(1_795_741_000 - 7300);
        assert!(
            behind.contains("from 2026-11-27T00:56:40Z on") && behind.ends_with("2 hours earlier: set the clock"),
            "{behind}"
        );
        assert_eq!(day.half(), 1_795_741_170);
        assert!(Validity::of(b"no certificate").is_none());
    }
}
