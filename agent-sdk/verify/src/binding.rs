//! The binding: whom an agent acts for, who spawned it, what it may do. One structure, two encodings.

use std::fmt;
use std::str::FromStr;

use der::asn1::OctetString;
use der::{Decode, Encode, Sequence};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::subject::{Stamp, Subject};
use crate::{AgentId, DelegationId, MAX_SPIFFE_ID, Mode, User, parse_spiffe_id};

/// Longest DER encoding, in bytes.
pub const MAX_DER: usize = 2048;
/// Longest JSON encoding, in bytes.
pub const MAX_CLAIM: usize = 4096;
/// Deepest lineage a binding can tell.
pub const MAX_CHAIN: usize = 17;
const VERSION: u8 = 1;

#[doc = include_str!("../binding.md")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which life of the journal the revisions belong to.
    pub incarnation: Uuid,
    /// The record that allowed this credential.
    pub revision: u64,
    /// What it relies on, since when.
    pub stamps: Vec<Stamp>,
    /// The delegation; none for an autonomous agent.
    pub delegation: Option<DelegationId>,
    /// The user; none for an autonomous agent.
    pub user: Option<User>,
    /// SPIFFE IDs from the parent up to the root workload; at least one.
    pub chain: Vec<String>,
    /// By which right the agent exists.
    pub mode: Mode,
    /// What it may do; sorted, none twice.
    pub scopes: Vec<String>,
    /// Unix seconds at which its lease ends.
    pub lease_expires_at: u64,
}

/// Why a binding is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// The bytes are not a binding of version 1.
    #[error("the binding is malformed: {0}")]
    Malformed(String),
    /// It parses, and contradicts itself.
    #[error("the binding contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// Longer than [`MAX_DER`] or [`MAX_CLAIM`].
    #[error("the binding has {0} bytes, and {1} are allowed: ask for fewer scopes or a flatter tree")]
    TooLarge(usize, usize),
}

impl Binding {
    /// SPIFFE ID of who spawned the agent.
    pub fn parent_id(&self) -> &str {
        self.chain.first().map_or("", String::as_str)
    }

    /// SPIFFE ID of the workload at the top.
    pub fn root_id(&self) -> &str {
        self.chain.last().map_or("", String::as_str)
    }

    /// Levels below the root workload; 1 directly below it.
    pub fn depth(&self) -> usize {
        self.chain.len()
    }

    /// The rules that hold between the fields.
    pub fn check(&self) -> Result<(), BindingError> {
        let bad = |what| Err(BindingError::Inconsistent(what));
        if self.chain.is_empty() || self.chain.len() > MAX_CHAIN {
            return bad("the chain must hold 1 to 17 ids");
        }
        if self.chain.iter().any(|id| parse_spiffe_id(id).is_err()) {
            return bad("the chain holds something that is no SPIFFE ID");
        }
        // Everything between the agent and its root workload is an agent.
        let (root, between) = self.chain.split_last().map_or(("", &[][..]), |(root, rest)| (root.as_str(), rest));
        if between.iter().any(|id| AgentId::parse(id).is_err()) || AgentId::parse(root).is_ok() {
            return bad("the chain must be agents below one workload");
        }
        let delegated = self.mode == Mode::Delegated;
        if self.user.is_some() != delegated || self.delegation.is_some() != delegated {
            return bad("a delegated agent has a user and a delegation, an autonomous one has neither");
        }
        if self.user.as_ref().is_some_and(|u| u.iss.is_empty() || u.sub.is_empty()) {
            return bad("the user lacks an issuer or a subject");
        }
        if self.stamps.is_empty() {
            return bad("there are no stamps");
        }
        if self.stamps.iter().any(|s| s.since > self.revision) {
            return bad("a stamp is younger than the credential");
        }
        if self.stamps.iter().zip(1..).any(|(stamp, rest)| self.stamps.iter().skip(rest).any(|s| s.subject == stamp.subject)) {
            return bad("two stamps have one subject");
        }
        if !self.scopes.is_sorted_by(|a, b| a < b) {
            return bad("scopes must be sorted, none twice");
        }
        if self.chain.iter().map(String::len).max().unwrap_or(0) > MAX_SPIFFE_ID {
            return bad("an id of the chain is too long");
        }
        Ok(())
    }

    /// Whether both encodings stay within their bounds; encodes only where that is not plain from the lengths.
    pub fn check_size(&self) -> Result<(), BindingError> {
        // JSON may write a byte of a user's name as six; ids and scopes hold nothing that is escaped.
        let user = self.user.as_ref().map_or(0, |u| 6 * (u.iss.len() + u.sub.len()));
        let listed: usize = self.chain.iter().chain(&self.scopes).map(|s| s.len() + 4).sum();
        if 512 + user + listed + 80 * self.stamps.len() <= MAX_DER {
            return self.check();
        }
        self.to_der()?;
        self.to_claim_text()?;
        Ok(())
    }

    /// The value of the X.509 extension.
    pub fn to_der(&self) -> Result<Vec<u8>, BindingError> {
        self.check()?;
        let malformed = |e: der::Error| BindingError::Malformed(e.to_string());
        let wire = WireBinding {
            version: VERSION,
            incarnation: OctetString::new(*self.incarnation.as_bytes()).map_err(malformed)?,
            revision: self.revision,
            stamps: self
                .stamps
                .iter()
                .map(|s| Ok(WireStamp { subject: OctetString::new(s.subject.0).map_err(malformed)?, since: s.since }))
                .collect::<Result<_, BindingError>>()?,
            delegation: self.delegation.map(|d| OctetString::new(d.0)).transpose().map_err(malformed)?,
            user: self.user.as_ref().map(|u| WireUser { iss: u.iss.clone(), sub: u.sub.clone() }),
            chain: self.chain.clone(),
            autonomous: self.mode == Mode::Autonomous,
            scopes: self.scopes.clone(),
            lease_expires_at: self.lease_expires_at,
        };
        let der = wire.to_der().map_err(malformed)?;
        if der.len() > MAX_DER { Err(BindingError::TooLarge(der.len(), MAX_DER)) } else { Ok(der) }
    }

    /// Reads the value of the X.509 extension; only the one DER encoding of a binding is accepted.
    pub fn from_der(bytes: &[u8]) -> Result<Binding, BindingError> {
        if bytes.len() > MAX_DER {
            return Err(BindingError::TooLarge(bytes.len(), MAX_DER));
        }
        let wire = WireBinding::from_der(bytes).map_err(|e| BindingError::Malformed(e.to_string()))?;
        if wire.version != VERSION {
            return Err(BindingError::Malformed(format!("version {} is unknown", wire.version)));
        }
        let binding = Binding {
            incarnation: Uuid::from_bytes(fixed(&wire.incarnation)?),
            revision: wire.revision,
            stamps: wire
                .stamps
                .iter()
                .map(|s| Ok(Stamp { subject: Subject(fixed(&s.subject)?), since: s.since }))
                .collect::<Result<_, BindingError>>()?,
            delegation: wire.delegation.as_ref().map(fixed).transpose()?.map(DelegationId),
            user: wire.user.map(|u| User { iss: u.iss, sub: u.sub }),
            chain: wire.chain,
            mode: if wire.autonomous { Mode::Autonomous } else { Mode::Delegated },
            scopes: wire.scopes,
            lease_expires_at: wire.lease_expires_at,
        };
        binding.check()?;
        Ok(binding)
    }

    /// The value of the JWT claim.
    pub fn to_claim(&self) -> Result<serde_json::Value, BindingError> {
        serde_json::from_str(&self.to_claim_text()?).map_err(|e| BindingError::Malformed(e.to_string()))
    }

    /// The same as JSON text.
    pub fn to_claim_text(&self) -> Result<String, BindingError> {
        self.check()?;
        let claim = Claim {
            v: VERSION,
            incarnation: self.incarnation.hyphenated().to_string(),
            revision: self.revision,
            stamps: self.stamps.iter().map(|s| (hex::encode(s.subject.0), s.since)).collect(),
            delegation_id: self.delegation.map(|d| d.to_string()),
            user: self.user.clone(),
            chain: self.chain.clone(),
            mode: self.mode,
            scopes: self.scopes.clone(),
            lease_expires_at: self.lease_expires_at,
        };
        let text = serde_json::to_string(&claim).map_err(|e| BindingError::Malformed(e.to_string()))?;
        if text.len() > MAX_CLAIM { Err(BindingError::TooLarge(text.len(), MAX_CLAIM)) } else { Ok(text) }
    }

    /// Reads the value of the JWT claim; only the one spelling that [`to_claim`](Self::to_claim) gives is accepted.
    pub fn from_claim(value: &serde_json::Value) -> Result<Binding, BindingError> {
        let malformed = |e: &dyn fmt::Display| BindingError::Malformed(e.to_string());
        let claim = Claim::deserialize(value).map_err(|e| malformed(&e))?;
        if claim.v != VERSION {
            return Err(BindingError::Malformed(format!("version {} is unknown", claim.v)));
        }
        let binding = Binding {
            incarnation: Uuid::try_parse(&claim.incarnation).map_err(|e| malformed(&e))?,
            revision: claim.revision,
            stamps: claim
                .stamps
                .iter()
                .map(|(subject, since)| {
                    let mut bytes = [0u8; 16];
                    hex::decode_to_slice(subject, &mut bytes).map_err(|e| malformed(&e))?;
                    Ok(Stamp { subject: Subject(bytes), since: *since })
                })
                .collect::<Result<_, BindingError>>()?,
            delegation: claim.delegation_id.map(|d| DelegationId::from_str(&d)).transpose().map_err(|e| malformed(&e))?,
            user: claim.user,
            chain: claim.chain,
            mode: claim.mode,
            scopes: claim.scopes,
            lease_expires_at: claim.lease_expires_at,
        };
        // INVARIANT: what is read is what would be written, so that no two spellings of one binding exist: serde also takes
        // lists for objects and `null` for what is absent, UUIDs come in four forms, and hex in two cases.
        if binding.to_claim()? != *value {
            return Err(BindingError::Malformed("it is not spelled as issuers spell it".into()));
        }
        Ok(binding)
    }
}

fn fixed<const N: usize>(octets: &OctetString) -> Result<[u8; N], BindingError> {
    octets.as_bytes().try_into().map_err(|_| BindingError::Malformed(format!("expected {N} octets")))
}

// The module in `binding.md`, type by type; `tests/asn1.rs` holds the two together.
#[derive(Sequence)]
struct WireBinding {
    version: u8,
    incarnation: OctetString,
    revision: u64,
    stamps: Vec<WireStamp>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    delegation: Option<OctetString>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    user: Option<WireUser>,
    chain: Vec<String>,
    autonomous: bool,
    scopes: Vec<String>,
    lease_expires_at: u64,
}

#[derive(Sequence)]
struct WireStamp {
    subject: OctetString,
    since: u64,
}

#[derive(Sequence)]
struct WireUser {
    iss: String,
    sub: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    v: u8,
    incarnation: String,
    revision: u64,
    stamps: Vec<(String, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delegation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    chain: Vec<String>,
    mode: Mode,
    scopes: Vec<String>,
    lease_expires_at: u64,
}

/// Under which OID the binding stands in a certificate, and under which name in a JWT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingOid(Vec<u64>);

impl BindingOid {
    /// The arcs.
    pub fn arcs(&self) -> &[u64] {
        &self.0
    }

    /// The claim's name: `urn:oid:` and the OID.
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
    /// Dotted decimals. No arc over 31 bits: Go's parser refuses the whole certificate.
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
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Binding {
        Binding {
            incarnation: Uuid::from_u128(7),
            revision: 12,
            stamps: vec![Stamp { subject: Subject([1; 16]), since: 3 }],
            delegation: Some(DelegationId([9; 32])),
            user: Some(User { iss: "https://idp.example".into(), sub: "demo".into() }),
            chain: vec!["spiffe://td/workload/orchestrator".into()],
            mode: Mode::Delegated,
            scopes: vec!["files:read".into(), "mail:send".into()],
            lease_expires_at: 1_800_000_000,
        }
    }

    #[test]
    fn both_encodings_give_the_binding_back() {
        let binding = sample();
        assert_eq!(Binding::from_der(&binding.to_der().unwrap()).unwrap(), binding);
        assert_eq!(Binding::from_claim(&binding.to_claim().unwrap()).unwrap(), binding);
    }

    #[test]
    fn a_binding_that_contradicts_itself_is_refused() {
        let mut cases: Vec<Binding> = vec![sample(); 8];
        cases[0].user = None;
        cases[1].mode = Mode::Autonomous;
        cases[2].chain.clear();
        cases[3].scopes.reverse();
        cases[4].stamps.clear();
        cases[5].stamps[0].since = 13;
        cases[6].chain = vec!["https://x".into()];
        cases[7].chain = vec!["spiffe://td/workload/a".into(), "spiffe://td/workload/b".into()];
        for case in cases {
            assert!(case.to_der().is_err() && case.to_claim().is_err(), "{case:?}");
        }
    }

    #[test]
    fn a_binding_over_its_size_is_refused_not_cut_short() {
        let mut binding = sample();
        binding.scopes = (0..64).map(|i| format!("{i:03}{}", "s".repeat(100))).collect();
        assert!(matches!(binding.to_der(), Err(BindingError::TooLarge(_, MAX_DER))));
        assert!(matches!(binding.to_claim(), Err(BindingError::TooLarge(_, MAX_CLAIM))));
    }

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

    proptest! {
        /// T23, T44: whatever the bytes, reading is a value or an error; what is read is what its encoding says.
        #[test]
        fn t23_arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(binding) = Binding::from_der(&bytes) {
                prop_assert_eq!(binding.to_der().unwrap(), bytes);
            }
        }

        #[test]
        fn t23_a_damaged_encoding_is_refused_or_canonical(at in 0usize..200, value in any::<u8>()) {
            let mut bytes = sample().to_der().unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(binding) = Binding::from_der(&bytes) {
                prop_assert_eq!(binding.to_der().unwrap(), bytes);
            }
        }
    }
}
