//! Verifies a user's token: as the proof of a delegation, or of the user themself, who sees and stops the agents that act for them.

use std::sync::Arc;

use mayfly_verify::sha256;

use super::Issuer;
use crate::assertion::{Assertions, Delegator, Presenter, Refusal};
use crate::caller::{Caller, Origin};
use crate::denial::{Denial, Kind};
use crate::judge::access::Action;
use crate::judge::id_jag::IdJag;
use crate::judge::{Proof, check_issuer_open, check_token};

/// Verifies a user token as the proof of a delegation. Which workload it lets act is judged later.
pub(super) async fn prove(issuer: &Issuer, token: &str) -> Result<Proof, Denial> {
    let now = issuer.clock.now();
    let digest = sha256(token.as_bytes());
    // If a delegation was recorded for exactly these bytes, they were verified then, and the delegation expires with the token.
    let signed = sha256(token.rsplit_once('.').map_or(token, |(signed, _)| signed).as_bytes());
    let known = |state: &crate::state::State| state.delegation_by_proof(&signed, now).is_some_and(|d| d.token == digest);
    if !Assertions::is_id_jag(token) && issuer.ledger.read(known) {
        return Ok(Proof::Recorded(signed));
    }
    let delegator = verify(issuer, token, Presenter::Certified).await?;
    Origin::note(|origin| drop(origin.user.set(delegator.user().clone())));
    let (user, proof, token) = (delegator.user().clone(), *delegator.proof(), digest);
    let (issued_at, ends_at, audience) = (delegator.issued_at(), delegator.expires_at(), delegator.audience().to_owned());
    let (acr, signed_in_at, groups) = (delegator.acr().map(str::to_owned), delegator.signed_in_at(), delegator.groups().to_vec());
    let hint = delegator.hint().map(Box::from);
    Ok(match delegator.id_jag().cloned() {
        None => Proof::Token { user, proof, token, issued_at, ends_at, audience, acr, signed_in_at, groups, hint },
        Some(grant) => Proof::IdJag(Box::new(IdJag {
            user,
            proof,
            token,
            issued_at,
            ends_at,
            audience,
            acr,
            signed_in_at,
            groups,
            hint,
            grant,
        })),
    })
}

/// Authenticates a user who asks for themself: verifies a token for an audience with `user = true` or `revokes = true`.
///
/// While a user is closed, a token from before their revocation still revokes, because everything of theirs is revoked already and a
/// repeated request gets the same answer. It proves nothing else: whoever stole it must learn nothing and reopen nothing. While the
/// issuer of users is closed, its tokens prove nobody.
pub async fn themself(issuer: &Issuer, token: &str, action: Action) -> Result<Caller, Denial> {
    let delegator = verify(issuer, token, Presenter::Stranger).await?;
    if !delegator.is_user() && !delegator.revokes() {
        let message =
            "tokens of this audience do not speak for the user: use one of an audience that is configured with `user = true`";
        return Err(Denial::denied("USER_TOKEN_AUDIENCE", message));
    }
    let (user, issued_at) = (delegator.user().clone(), delegator.issued_at());
    issuer.ledger.read(|state| check_issuer_open(state, &user.iss))?;
    if action != Action::Revoke {
        issuer.ledger.read(|state| check_token(state, &user, issued_at))?;
    }
    Ok(Caller::User { user, issued_at, only_revokes: !delegator.is_user() })
}

/// Authenticates a person by a token for an audience of `[[operators]]`. What the token makes of them is judged with each request.
pub async fn operator(issuer: &Issuer, token: &str) -> Result<Caller, Denial> {
    let delegator = verify(issuer, token, Presenter::Stranger).await?;
    let Some(claims) = delegator.claims().map(Arc::clone) else {
        let message = "tokens of this audience make nobody an operator or an auditor: use one of an audience of `[[operators]]`";
        return Err(Denial::denied("USER_TOKEN_AUDIENCE", message));
    };
    let user = delegator.user().clone();
    let provider = issuer.ledger.rules().issuers.get(&user.iss).cloned().unwrap_or_default();
    Ok(Caller::Person {
        user,
        provider,
        issued_at: delegator.issued_at(),
        ends_at: delegator.counts_until(),
        audience: delegator.audience().into(),
        claims,
    })
}

/// The denial for a refused user token.
pub(super) fn refused(refusal: Refusal) -> Denial {
    let kind = match refusal {
        Refusal::IssuerUnavailable => Kind::Unavailable,
        Refusal::Busy => Kind::Exhausted,
        _ => Kind::Denied,
    };
    Denial::new(kind, refusal.code(), refusal.to_string())
}

async fn verify(issuer: &Issuer, token: &str, presenter: Presenter) -> Result<Delegator, Denial> {
    let providers = issuer.providers.load_full();
    providers.assertions.verify(token, issuer.clock.seconds(), presenter).await.map_err(refused)
}
