//! The two encodings of a binding: DER in a certificate, JSON in a token. Each has exactly one spelling.

use std::fmt;
use std::str::FromStr;

use der::asn1::{OctetStringRef, Utf8StringRef};
use der::{Decode, Encode, Sequence};
use serde::ser::{SerializeSeq, SerializeStruct, Serializer};
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
            incarnation: OctetStringRef::new(self.incarnation.as_bytes()).map_err(malformed)?,
            revision: self.revision,
            stamps: self
                .stamps
                .iter()
                .map(|s| Ok(WireStamp { subject: OctetStringRef::new(&s.subject.0).map_err(malformed)?, since: s.since }))
                .collect::<Result<_, BindingError>>()?,
            delegation: self.delegation.as_ref().map(|d| OctetStringRef::new(&d.0)).transpose().map_err(malformed)?,
            user: self.user.as_ref().map(|u| Ok(WireUser { iss: text(&u.iss)?, sub: text(&u.sub)? })).transpose()?,
            chain: self.chain.iter().map(text).collect::<Result<_, _>>()?,
            autonomous: self.mode == Mode::Autonomous,
            scopes: self.scopes.iter().map(text).collect::<Result<_, _>>()?,
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
            incarnation: Uuid::from_bytes(fixed(wire.incarnation)?),
            revision: wire.revision,
            stamps: wire
                .stamps
                .iter()
                .map(|s| Ok(Stamp { subject: Subject(fixed(s.subject)?), since: s.since }))
                .collect::<Result<_, BindingError>>()?,
            delegation: wire.delegation.map(fixed).transpose()?.map(DelegationId),
            user: wire.user.map(|u| User { iss: u.iss.into(), sub: u.sub.into() }),
            chain: wire.chain.into_iter().map(String::from).collect(),
            mode: if wire.autonomous { Mode::Autonomous } else { Mode::Delegated },
            scopes: wire.scopes.into_iter().map(String::from).collect(),
            lease_expires_at: wire.lease_expires_at,
        };
        binding.check()?;
        Ok(binding)
    }

    /// Encodes the value of the JWT claim.
    pub fn to_claim(&self) -> Result<serde_json::Value, BindingError> {
        self.check()?;
        let value = serde_json::to_value(Spelled(self)).map_err(|e| BindingError::Malformed(e.to_string()))?;
        let length = value.to_string().len();
        if length > MAX_CLAIM { Err(BindingError::TooLarge(length, MAX_CLAIM)) } else { Ok(value) }
    }

    /// Encodes the value of the JWT claim as JSON text.
    pub fn to_claim_text(&self) -> Result<String, BindingError> {
        self.check()?;
        let text = serde_json::to_string(&Spelled(self)).map_err(|e| BindingError::Malformed(e.to_string()))?;
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

fn text(s: &String) -> Result<Utf8StringRef<'_>, BindingError> {
    Utf8StringRef::new(s).map_err(|e| BindingError::Malformed(e.to_string()))
}

fn fixed<const N: usize>(octets: &OctetStringRef) -> Result<[u8; N], BindingError> {
    octets.as_bytes().try_into().map_err(|_| BindingError::Malformed(format!("expected {N} octets")))
}

// These types follow the ASN.1 module in `binding.md`; `tests/binding/asn1.rs` compares the two. They borrow, so that neither
// direction copies a text before it is known to be wanted.
#[derive(Sequence)]
struct WireBinding<'a> {
    version: u8,
    incarnation: &'a OctetStringRef,
    revision: u64,
    stamps: Vec<WireStamp<'a>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    delegation: Option<&'a OctetStringRef>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    user: Option<WireUser<'a>>,
    chain: Vec<Utf8StringRef<'a>>,
    autonomous: bool,
    scopes: Vec<Utf8StringRef<'a>>,
    lease_expires_at: u64,
}

#[derive(Sequence)]
struct WireStamp<'a> {
    subject: &'a OctetStringRef,
    since: u64,
}

#[derive(Sequence)]
struct WireUser<'a> {
    iss: Utf8StringRef<'a>,
    sub: Utf8StringRef<'a>,
}

/// The claim as it is read: [`Spelled`] writes the same fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    v: u8,
    incarnation: String,
    revision: u64,
    stamps: Vec<(String, u64)>,
    #[serde(default)]
    delegation_id: Option<String>,
    #[serde(default)]
    user: Option<User>,
    chain: Vec<String>,
    mode: Mode,
    scopes: Vec<String>,
    lease_expires_at: u64,
}

/// A binding that is written as its claim, without a copy of its texts.
struct Spelled<'a>(&'a Binding);

impl Serialize for Spelled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let binding = self.0;
        let fields = 8 + usize::from(binding.delegation.is_some()) + usize::from(binding.user.is_some());
        let mut claim = serializer.serialize_struct("Binding", fields)?;
        claim.serialize_field("v", &VERSION)?;
        claim.serialize_field("incarnation", binding.incarnation.hyphenated().encode_lower(&mut Uuid::encode_buffer()))?;
        claim.serialize_field("revision", &binding.revision)?;
        claim.serialize_field("stamps", &Stamps(&binding.stamps))?;
        if let Some(delegation) = &binding.delegation {
            claim.serialize_field("delegation_id", &Hex::<64>::of(&delegation.0))?;
        }
        if let Some(user) = &binding.user {
            claim.serialize_field("user", user)?;
        }
        claim.serialize_field("chain", &binding.chain)?;
        claim.serialize_field("mode", &binding.mode)?;
        claim.serialize_field("scopes", &binding.scopes)?;
        claim.serialize_field("lease_expires_at", &binding.lease_expires_at)?;
        claim.end()
    }
}

struct Stamps<'a>(&'a [Stamp]);

impl Serialize for Stamps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stamps = serializer.serialize_seq(Some(self.0.len()))?;
        for stamp in self.0 {
            stamps.serialize_element(&(Hex::<32>::of(&stamp.subject.0), stamp.since))?;
        }
        stamps.end()
    }
}

/// Bytes as `N` lower-case hexadecimal digits.
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    /// `bytes` must be half as many as `N`; others are written as spaces, which no reader accepts.
    fn of(bytes: &[u8]) -> Hex<N> {
        let mut text = [b' '; N];
        if hex::encode_to_slice(bytes, &mut text).is_err() {
            text = [b' '; N];
        }
        Hex(text)
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?)
    }
}
