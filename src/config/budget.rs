//! `budget` of a class: what each of its agents may spend.

use super::reader::Reader;
use crate::judge::budget::Budget;

/// Largest budget of one unit.
const MOST: u64 = 1 << 53;
/// Millionths of a dollar in a dollar.
const DOLLAR: u64 = 1_000_000;

/// Reads the budget of a class. A unit that is left out is not limited.
pub(super) fn read_budget(c: &mut Reader) -> Budget {
    let mut b = c.section("budget");
    let mut amount = |key: &str| b.has(key).then(|| b.integer(key, 0, 0, MOST));
    let (ops, tokens) = (amount("ops"), amount("tokens"));
    let usd = b.optional("usd", dollars);
    c.close(b);
    Budget([ops, tokens, usd])
}

/// Converts dollars as text, such as `12.50`, to millionths. A TOML number is not accepted, because it would be a binary fraction.
pub(crate) fn dollars(text: &str) -> Result<u64, String> {
    let wrong = || "write dollars with at most six digits behind the point, such as \"12.50\"".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 6 {
        return Err(wrong());
    }
    let (whole, part) = (whole.parse::<u64>().map_err(|_| wrong())?, format!("{part:0<6}").parse::<u64>().map_err(|_| wrong())?);
    whole.checked_mul(DOLLAR).and_then(|all| all.checked_add(part)).filter(|all| *all <= MOST).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact() {
        for (text, millionths) in [("0", 0), ("1", 1_000_000), ("12.50", 12_500_000), ("0.000001", 1), ("0.1", 100_000)] {
            assert_eq!(dollars(text), Ok(millionths), "{text}");
        }
        for wrong in ["", ".5", "1.", "-1", "1e3", "0.0000001", "1,5", "99999999999", "1.2.3", " 1"] {
            assert!(dollars(wrong).is_err(), "{wrong}");
        }
    }
}
