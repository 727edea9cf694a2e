//! Examines tokens and documents that the caller already has, without asking their provider.

use std::sync::Arc;

use mayfly_verify::User;

use super::token::{self, Parsed, Statement};
use super::{Assertions, Delegator, Hint, IssuerSettings, Refusal, oidc};

impl Assertions {
    /// Verifies a token with the keys in a document, as [`Assertions::verify`] would after fetching them. Opens no connection.
    pub fn examine(settings: &IssuerSettings, keys: &[u8], token: &str, now: u64) -> Result<Delegator, Refusal> {
        let parsed = Parsed::of(token)?;
        if parsed.issuer()? != settings.issuer {
            return Err(Refusal::IssuerUnknown);
        }
        if !settings.allowed_algs.contains(&parsed.alg()) {
            return Err(Refusal::Algorithm);
        }
        let signed = oidc::examine(keys, parsed)?;
        delegator(settings, signed.check(settings, now)?)
    }

    /// The URL of the keys of an issuer by its discovery document, or why there is none to use.
    pub fn keys_url(issuer: &str, document: &[u8]) -> Result<String, String> {
        oidc::keys_url(issuer, document).map_err(|e| e.to_string())
    }
}

/// The user whom a verified token proves.
pub(super) fn delegator(issuer: &IssuerSettings, statement: Statement<'_>) -> Result<Delegator, Refusal> {
    let Statement { sub, issued_at, expires_at, proof, audience, claims, id_jag } = statement;
    let (acr, signed_in_at) = token::sign_in(&claims);
    let groups = token::groups(&claims, issuer.groups.as_deref())?;
    let hint = if let Hint::Claim(name) = &issuer.hint { token::hint(&claims, name) } else { None };
    let user = User { iss: issuer.issuer.clone(), sub };
    let counts_until = expires_at.min(issued_at.saturating_add(issuer.max_age.as_secs()));
    let claims = audience.operates.then(|| Arc::new(claims));
    let audience = audience.clone();
    Ok(Delegator { user, issued_at, expires_at, proof, acr, signed_in_at, groups, hint, audience, claims, counts_until, id_jag })
}
