//! A user's token: proof of a delegation, or of the user who sees and stops what acts for them.

use mayfly_verify::sha256;

use super::Issuer;
use crate::assertion::{Delegator, Presenter, Refusal};
use crate::caller::{Caller, Origin};
use crate::denial::{Denial, Kind};
use crate::judge::access::Action;
use crate::judge::{Proof, check_issuer_open, check_token};

/// The proof that a user token is. Which workload it lets act is judged later.
pub(super) async fn prove(issuer: &Issuer, token: &str) -> Result<Proof, Denial> {
    let now = issuer.clock.now();
    let digest = sha256(token.as_bytes());
    // The very bytes that recorded a delegation were verified then, and the delegation ends with them.
    let signed = sha256(token.rsplit_once('.').map_or(token, |(signed, _)| signed).as_bytes());
    let known = |state: &crate::state::State| state.delegation_by_proof(&signed, now).is_some_and(|d| d.token == digest);
    if issuer.ledger.read(known) {
        return Ok(Proof::Recorded(signed));
    }
    let delegator = verify(issuer, token, Presenter::Certified).await?;
    Origin::note(|origin| drop(origin.user.set(delegator.user().clone())));
    Ok(Proof::Token {
        user: delegator.user().clone(),
        proof: *delegator.proof(),
        token: digest,
        issued_at: delegator.issued_at(),
        ends_at: delegator.expires_at(),
        audience: delegator.audience().to_owned(),
        acr: delegator.acr().map(str::to_owned),
        signed_in_at: delegator.signed_in_at(),
        groups: delegator.groups().to_vec(),
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

/// As a refused user token is told.
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
