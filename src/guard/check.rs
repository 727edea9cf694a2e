//! One question and its answer: are these credentials valid now, for this audience, with these scopes?

use std::collections::BTreeSet;
use std::sync::Arc;

use mayfly_agent::folder::certificates_from_pem;
use mayfly_verify::{Reject, sha256};

use super::Guard;
use super::decision::{Allowed, Denied};
use super::kept::Svid;

/// What somebody shows. It has no `Debug`: a token is a secret for as long as it lasts.
#[derive(Clone, Copy, Default)]
pub(super) struct Shown<'a> {
    /// A JWT-SVID in compact form.
    pub(super) token: Option<&'a str>,
    /// A leaf in PEM, alone or with its chain.
    pub(super) certificate: Option<&'a str>,
}

impl Guard {
    /// Verifies what is shown; of two credentials, both must be of one identity, and only scopes that both have count. Without an
    /// audience no token is accepted.
    pub(super) fn check(&self, shown: Shown<'_>, audience: Option<&str>, scopes: &[String]) -> Result<Allowed, Denied> {
        let certificate = shown.certificate.map(|pem| self.certificate(pem)).transpose()?;
        let token = shown.token.map(|token| self.token(token, audience)).transpose()?;
        let allowed = match (token, certificate) {
            (Some(one), None) | (None, Some(one)) => Allowed::of(one),
            (Some(token), Some(certificate)) if token.id() == certificate.id() => Allowed::of_both(token, &certificate),
            (Some(_), Some(_)) => return Err(Denied::of("CREDENTIALS_DIFFER")),
            (None, None) => return Err(Denied::of("CREDENTIAL_MISSING")),
        };
        let has: BTreeSet<&str> = allowed.scopes().iter().map(String::as_str).collect();
        match scopes.iter().find(|scope| !has.contains(scope.as_str())) {
            Some(missing) => Err(Denied::scope(missing, scopes)),
            None => Ok(allowed),
        }
    }

    fn token(&self, token: &str, audience: Option<&str>) -> Result<Svid, Denied> {
        let audience = audience.ok_or_else(|| Denied::of("TOKEN_NOT_ACCEPTED"))?;
        let svid = self.verified(b"jwt", token, || Ok(Svid::Jwt(Arc::new(self.0.verifier.verify_jwt(token, audience)?))))?;
        // It may have been verified for another one of its audiences.
        match &svid {
            Svid::Jwt(jwt) if !jwt.audience.iter().any(|own| own == audience) => {
                Err(Reject::Audience(audience.to_owned()).into())
            }
            _ => Ok(svid),
        }
    }

    fn certificate(&self, pem: &str) -> Result<Svid, Denied> {
        self.verified(b"x509", pem, || {
            let chain = certificates_from_pem(pem.as_bytes()).map_err(|e| Reject::Malformed(e.to_string()))?;
            Ok(Svid::X509(Arc::new(self.0.verifier.verify_x509(&chain)?)))
        })
    }

    /// Verifies the signatures of a credential unless that was done before. Either way, expiry and revocation are of now.
    fn verified(&self, kind: &[u8], text: &str, verify: impl FnOnce() -> Result<Svid, Reject>) -> Result<Svid, Denied> {
        let verifier = &self.0.verifier;
        let digest = sha256(&[kind, b"\0", text.as_bytes()].concat());
        // ORDER: read before the bundle. A change in between makes what is kept outdated at once.
        let (generation, now) = (verifier.bundles().generation(), verifier.clock().seconds());
        if let Some(svid) = self.0.kept.get(&digest, generation, now) {
            verifier.check(svid.reliance())?;
            return Ok(svid);
        }
        metrics::counter!("mayfly_guard_verifications_total").increment(1);
        let svid = verify()?;
        self.0.kept.put(digest, generation, now, svid.clone());
        Ok(svid)
    }
}
