//! A length of time as the configuration writes it: `90s`, `15m`, `8h`, `2d`. A number alone is seconds.

use std::str::FromStr;

/// A length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Length(u64);

impl Length {
    /// In seconds.
    pub(super) fn seconds(self) -> u64 {
        self.0
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
        for bad in ["", "h", "-1h", "+1h", "1.5h", "8 h", "8H", "1w", "1h30m", "99999999999999999999", "9999999999999999d"] {
            assert!(of(bad).is_err_and(|e| e.contains("8h")), "{bad}");
        }
    }
}
