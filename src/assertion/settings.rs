//! Whether the settings of issuers fit together.

use super::{AssertionError, AudienceSettings, DEFAULT_ALGS, IssuerSettings, oidc};

pub(super) fn check_settings(all: &[IssuerSettings]) -> Result<(), AssertionError> {
    for (at, one) in all.iter().enumerate() {
        let name = || one.name.clone();
        if one.name.is_empty() {
            return Err(AssertionError::NoName(one.issuer.clone()));
        }
        if all.iter().take(at).any(|other| other.name == one.name || other.issuer == one.issuer) {
            return Err(AssertionError::Twice(name()));
        }
        for (url, query) in [(Some(&one.issuer), false), (one.jwks_url.as_ref(), true)] {
            let Some(url) = url else { continue };
            if !oidc::plain_https(url, query) {
                return Err(AssertionError::Url { name: name(), url: url.clone() });
            }
        }
        let repeated = |(at, a): (usize, &AudienceSettings)| {
            a.audience.is_empty() || one.audiences.iter().take(at).any(|other| other.audience == a.audience)
        };
        if one.audiences.is_empty() || one.audiences.iter().enumerate().any(repeated) {
            return Err(AssertionError::Audiences(name()));
        }
        if one.allowed_algs.is_empty() || one.allowed_algs.iter().any(|alg| !DEFAULT_ALGS.contains(alg)) {
            return Err(AssertionError::Algorithms(name()));
        }
    }
    Ok(())
}
