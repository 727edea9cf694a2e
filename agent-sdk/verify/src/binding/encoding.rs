//! The two encodings of a binding: DER in a certificate, JSON in a token. Each has exactly one spelling.

use std::fmt;
use std::str::FromStr;

use der::asn1::OctetString;
use der::{Decode, Encode, Sequence};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Binding, BindingError, MAX_CLAIM, MAX_DER};
use crate::subject::{Stamp, Subject};
use crate::{DelegationId, Mode, User};

const VERSION: u8 = 1;

impl Binding {
    /// Encodes the value of the X.509 extension.
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

    /// Decodes the value of the X.509 extension. Only the one DER encoding of a binding is accepted.
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

    /// Encodes the value of the JWT claim.
    pub fn to_claim(&self) -> Result<serde_json::Value, BindingError> {
        serde_json::from_str(&self.to_claim_text()?).map_err(|e| BindingError::Malformed(e.to_string()))
    }

    /// Encodes the value of the JWT claim as JSON text.
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

    /// Decodes the value of the JWT claim. Only the one spelling that [`to_claim`](Self::to_claim) produces is accepted.
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
        // INVARIANT: encoding the result gives the input again, so that no binding has two spellings. serde would also accept
        // lists for objects and `null` for absent fields; a UUID can be written in four forms, and hex in two cases.
        if binding.to_claim()? != *value {
            return Err(BindingError::Malformed("it is not spelled as an issuer spells it".into()));
        }
        Ok(binding)
    }
}

fn fixed<const N: usize>(octets: &OctetString) -> Result<[u8; N], BindingError> {
    octets.as_bytes().try_into().map_err(|_| BindingError::Malformed(format!("expected {N} octets")))
}

// These types follow the ASN.1 module in `binding.md`; `tests/binding/asn1.rs` compares the two.
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
