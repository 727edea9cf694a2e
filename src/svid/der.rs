//! The parts of DER (X.690) that our certificates need: values with tag and length, numbers, and times.

use time::OffsetDateTime;

use crate::denial::Fault;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET_OF_BITS: u8 = 0x03;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OID: u8 = 0x06;

/// Appends a value with its tag. `content` writes the value.
pub(super) fn put(out: &mut Vec<u8>, tag: u8, content: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    // Most values are short, so one byte is reserved for the length, and more are inserted if needed.
    out.push(0);
    let start = out.len();
    content(out);
    let length = out.len() - start;
    if length < 0x80 {
        if let Some(slot) = out.get_mut(start - 1) {
            *slot = u8::try_from(length).unwrap_or(0);
        }
        return;
    }
    let bytes = length.to_be_bytes();
    let used = bytes.iter().skip_while(|byte| **byte == 0).count();
    let first = 0x80 | u8::try_from(used).unwrap_or(0);
    let head = std::iter::once(first).chain(bytes.into_iter().skip(bytes.len() - used));
    out.splice(start - 1..start, head);
}

/// Appends a non-negative integer, given as big-endian bytes.
pub(super) fn put_integer(out: &mut Vec<u8>, bytes: &[u8]) {
    let significant = bytes.iter().position(|byte| *byte != 0).map_or(&[0][..], |from| bytes.get(from..).unwrap_or(&[0]));
    put(out, INTEGER, |out| {
        // A first bit that is set would make it negative.
        if significant.first().is_some_and(|first| *first > 0x7f) {
            out.push(0);
        }
        out.extend_from_slice(significant);
    });
}

/// Appends an object identifier.
pub(super) fn put_oid(out: &mut Vec<u8>, arcs: &[u64]) {
    put(out, OID, |out| {
        let [first, second, rest @ ..] = arcs else { return };
        for arc in std::iter::once(first * 40 + second).chain(rest.iter().copied()) {
            let groups = (u64::BITS - arc.max(1).leading_zeros()).div_ceil(7);
            for group in (0..groups).rev() {
                let more = if group > 0 { 0x80 } else { 0 };
                out.push(more | u8::try_from(arc >> (7 * group) & 0x7f).unwrap_or(0));
            }
        }
    });
}

/// Appends a time in Unix seconds: UTCTime before 2050, GeneralizedTime from then on (RFC 5280 4.1.2.5).
pub(super) fn put_time(out: &mut Vec<u8>, seconds: u64) -> Result<(), Fault> {
    let at = time_of(seconds)?;
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    let (tag, text) = match year {
        1950..2050 => (0x17, format!("{:02}{rest}", year % 100)),
        _ => (0x18, format!("{year:04}{rest}")),
    };
    put(out, tag, |out| out.extend_from_slice(text.as_bytes()));
    Ok(())
}

/// Appends an ECDSA signature as X.509 has it: a sequence of `r` and `s` (RFC 3279 2.2.3).
pub(crate) fn put_signature(out: &mut Vec<u8>, signature: &[u8; 64]) {
    let (r, s) = signature.split_at(32);
    put(out, SEQUENCE, |out| {
        put_integer(out, r);
        put_integer(out, s);
    });
}

/// A time in Unix seconds.
pub(crate) fn time_of(seconds: u64) -> Result<OffsetDateTime, Fault> {
    let signed = i64::try_from(seconds).map_err(|e| Fault::new("svid", e))?;
    OffsetDateTime::from_unix_timestamp(signed).map_err(|e| Fault::new("svid", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    proptest! {
        /// Another parser reads back the same lengths, numbers and identifiers.
        #[test]
        fn what_is_written_is_what_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..70_000), arc in 0u64..(1 << 31)) {
            use x509_parser::der_parser::der::{parse_der_integer, parse_der_octetstring, parse_der_oid};
            let octets = written(|out| put(out, OCTETS, |out| out.extend_from_slice(&bytes)));
            let (left, read) = parse_der_octetstring(&octets).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(left.is_empty());
            prop_assert_eq!(read.as_slice().map_err(|e| TestCaseError::fail(e.to_string()))?, &bytes[..]);
            let number: Vec<u8> = bytes.iter().copied().take(32).collect();
            let integer = written(|out| put_integer(out, &number));
            let (left, read) = parse_der_integer(&integer).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(left.is_empty());
            let value: Vec<u8> = read.as_slice().map_err(|e| TestCaseError::fail(e.to_string()))?.to_vec();
            let trim = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
            prop_assert_eq!(trim(&value), trim(&number));
            prop_assert!(value.first().is_none_or(|first| *first < 0x80));
            let arcs = [1, 3, 6, 1, arc];
            let oid = written(|out| put_oid(out, &arcs));
            let (_, read) = parse_der_oid(&oid).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let read = read.as_oid_val().map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(read.iter().is_some_and(|found| found.eq(arcs)));
        }
    }
}
