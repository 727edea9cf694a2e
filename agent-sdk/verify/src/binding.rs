//! The binding: the user that an agent acts for, its ancestors, and its scopes. One structure in two encodings.

mod encoding;
mod oid;

use uuid::Uuid;

pub use oid::BindingOid;

use crate::ids::agent_of;
use crate::subject::Stamp;
use crate::{DelegationId, MAX_SPIFFE_ID, Mode, User, parse_spiffe_id};

/// Longest DER encoding, in bytes.
pub const MAX_DER: usize = 2048;
/// Longest JSON encoding, in bytes.
pub const MAX_CLAIM: usize = 4096;
/// Longest chain: sixteen agents and their root workload.
pub const MAX_CHAIN: usize = 17;

#[doc = include_str!("../binding.md")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Epoch of the journal that the revisions belong to.
    pub incarnation: Uuid,
    /// Revision of the record that allowed this credential.
    pub revision: u64,
    /// The subjects that it relies on, each with a revision.
    pub stamps: Vec<Stamp>,
    /// The delegation; `None` for an autonomous agent.
    pub delegation: Option<DelegationId>,
    /// The user; `None` for an autonomous agent.
    pub user: Option<User>,
    /// SPIFFE IDs from the parent up to the root workload; at least one.
    pub chain: Vec<String>,
    /// Whether it acts for a user or for nobody.
    pub mode: Mode,
    /// Its scopes, sorted, without duplicates.
    pub scopes: Vec<String>,
    /// End of its lease, Unix seconds.
    pub lease_expires_at: u64,
}

/// Why a binding is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// The bytes are not a binding of version 1.
    #[error("the binding is malformed: {0}")]
    Malformed(String),
    /// It can be read, but its fields contradict each other.
    #[error("the binding contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// It is longer than [`MAX_DER`] or [`MAX_CLAIM`].
    #[error("the binding has {0} bytes, and {1} are allowed: ask for fewer scopes or a flatter tree")]
    TooLarge(usize, usize),
}

impl Binding {
    /// SPIFFE ID of the parent, which spawned the agent.
    pub fn parent_id(&self) -> &str {
        self.chain.first().map_or("", String::as_str)
    }

    /// SPIFFE ID of the root workload.
    pub fn root_id(&self) -> &str {
        self.chain.last().map_or("", String::as_str)
    }

    /// Number of levels below the root workload; 1 directly below it.
    pub fn depth(&self) -> usize {
        self.chain.len()
    }

    /// Checks the rules between the fields.
    pub fn check(&self) -> Result<(), BindingError> {
        let bad = |what| Err(BindingError::Inconsistent(what));
        if self.chain.is_empty() || self.chain.len() > MAX_CHAIN {
            return bad("the chain must hold 1 to 17 ids");
        }
        // All ancestors below the root workload are agents, and the root is none.
        let last = self.chain.len() - 1;
        for (n, id) in self.chain.iter().enumerate() {
            let Ok(id) = parse_spiffe_id(id) else { return bad("the chain holds something that is not a SPIFFE ID") };
            if agent_of(&id).is_some() == (n == last) {
                return bad("the chain must consist of agents below one workload");
            }
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
            return bad("a stamp has a higher revision than the credential");
        }
        if self.stamps.iter().zip(1..).any(|(stamp, rest)| self.stamps.iter().skip(rest).any(|s| s.subject == stamp.subject)) {
            return bad("two stamps have one subject");
        }
        if !self.scopes.is_sorted_by(|a, b| a < b) {
            return bad("scopes must be sorted, without duplicates");
        }
        if self.chain.iter().map(String::len).max().unwrap_or(0) > MAX_SPIFFE_ID {
            return bad("an id of the chain is too long");
        }
        Ok(())
    }

    /// Checks that both encodings stay within their limits. It encodes only if the lengths alone do not settle that.
    pub fn check_size(&self) -> Result<(), BindingError> {
        // JSON may escape each byte of a user's name into six; ids and scopes contain nothing that is escaped.
        let user = self.user.as_ref().map_or(0, |u| 6 * (u.iss.len() + u.sub.len()));
        let listed: usize = self.chain.iter().chain(&self.scopes).map(|s| s.len() + 4).sum();
        if 512 + user + listed + 80 * self.stamps.len() <= MAX_DER {
            return self.check();
        }
        self.to_der()?;
        self.to_claim_text()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::Subject;
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

    proptest! {
        /// T23, T44: any bytes give a binding or an error, and a binding that was read encodes to the same bytes.
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
