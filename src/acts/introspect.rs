//! Introspect: whether a token of ours is valid as of the journal's head (RFC 7662). Nothing is recorded.

use std::sync::Arc;

use mayfly_verify::{AccessToken, Binding, Confirmation, JwtSvid, Reject, read_access_token, verify_jwt};
use serde_json::{Map, Value, json};

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Kind, No};
use crate::state::authority::Kind as AuthorityKind;
use crate::state::{Standing, State, View};

/// The answer of RFC 7662 2.2 for a token. T149: a caller who may not know of the token gets the same answer as for a token that is
/// not valid.
pub async fn introspect(issuer: &Issuer, caller: &Caller, token: &str) -> Result<Value, No> {
    let inactive = || json!({ "active": false });
    if mayfly_verify::is_access_token(token) || mayfly_verify::is_of_client(token) {
        return Ok(match access_token(issuer, token).await? {
            Ok(token) if sees(issuer, caller, &token.audience) => of_access_token(issuer, &token),
            _ => inactive(),
        });
    }
    Ok(match svid(issuer, caller, token).await? {
        Some(svid) => of_svid(issuer, &svid),
        None => inactive(),
    })
}

/// The same as a signed response (RFC 9701 5), for the caller alone.
pub async fn introspect_signed(issuer: &Issuer, caller: &Caller, token: &str) -> Result<String, No> {
    let said = introspect(issuer, caller, token).await?;
    let id = issuer.ledger.read(|state| state.authorities.active(AuthorityKind::Jwt).map(|slot| Arc::clone(&slot.id)));
    let missing = || {
        let message = "no JWT authority is active: one has to be prepared and activated";
        Denial::new(Kind::Unavailable, "AUTHORITY_MISSING", message)
    };
    let audience = caller.spiffe_id(&issuer.trust_domain).unwrap_or_else(|| caller.scope());
    let now = issuer.clock.seconds();
    Ok(issuer.authority.sign_introspection(&id.ok_or_else(missing)?, &issuer.iss, &audience, now, said)?)
}

/// Whether a caller may know of tokens for these audiences: it is one of them, or serves one.
fn sees(issuer: &Issuer, caller: &Caller, audiences: &[String]) -> bool {
    let rules = issuer.ledger.rules();
    let serves = match caller {
        Caller::Operator { .. } | Caller::Auditor { .. } => return true,
        Caller::Workload { name, .. } => rules.serves.get(name),
        _ => None,
    };
    let own = caller.spiffe_id(&issuer.trust_domain);
    audiences.iter().any(|audience| Some(audience) == own.as_ref() || serves.is_some_and(|serves| serves.contains(audience)))
}

/// An access token of ours that is valid now: its signature, its times, and everything that revokes it.
pub(crate) async fn access_token(issuer: &Issuer, token: &str) -> Result<Result<AccessToken, Reject>, No> {
    let (published, oid, iss, now) = (issuer.publisher.now(), issuer.oid().clone(), issuer.iss.clone(), issuer.clock.seconds());
    let token = token.to_owned();
    let read = move || read_access_token(&token, &iss, &published.bundle, &oid, now);
    let verified = issuer.clients.turn(read).await?;
    Ok(verified.and_then(|token| {
        let revoked = |state: &State| state.token_revoked(&token.jti);
        if issuer.ledger.read(revoked) || !holds(issuer, &token.binding, &token.client.uuid, &token.authority) {
            return Err(Reject::Cut);
        }
        Ok(token)
    }))
}

/// A JWT-SVID of ours that is valid now and of which the caller may know.
async fn svid(issuer: &Issuer, caller: &Caller, token: &str) -> Result<Option<JwtSvid>, No> {
    let Ok(claimed) = mayfly_verify::inspect_jwt_audiences(token) else { return Ok(None) };
    let Some(aud) = claimed.into_iter().find(|aud| sees(issuer, caller, std::slice::from_ref(aud))) else { return Ok(None) };
    let (published, oid, now, token) = (issuer.publisher.now(), issuer.oid().clone(), issuer.clock.seconds(), token.to_owned());
    let verified = issuer.clients.turn(move || verify_jwt(&token, &aud, &published.bundle, &oid, now)).await?;
    Ok(verified.ok().filter(|svid| match (&svid.principal, &svid.binding) {
        (mayfly_verify::Principal::Agent(id), Some(binding)) => holds(issuer, binding, &id.uuid, &svid.authority),
        _ => false,
    }))
}

/// A JWT-SVID of ours that is valid now, whatever it is for: its agent, and when it expires in Unix seconds.
pub(crate) async fn any_svid(issuer: &Issuer, token: &str) -> Result<Result<(mayfly_verify::AgentId, u64), Reject>, No> {
    let aud = match mayfly_verify::inspect_jwt_audiences(token) {
        Ok(audiences) => audiences.into_iter().next().unwrap_or_default(),
        Err(reject) => return Ok(Err(reject)),
    };
    let (published, oid, now, token) = (issuer.publisher.now(), issuer.oid().clone(), issuer.clock.seconds(), token.to_owned());
    let verified = issuer.clients.turn(move || verify_jwt(&token, &aud, &published.bundle, &oid, now)).await?;
    Ok(verified.and_then(|svid| match (&svid.principal, &svid.binding) {
        (mayfly_verify::Principal::Agent(id), Some(binding))
            if !issuer.ledger.read(|s| s.is_cut(binding.incarnation, &binding.stamps)) =>
        {
            Ok((id.clone(), svid.expires_at))
        }
        _ => Err(Reject::Cut),
    }))
}

/// Whether nothing revokes a token with this binding, of this agent, signed by the authority with this key id.
fn holds(issuer: &Issuer, binding: &Binding, agent: &uuid::Uuid, authority: &str) -> bool {
    let at = issuer.clock.now();
    issuer.ledger.read(|state| {
        let live = |agent| state.standing(agent, at) == Standing::Live;
        !state.is_cut(binding.incarnation, &binding.stamps)
            && state.agent(agent).is_some_and(live)
            && !state.authority_tainted(authority.as_bytes())
    })
}

fn of_access_token(issuer: &Issuer, token: &AccessToken) -> Value {
    let mut answer = common(issuer, &token.binding, token.expires_at);
    answer.insert("sub".into(), json!(token.subject));
    answer.insert("client_id".into(), json!(token.client.to_string()));
    answer.insert("aud".into(), json!(token.audience));
    answer.insert("iat".into(), json!(token.issued_at));
    answer.insert("jti".into(), json!(token.jti));
    // RFC 8705 3: a token that is bound to a certificate is sent as a bearer token.
    let by_proof = matches!(token.confirmation, Some(Confirmation::Key(_)));
    answer.insert("token_type".into(), json!(if by_proof { "DPoP" } else { "Bearer" }));
    if !token.scopes.is_empty() {
        answer.insert("scope".into(), json!(token.scopes.join(" ")));
    }
    if let Some(user) = &token.binding.user {
        answer.insert("username".into(), json!(user.sub));
    }
    let client = token.client.to_string();
    if token.subject != client {
        answer.insert("act".into(), act(issuer, &client, &token.binding.chain));
    }
    // The token itself does not name its actor, but the introspection response does.
    if token.impersonates {
        answer.insert("impersonation".into(), json!(true));
    }
    if let Some(details) = &token.details {
        answer.insert("authorization_details".into(), details.clone());
    }
    if let Some(approval) = &token.approval {
        answer.insert("acr".into(), json!("ciba"));
        answer.insert("approval_id".into(), json!(approval.id));
        answer.insert("approved_by".into(), json!({ "iss": approval.by.iss, "sub": approval.by.sub }));
    }
    once(&mut answer, token.single_use);
    confirm(&mut answer, token.confirmation.as_ref());
    Value::Object(answer)
}

/// Asking uses up nothing: whoever accepts the token remembers it.
fn once(answer: &mut Map<String, Value>, single_use: bool) {
    if single_use {
        answer.insert("single_use".into(), json!(true));
    }
}

fn confirm(answer: &mut Map<String, Value>, confirmation: Option<&Confirmation>) {
    match confirmation {
        Some(Confirmation::Key(thumbprint)) => drop(answer.insert("cnf".into(), json!({ "jkt": thumbprint }))),
        Some(Confirmation::Certificate(digest)) => drop(answer.insert("cnf".into(), json!({ "x5t#S256": digest }))),
        None => {}
    }
}

fn of_svid(issuer: &Issuer, svid: &JwtSvid) -> Value {
    let mut answer = match &svid.binding {
        Some(binding) => common(issuer, binding, svid.expires_at),
        None => Map::new(),
    };
    answer.insert("sub".into(), json!(svid.id.to_string()));
    answer.insert("client_id".into(), json!(svid.id.to_string()));
    answer.insert("aud".into(), json!(svid.audience));
    once(&mut answer, svid.single_use);
    confirm(&mut answer, svid.confirmation.as_ref());
    for (name, value) in [("iat", json!(svid.issued_at)), ("jti", json!(svid.jti))] {
        if !value.is_null() {
            answer.insert(name.into(), value);
        }
    }
    Value::Object(answer)
}

fn common(issuer: &Issuer, binding: &Binding, expires_at: u64) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("active".into(), json!(true));
    answer.insert("iss".into(), json!(issuer.iss));
    answer.insert("exp".into(), json!(expires_at));
    // The revision at which the token was judged.
    answer.insert("revision".into(), json!(issuer.ledger.read(|state| state.revision)));
    if let Ok(claim) = binding.to_claim() {
        answer.insert(issuer.oid().claim(), claim);
    }
    answer
}

/// The agent and its ancestors as the nested actors of RFC 8693.
fn act(issuer: &Issuer, agent: &str, chain: &[String]) -> Value {
    let above = chain.iter().rev().fold(Value::Null, |above, id| actor(&issuer.iss, id, above));
    actor(&issuer.iss, agent, above)
}

fn actor(iss: &str, id: &str, above: Value) -> Value {
    match above {
        Value::Null => json!({ "iss": iss, "sub": id }),
        above => json!({ "act": above, "iss": iss, "sub": id }),
    }
}
