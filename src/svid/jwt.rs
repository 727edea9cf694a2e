//! The claims of a JWT-SVID (clauses JW-1 to JW-12).

use mayfly_verify::BindingOid;
use serde_json::{Map, Value};

use crate::denial::Fault;
use crate::registry::Mint;

/// A token that may be signed.
pub struct Unsigned {
    pub(crate) claims: Map<String, Value>,
}

/// An agent's token: `sub` is the agent, never the user (JWT-SVID 3.1).
pub fn agent(mint: &Mint, issuer: Option<&str>, oid: &BindingOid) -> Result<Unsigned, Fault> {
    let token = mint.token();
    let mut claims = Map::new();
    claims.insert("sub".into(), mint.id().to_string().into());
    claims.insert("aud".into(), Value::Array(token.audiences.iter().cloned().map(Value::from).collect()));
    claims.insert("iat".into(), token.issued_at.into());
    claims.insert("exp".into(), token.ends_at.into());
    claims.insert("jti".into(), hex::encode(token.jti).into());
    if let Some(issuer) = issuer {
        claims.insert("iss".into(), issuer.into());
    }
    // JW-9: a collision-resistant name.
    claims.insert(oid.claim(), mint.binding().to_claim().map_err(|e| Fault::new("svid", e))?);
    Ok(Unsigned { claims })
}
