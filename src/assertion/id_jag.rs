//! The claims of an ID-JAG besides its user.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Refusal, token};
use crate::claims::Grant;

/// Longest remaining lifetime of an ID-JAG, in seconds. Its use is remembered for that long.
pub(super) const LONGEST: u64 = 3600;
/// Most scopes and resources, each.
const MOST: usize = 64;
/// Longest name of a client, an actor, a scope or a resource, in bytes.
const LONGEST_NAME: usize = 2048;

/// Reads the claims of a verified ID-JAG. A claim of the wrong form is an error, and never counts as absent.
pub(super) fn read(claims: &Map<String, Value>, now: u64) -> Result<Grant, Refusal> {
    // A provider with several tenants under one name may give two people one `sub`.
    for name in ["tenant", "aud_tenant"] {
        if claims.contains_key(name) {
            return Err(Refusal::Claim(name));
        }
    }
    let (iss, jti) = (named(claims, "iss")?, named(claims, "jti")?);
    if token::time(claims, "exp")?.is_none_or(|exp| exp > now.saturating_add(LONGEST)) {
        return Err(Refusal::Claim("exp"));
    }
    let mut once = [0; 16];
    let digest = digest::digest(&digest::SHA256, format!("{}:{iss}{jti}", iss.len()).as_bytes());
    once.copy_from_slice(digest.as_ref().get(..16).ok_or(Refusal::Malformed)?);
    Ok(Grant {
        client: named(claims, "client_id")?.to_owned(),
        actor: actor(claims)?,
        once,
        scopes: scopes(claims)?,
        resources: resources(claims)?,
        details: match claims.get("authorization_details") {
            None => None,
            Some(details @ Value::Array(_)) => Some(details.to_string()),
            Some(_) => return Err(Refusal::Claim("authorization_details")),
        },
        key: key(claims)?,
    })
}

fn named<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<&'c str, Refusal> {
    let value = claims.get(name).and_then(Value::as_str);
    value.filter(|value| (1..=LONGEST_NAME).contains(&value.len())).ok_or(Refusal::Claim(name))
}

fn actor(claims: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    match claims.get("act") {
        None => Ok(None),
        Some(Value::Object(act)) => named(act, "sub").map(|sub| Some(sub.to_owned())).map_err(|_| Refusal::Claim("act")),
        Some(_) => Err(Refusal::Claim("act")),
    }
}

fn scopes(claims: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let Some(value) = claims.get("scope") else { return Ok(None) };
    let text = value.as_str().ok_or(Refusal::Claim("scope"))?;
    let mut scopes: Vec<String> = text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.len() > MOST || scopes.iter().any(|scope| scope.len() > LONGEST_NAME) {
        return Err(Refusal::Claim("scope"));
    }
    Ok(Some(scopes))
}

fn resources(claims: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let malformed = || Refusal::Claim("resource");
    let all: Vec<String> = match claims.get("resource") {
        None => return Ok(None),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => {
            all.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(malformed)?
        }
        Some(_) => return Err(malformed()),
    };
    let fits = !all.is_empty() && all.len() <= MOST && all.iter().all(|one| (1..=LONGEST_NAME).contains(&one.len()));
    if fits { Ok(Some(all)) } else { Err(malformed()) }
}

/// Reads `cnf`. A confirmation of an unknown kind is refused, because ignoring it would make a bearer token of the ID-JAG.
fn key(claims: &Map<String, Value>) -> Result<Option<[u8; 32]>, Refusal> {
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let members = cnf.as_object().filter(|members| members.len() == 1).ok_or(Refusal::Claim("cnf"))?;
    let jkt = members.get("jkt").and_then(Value::as_str).and_then(|jkt| URL_SAFE_NO_PAD.decode(jkt).ok());
    jkt.and_then(|jkt| jkt.try_into().ok()).map(Some).ok_or(Refusal::Claim("cnf"))
}
