//! A length of time as the configuration writes it: `90s`, `15m`, `8h`, `2d`. A number alone is seconds.

use std::fmt;
use std::str::FromStr;

/// A length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Length(u64);

impl Length {
    /// A length of so many seconds.
    pub(super) fn of(seconds: u64) -> Length {
        Length(seconds)
    }

    /// About how long it is, in the largest unit that is in it: `14m` for 14 minutes and 50 seconds.
    pub(super) fn rough(self) -> String {
        let fits = [(86_400, 'd'), (3600, 'h'), (60, 'm')].into_iter().find(|(unit, _)| self.0 >= *unit);
        fits.map_or_else(|| format!("{}s", self.0), |(unit, name)| format!("{}{name}", self.0 / unit))
    }

    /// In seconds.
    pub(super) fn seconds(self) -> u64 {
        self.0
    }
}

/// In the largest unit of which it is a multiple, as it is read.
impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits =
            [(86_400, 'd'), (3600, 'h'), (60, 'm')].into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        let (unit, name) = fits.unwrap_or((1, 's'));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Length, String> {
        let malformed = || format!("`{text}`: write a duration such as `90s`, `15m`, `8h` or `2d`");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match text.get(digits.len()..) {
            Some("" | "s") => 1,
            Some("m") => 60,
            Some("h") => 3600,
            Some("d") => 86_400,
            _ => return Err(malformed()),
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Length).ok_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_number_with_a_unit_or_of_seconds() {
        let of = |text: &str| text.parse::<Length>().map(Length::seconds);
        assert_eq!([of("0"), of("90"), of("90s"), of("15m"), of("8h"), of("2d")], [0, 90, 90, 900, 28_800, 172_800].map(Ok));
        for text in ["0s", "59s", "15m", "90m", "8h", "2d", "100s"] {
            assert_eq!(text.parse::<Length>().map(|length| length.to_string()), Ok(text.to_owned()));
        }
        assert_eq!([0, 59, 890, 7300, 200_000].map(|seconds| Length::of(seconds).rough()), ["0s", "59s", "14m", "2h", "2d"]);
        for bad in ["", "h", "-1h", "+1h", "1.5h", "8 h", "8H", "1w", "1h30m", "99999999999999999999", "9999999999999999d"] {
            assert!(of(bad).is_err_and(|e| e.contains("8h")), "{bad}");
        }
    }
}
