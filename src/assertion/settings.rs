//! Whether the settings of issuers fit together, what they are called, and at which of them people sign in.

use super::{AssertionError, Assertions, AudienceSettings, DEFAULT_ALGS, IssuerSettings, oidc};

impl Assertions {
    /// Where people sign in for the issuer's page: providers, each with the id of a client there.
    pub fn sign_ins(&self) -> impl Iterator<Item = (&IssuerSettings, &str)> {
        self.issuers.iter().filter_map(|issuer| {
            let client = issuer.settings.audiences.iter().find(|audience| audience.sign_in)?;
            Some((&issuer.settings, client.audience.as_str()))
        })
    }

    /// The configured name of the issuer with this exact URL. Returns `None` if it is not configured.
    pub fn issuer_name(&self, iss: &str) -> Option<&str> {
        self.issuers.iter().find(|i| i.settings.issuer == iss).map(|i| i.settings.name.as_str())
    }

    /// The URL of the issuer with this configured name. Returns `None` if it is not configured.
    pub fn issuer_url(&self, name: &str) -> Option<&str> {
        self.issuers.iter().find(|i| i.settings.name == name).map(|i| i.settings.issuer.as_str())
    }
}

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
