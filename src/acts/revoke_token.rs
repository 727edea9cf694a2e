//! Revoke a token: one access token ends, and nothing else of its agent (RFC 7009).

use mayfly_verify::{AccessToken, DelegationId, Target};
use uuid::Uuid;

use super::{Issuer, introspect};
use crate::caller::Caller;
use crate::denial::No;
use crate::judge::{Act, Chance, Cutting, Judgement, owns};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::State;

/// The revocation of one token.
#[derive(Clone, Debug)]
pub struct RevokeToken {
    token: AccessToken,
}

/// Revokes an access token of the caller, or of an agent that the caller may revoke. Nothing happens if the token is not valid or is
/// somebody else's, and the caller does not hear which it was (RFC 7009 2.2).
pub async fn revoke_token(issuer: &Issuer, caller: Caller, token: &str) -> Result<(), No> {
    let Ok(token) = introspect::access_token(issuer, token).await? else { return Ok(()) };
    let own = |state: &State| state.agent(&token.client.uuid).is_some_and(|agent| owns(&caller, agent));
    if !issuer.ledger.read(own) {
        return Ok(());
    }
    issuer.pipeline.record(caller, RevokeToken { token }).await
}

/// The agent and the delegation that a valid access token relies on. `None` if it is not valid, or is of an agent that the caller may
/// not revoke.
pub async fn relied_on(issuer: &Issuer, caller: &Caller, token: &str) -> Result<Option<(Uuid, Option<DelegationId>)>, No> {
    let Ok(token) = introspect::access_token(issuer, token).await? else { return Ok(None) };
    let own = |state: &State| state.agent(&token.client.uuid).is_some_and(|agent| owns(caller, agent));
    Ok(issuer.ledger.read(own).then_some((token.client.uuid, token.binding.delegation)))
}

impl Record for RevokeToken {
    fn lane(&self) -> Lane {
        Lane::Revocation
    }
}

impl Act for RevokeToken {
    type Permit = ();

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<(), No> {
        j.owned(caller, &self.token.client.uuid)?;
        let target = Target::Token(self.token.jti.clone());
        // T103: a repeated revocation makes no second record.
        if j.view().target(&target).is_none() {
            j.cut(caller, &Cutting { target: &target, since: None, reason: "", closes: false })?;
        }
        Ok(())
    }
}
