//! Users, and the delegations by which agents act for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NameError;

/// A person, as their OIDC provider names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Issuer URL, exactly as in the token.
    pub iss: String,
    /// Subject at that issuer.
    pub sub: String,
}

/// SHA-256 of a delegation's canonical JSON; 64 lower-case hex digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DelegationId(pub [u8; 32]);

impl fmt::Display for DelegationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for DelegationId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let mut id = [0u8; 32];
        let lower = s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match hex::decode_to_slice(s, &mut id) {
            Ok(()) if lower => Ok(DelegationId(id)),
            _ => Err(NameError::Delegation(s.chars().take(80).collect())),
        }
    }
}

/// Whether an agent acts for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It acts for a user, under a delegation.
    Delegated,
    /// It acts for nobody, which its class must allow.
    Autonomous,
}

impl Mode {
    /// The mode as text: `delegated` or `autonomous`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Delegated => "delegated",
            Mode::Autonomous => "autonomous",
        }
    }
}

impl FromStr for Mode {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s {
            "delegated" => Ok(Mode::Delegated),
            "autonomous" => Ok(Mode::Autonomous),
            _ => Err(NameError::Label(s.chars().take(64).collect(), 10)),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
