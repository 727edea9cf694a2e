//! The claims of a signed introspection response (RFC 9701). It is no token: it has neither `sub` nor `exp`, and a `typ` of its own.

use serde_json::Value;

use super::jwt::{Claims, Typ};

/// A response that may be signed.
pub(crate) struct Unsigned(Said);

/// What the signed response must say.
#[derive(Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Said {
    aud: String,
    iat: u64,
    iss: String,
    token_introspection: Value,
}

/// What `issuer` says of a token to `audience`, the SPIFFE ID of who asked, at `now` (Unix seconds).
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
