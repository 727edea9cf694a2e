//! Tokens for a single use: what such a token says of itself.

use serde_json::{Map, Value};

use crate::Reject;

/// The claim of a token that is accepted once.
const CLAIM: &str = "single_use";

/// What a receiver needs to remember a token that is for a single use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once<'a> {
    /// Unique id of the token.
    pub jti: &'a str,
    /// When it was issued, Unix seconds.
    pub issued_at: u64,
    /// The SPIFFE ID of the workload at the root of its agent, to which a share of a memory may be limited.
    pub root: &'a str,
}

/// Whether these claims are those of a token for a single use. Such a token must be one that can be remembered.
pub(crate) fn single_use(claims: &Map<String, Value>) -> Result<bool, Reject> {
    match claims.get(CLAIM) {
        None | Some(Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => {
            let named = claims.get("jti").and_then(Value::as_str).is_some_and(|jti| !jti.is_empty());
            // T290: what cannot be told from another token could be used again.
            if named && claims.contains_key("iat") {
                return Ok(true);
            }
            Err(Reject::Profile(format!("a token with `{CLAIM}` must have `jti` and `iat`")))
        }
        // T290: whoever does not read it would take the token for one that may be used often.
        Some(_) => Err(Reject::Profile(format!("`{CLAIM}` is neither true nor false"))),
    }
}
