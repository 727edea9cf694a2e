//! What an agent presents for an exchange, verified: its own token as actor, and a token of its user or of ours as subject.

use mayfly_verify::{Principal, inspect_jwt, inspect_jwt_issuer, is_access_token, verify_jwt};
use serde_json::{Map, Value};

use crate::acts::{Issuer, introspect, user};
use crate::assertion::Assertions;
use crate::denial::{Denial, No};
use crate::judge::Presented;
use crate::judge::bound::Proved;
use crate::judge::exchange::{Held, not_yours};

/// Whether a token says that it is ours. Nothing is verified yet.
pub(super) fn is_ours(issuer: &Issuer, token: &str) -> bool {
    inspect_jwt_issuer(token).is_ok_and(|iss| iss.as_deref() == Some(issuer.iss.as_str()))
}

/// An access token of ours; or the JWT-SVID of an agent that acts for nobody, which adds nothing to what the agent is.
pub(super) async fn ours(issuer: &Issuer, token: &str, caller: &str, proved: &Proved) -> Result<Presented, No> {
    if is_access_token(token) {
        return Ok(Presented::Token(held(issuer, token, proved).await?));
    }
    let svid = own_svid(issuer, token, caller).await?;
    if svid.binding.is_some_and(|binding| binding.user.is_some()) {
        let message = "a JWT-SVID is no token of the user: present the user's token, or no subject token";
        return Err(not_yours(message).into());
    }
    Ok(Presented::Nothing)
}

/// An access token of ours that is valid now.
async fn held(issuer: &Issuer, token: &str, proved: &Proved) -> Result<Held, No> {
    let verified = introspect::access_token(issuer, token).await?;
    let verified = verified.map_err(|e| Denial::denied("SUBJECT_NOT_ALLOWED", format!("the subject token: {e}")))?;
    // A caller who has the token without its key has stolen it.
    verified.check_possession(&proved.held).map_err(|e| not_yours(format!("the subject token: {e}")))?;
    let (agent, user, ends_at) = (verified.client.uuid, verified.binding.user, verified.expires_at);
    Ok(Held { agent, user, scopes: verified.scopes, ends_at })
}

/// Verifies the actor token, which must prove the caller.
pub(super) async fn actor(issuer: &Issuer, token: &str, caller: &str) -> Result<(), No> {
    own_svid(issuer, token, caller).await.map(drop)
}

/// A JWT-SVID of the caller itself for this issuer.
async fn own_svid(issuer: &Issuer, token: &str, caller: &str) -> Result<mayfly_verify::JwtSvid, No> {
    // T146: the caller is the actor, so the token must be the caller's own.
    let refused = |e: mayfly_verify::Reject| not_yours(format!("the JWT-SVID: {e}"));
    if inspect_jwt(token).map_err(refused)?.to_string() != caller {
        return Err(not_yours("the JWT-SVID is of another agent than the caller").into());
    }
    let (published, oid, aud, now) = (issuer.publisher.now(), issuer.oid().clone(), issuer.iss.clone(), issuer.clock.seconds());
    let token = token.to_owned();
    let verified = issuer.clients.turn(move || verify_jwt(&token, &aud, &published.bundle, &oid, now)).await?;
    let svid = verified.map_err(refused)?;
    let cut = svid.binding.as_ref().is_none_or(|b| issuer.ledger.read(|state| state.is_cut(b.incarnation, &b.stamps)));
    if cut || !matches!(svid.principal, Principal::Agent(_)) {
        return Err(not_yours("the JWT-SVID was revoked").into());
    }
    Ok(svid)
}

/// T146: a user's token that says who may act names the caller, who is the actor.
pub(super) fn may_act(issuer: &Issuer, token: &str, caller: &str) -> Result<(), Denial> {
    let members = Assertions::may_act(token).map_err(user::refused)?;
    if members.is_none_or(|members| names(&members, caller, &issuer.iss)) {
        return Ok(());
    }
    Err(not_yours("the `may_act` of the subject token names somebody else than the caller"))
}

/// Whether the members of `may_act` name this agent of this issuer. Each known member must match, and at least one of them must
/// name the agent.
fn names(members: &Map<String, Value>, agent: &str, iss: &str) -> bool {
    let is = |name: &str, expected: &str| members.get(name).is_none_or(|value| value.as_str() == Some(expected));
    let says_who = members.contains_key("sub") || members.contains_key("client_id");
    says_who && is("sub", agent) && is("client_id", agent) && is("iss", iss)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn t146_may_act_names_the_caller_with_every_member_that_is_known() {
        let (agent, iss) = ("spiffe://td/agent/a/1", "https://issuer.example");
        let names = |members: Value| names(members.as_object().unwrap(), agent, iss);
        assert!(names(json!({ "sub": agent })));
        assert!(names(json!({ "sub": agent, "iss": iss, "client_id": agent, "unknown": "x" })));
        for other in [
            json!({}),
            json!({ "iss": iss }),
            json!({ "sub": "spiffe://td/agent/a/2" }),
            json!({ "sub": [agent] }),
            json!({ "sub": agent, "iss": "https://other.example" }),
            json!({ "sub": agent, "client_id": "spiffe://td/agent/a/2" }),
            json!({ "client_id": "another client" }),
        ] {
            assert!(!names(other.clone()), "{other}");
        }
    }
}
