//! The claims of a signed introspection response (RFC 9701). It is no token: it has neither `sub` nor `exp`, and a `typ` of its own.

use serde_json::Value;

use super::jwt::{Claims, Typ};

/// A response that may be signed.
pub(crate) struct Unsigned(Said);

/// The claims that the signed response must have.
#[derive(Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Said {
    aud: String,
    iat: u64,
    iss: String,
    token_introspection: Value,
}

/// The response of `issuer` about a token. `audience` is the SPIFFE ID of the caller, `now` is in Unix seconds.
pub(crate) fn response(issuer: &str, audience: &str, now: u64, said: Value) -> Unsigned {
    Unsigned(Said { aud: audience.to_owned(), iat: now, iss: issuer.to_owned(), token_introspection: said })
}

impl Claims for Unsigned {
    type Said = Said;

    fn typ(&self) -> Typ {
        Typ::Introspection
    }

    fn said(&self) -> &Said {
        &self.0
    }
}

impl serde::Serialize for Unsigned {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
