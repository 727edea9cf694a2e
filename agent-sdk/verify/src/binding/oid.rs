//! The object identifier under which a credential carries its binding.

use std::fmt;
use std::str::FromStr;

/// The OID of the binding in a certificate, which also gives the name of the claim in a JWT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingOid(Vec<u64>);

impl BindingOid {
    /// The arcs.
    pub fn arcs(&self) -> &[u64] {
        &self.0
    }

    /// Name of the claim: `urn:oid:` and the OID.
    pub fn claim(&self) -> String {
        format!("urn:oid:{self}")
    }
}

impl Default for BindingOid {
    /// 1.3.6.1.4.1.32473.1, under the private enterprise number for documentation (RFC 5612).
    fn default() -> BindingOid {
        BindingOid(vec![1, 3, 6, 1, 4, 1, 32473, 1])
    }
}

impl fmt::Display for BindingOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arcs: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&arcs.join("."))
    }
}

impl FromStr for BindingOid {
    type Err = String;
    /// Reads dotted decimals. An arc over 31 bits is refused, because Go's parser would refuse the whole certificate.
    fn from_str(s: &str) -> Result<BindingOid, String> {
        let bad = || format!("`{s}` is no usable OID: write at least three dotted decimals, each below 2147483648");
        let arcs = s
            .split('.')
            .map(|arc| arc.parse::<u64>().ok().filter(|n| *n < 1 << 31 && n.to_string() == arc))
            .collect::<Option<Vec<u64>>>()
            .ok_or_else(bad)?;
        match arcs.as_slice() {
            [0 | 1, second, _, ..] if *second < 40 => Ok(BindingOid(arcs)),
            [2, _, _, ..] => Ok(BindingOid(arcs)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_oid_has_no_arc_over_31_bits() {
        assert!("2.25.340282366920938463463374607431768211455".parse::<BindingOid>().is_err());
        assert!("1.3.6.1.4.1.2147483648".parse::<BindingOid>().is_err());
        for bad in ["", "1", "1.3", "1.40.1", "3.1.1", "1.03.1", "1..3", "a.b.c"] {
            assert!(bad.parse::<BindingOid>().is_err(), "{bad}");
        }
        let oid: BindingOid = "1.3.6.1.4.1.32473.1".parse().unwrap();
        assert_eq!(oid, BindingOid::default());
        assert_eq!(oid.claim(), "urn:oid:1.3.6.1.4.1.32473.1");
    }
}
