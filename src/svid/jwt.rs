//! The claims of a JWT-SVID (clauses JW-1 to JW-12).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::BindingOid;
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::denial::Fault;
use crate::judge::Mint;
use crate::ledger::Recorded;

/// Claims that may be signed.
pub(crate) trait Claims: Serialize {
    /// The claims that must be found when the signed token is read back.
    type Said: DeserializeOwned + PartialEq;
    /// The type of token that they make.
    fn typ(&self) -> Typ;

    /// The claims that the signed token must have.
    fn said(&self) -> &Self::Said;
}

/// The `typ` of a token. A token of one type is never taken for one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typ {
    /// A JWT-SVID, or another plain JWT.
    Svid,
    /// An access token (RFC 9068).
    AccessToken,
    /// A response to an introspection (RFC 9701).
    Introspection,
    /// An ID-JAG.
    IdJag,
}

/// A token that may be signed.
pub struct Unsigned {
    said: Said,
    audiences: Vec<String>,
    issuer: String,
    // JW-9: a collision-resistant name.
    binding: (String, Box<RawValue>),
    // RFC 8705 3.1: the certificate that its holder must prove, in base64url.
    certificate: Option<String>,
    // Further claims from the configuration of the audience, which cannot have any of the names above.
    further: Arc<Map<String, Value>>,
}

/// The claims that the signed token must have.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Said {
    sub: String,
    iat: u64,
    exp: u64,
    jti: String,
}

/// An agent's token: `sub` is the agent, never the user (JWT-SVID 3.1).
pub fn agent(mint: &Recorded<Mint>, issuer: &str, oid: &BindingOid) -> Result<Unsigned, Fault> {
    let token = mint.token();
    let binding = mint.binding().to_claim_text().map_err(|e| Fault::new("svid", e))?;
    let binding = RawValue::from_string(binding).map_err(|e| Fault::new("svid", e))?;
    Ok(Unsigned {
        said: Said { sub: mint.id().to_string(), iat: token.issued_at, exp: token.ends_at, jti: hex::encode(token.jti) },
        audiences: token.audiences.clone(),
        issuer: issuer.to_owned(),
        binding: (oid.claim(), binding),
        certificate: token.certificate.map(|digest| URL_SAFE_NO_PAD.encode(digest)),
        further: Arc::clone(mint.claims()),
    })
}

impl Claims for Unsigned {
    type Said = Said;

    fn typ(&self) -> Typ {
        Typ::Svid
    }

    fn said(&self) -> &Said {
        &self.said
    }
}

impl Serialize for Unsigned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut claims = serializer.serialize_map(None)?;
        claims.serialize_entry("aud", &self.audiences)?;
        if let Some(certificate) = &self.certificate {
            claims.serialize_entry("cnf", &BTreeMap::from([("x5t#S256", certificate)]))?;
        }
        claims.serialize_entry("exp", &self.said.exp)?;
        claims.serialize_entry("iat", &self.said.iat)?;
        claims.serialize_entry("iss", &self.issuer)?;
        claims.serialize_entry("jti", &self.said.jti)?;
        claims.serialize_entry("sub", &self.said.sub)?;
        claims.serialize_entry(&self.binding.0, &self.binding.1)?;
        for (name, value) in self.further.iter() {
            claims.serialize_entry(name, value)?;
        }
        claims.end()
    }
}
