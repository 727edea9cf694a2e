//! The claims of an access token (RFC 9068), with the actors of RFC 8693.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::BindingOid;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::jwt::{Claims, Typ};
use crate::denial::Fault;
use crate::judge::Access;
use crate::judge::profile::Form;
use crate::ledger::Recorded;

/// The authentication context class of a token that a person approved: they were asked by another channel than the agent's.
const ACR: &str = "ciba";

/// A token that may be signed.
pub struct Unsigned {
    said: Said,
    issuer: String,
    /// The agent and its ancestors. `None` if the agent is the subject itself, or if the token does not name it.
    act: Option<Value>,
    /// The person who approved it. `None` if it needs no approval.
    approved_by: Option<Value>,
    /// `None` in an ID-JAG: another authorization server reads it, once.
    binding: Option<(String, Box<RawValue>)>,
    // Further claims from the configuration of the audience, which cannot have any of the names above.
    further: Arc<Map<String, Value>>,
    typ: Typ,
}

/// The claims that the signed token must have.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Said {
    sub: String,
    aud: String,
    client_id: String,
    scope: Option<String>,
    iat: u64,
    exp: u64,
    jti: String,
    /// The key or certificate that the token is bound to, in base64url.
    cnf: Option<BTreeMap<String, String>>,
    authorization_details: Option<Value>,
    approval_id: Option<String>,
    resource: Option<String>,
}

/// An agent's access token: `sub` is the user or the class as the audience expects it, and `act` the agent with its ancestors up to
/// the root workload, as the journal has them. If the agent acts for nobody, `sub` is the agent.
pub fn agent(access: &Recorded<Access>, issuer: &str, oid: &BindingOid) -> Result<Unsigned, Fault> {
    let (token, binding) = (access.token(), access.binding());
    let claim = binding.to_claim_text().map_err(|e| Fault::new("svid", e))?;
    let claim = RawValue::from_string(claim).map_err(|e| Fault::new("svid", e))?;
    let client = access.id().to_string();
    let stated = access.stated();
    let id_jag = stated.form == Form::IdJag;
    let mut act = (token.subject != client && !stated.impersonates).then(|| {
        // RFC 8693 4.1: the outermost actor is the current one.
        let above = binding.chain.iter().rev().fold(None, |above, id| Some(actor(issuer, id, above)));
        actor(issuer, &client, above)
    });
    if let (true, Some(Value::Object(act))) = (id_jag, &mut act) {
        // As providers tell their receivers that an agent acts.
        act.insert("sub_profile".into(), "ai_agent".into());
    }
    let details = match token.details.as_str() {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(|e| Fault::new("svid", e))?),
    };
    let approved_by = token.approval.as_ref().map(|(_, by)| json!({ "iss": by.iss, "sub": by.sub }));
    Ok(Unsigned {
        said: Said {
            sub: token.subject.clone(),
            aud: token.audience.clone(),
            client_id: stated.client.clone().unwrap_or(client),
            scope: Some(token.scopes.join(" ")).filter(|scope| !scope.is_empty()),
            iat: token.issued_at,
            exp: token.ends_at,
            jti: hex::encode(token.jti),
            cnf: token.confirmation.map(|held| {
                let (name, digest) = held.member();
                [(name.to_owned(), URL_SAFE_NO_PAD.encode(digest))].into()
            }),
            authorization_details: details,
            approval_id: token.approval.as_ref().map(|(id, _)| hex::encode(id)),
            resource: stated.resource.clone(),
        },
        issuer: issuer.to_owned(),
        act,
        approved_by,
        binding: (!id_jag).then(|| (oid.claim(), claim)),
        further: Arc::clone(&stated.claims),
        typ: match stated.form {
            Form::Access => Typ::AccessToken,
            Form::Plain => Typ::Svid,
            Form::IdJag => Typ::IdJag,
        },
    })
}

fn actor(issuer: &str, id: &str, above: Option<Value>) -> Value {
    match above {
        Some(above) => json!({ "act": above, "iss": issuer, "sub": id }),
        None => json!({ "iss": issuer, "sub": id }),
    }
}

impl Claims for Unsigned {
    type Said = Said;

    fn typ(&self) -> Typ {
        self.typ
    }

    fn said(&self) -> &Said {
        &self.said
    }
}

impl Serialize for Unsigned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut claims = serializer.serialize_map(None)?;
        if self.approved_by.is_some() {
            // `acr` says that a person was asked over another channel.
            claims.serialize_entry("acr", ACR)?;
        }
        if let Some(act) = &self.act {
            claims.serialize_entry("act", act)?;
        }
        if let Some(id) = &self.said.approval_id {
            claims.serialize_entry("approval_id", id)?;
        }
        if let Some(by) = &self.approved_by {
            claims.serialize_entry("approved_by", by)?;
        }
        claims.serialize_entry("aud", &self.said.aud)?;
        if let Some(details) = &self.said.authorization_details {
            claims.serialize_entry("authorization_details", details)?;
        }
        claims.serialize_entry("client_id", &self.said.client_id)?;
        if let Some(cnf) = &self.said.cnf {
            claims.serialize_entry("cnf", cnf)?;
        }
        claims.serialize_entry("exp", &self.said.exp)?;
        claims.serialize_entry("iat", &self.said.iat)?;
        claims.serialize_entry("iss", &self.issuer)?;
        claims.serialize_entry("jti", &self.said.jti)?;
        if let Some(resource) = &self.said.resource {
            claims.serialize_entry("resource", resource)?;
        }
        if let Some(scope) = &self.said.scope {
            claims.serialize_entry("scope", scope)?;
        }
        claims.serialize_entry("sub", &self.said.sub)?;
        if let Some((name, binding)) = &self.binding {
            claims.serialize_entry(name, binding)?;
        }
        for (name, value) in self.further.iter() {
            claims.serialize_entry(name, value)?;
        }
        claims.end()
    }
}
