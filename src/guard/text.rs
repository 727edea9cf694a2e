//! Percent encoding in both directions, and the format of times in answers.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A value for a header: visible ASCII stays, and all else is percent-encoded; so are `%` and `,`, because proxies join the values
/// of equal headers with commas.
pub(super) fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' && byte != b',' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

/// Undoes percent encoding; `+` stays, because base64 has it. `None` if it is malformed or not UTF-8.
pub(super) fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, left)) = rest.split_first() {
        rest = left;
        if *first == b'%' {
            let (digits, left) = rest.split_at_checked(2)?;
            bytes.extend(hex::decode(digits).ok()?);
            rest = left;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// RFC 3339 of unix seconds; empty if there is no such date.
pub(super) fn time(seconds: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(0));
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn t113_whatever_a_name_holds_is_one_visible_word_of_a_header(value in any::<String>()) {
            let word = encoded(&value);
            prop_assert!(word.bytes().all(|b| b.is_ascii_graphic() && b != b','));
            prop_assert_eq!(decoded(&word).unwrap(), value);
        }

        #[test]
        fn what_is_no_percent_encoding_is_refused_and_nothing_panics(value in any::<String>()) {
            let _ = decoded(&value);
        }
    }

    #[test]
    fn a_plus_is_a_plus() {
        assert_eq!(decoded("a+b%2Bc%0A").as_deref(), Some("a+b+c\n"));
        assert!([decoded("%"), decoded("%2"), decoded("%zz"), decoded("%ff")].iter().all(Option::is_none));
    }
}
