//! The Subject of a certificate as DER (RFC 5280 4.1.2.4): a sequence of sets, each with one attribute.

use super::der::{self, SEQUENCE};
use crate::judge::{DistinguishedName, Encoding};

const SET: u8 = 0x31;

/// The DER of a name; an empty sequence for `None`.
pub(super) fn name(name: Option<&DistinguishedName>) -> Vec<u8> {
    let mut out = Vec::new();
    der::put(&mut out, SEQUENCE, |out| {
        for (attribute, value) in name.iter().flat_map(|name| name.attributes()) {
            let tag = match attribute.encoding {
                Encoding::Utf8 => 0x0c,
                Encoding::Printable => 0x13,
                Encoding::Ia5 => 0x16,
            };
            der::put(out, SET, |out| {
                der::put(out, SEQUENCE, |out| {
                    der::put_oid(out, attribute.oid);
                    der::put(out, tag, |out| out.extend_from_slice(value.as_bytes()));
                });
            });
        }
    });
    out
}
