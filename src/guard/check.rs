//! Checks the credentials of one request: whether they are valid now, for this audience, with these scopes.

use std::collections::BTreeSet;
use std::sync::Arc;

use mayfly_agent::folder::certificates_from_pem;
use mayfly_verify::{
    AccessToken, Confirmation, DpopRequest, Possession, Principal, Reject, is_access_token, parse_spiffe_id, sha256, verify_dpop,
};

use super::Guard;
use super::decision::{Allowed, Denied};
use super::kept::{Access, Svid, Verified};

/// The credentials of a request. It has no `Debug`, because tokens are secrets.
#[derive(Clone, Copy, Default)]
pub(super) struct Shown<'a> {
    /// A JWT-SVID or an access token in compact form.
    pub(super) token: Option<&'a str>,
    /// A leaf in PEM, alone or with its chain.
    pub(super) certificate: Option<&'a str>,
    /// The DPoP proof of the request.
    pub(super) proof: Option<Proof<'a>>,
    /// Whether the service honours the actions that an access token is limited to.
    pub(super) actions: bool,
}

/// A DPoP proof, with the request that it must be for.
#[derive(Clone, Copy)]
pub(super) struct Proof<'a> {
    pub(super) text: &'a str,
    pub(super) method: &'a str,
    pub(super) url: &'a str,
}

impl Guard {
    /// Verifies the credentials. Two credentials must be of one identity, and only scopes that both have count. Without an audience
    /// no token is accepted.
    pub(super) fn check(&self, shown: Shown<'_>, audience: Option<&str>, scopes: &[String]) -> Result<Allowed, Denied> {
        let certificate = shown.certificate.map(|pem| self.certificate(pem)).transpose()?;
        let token = shown.token.map(|token| self.token(token, audience, &shown)).transpose()?;
        let allowed = match (token, certificate) {
            (Some(one), None) | (None, Some(one)) => Allowed::of(one),
            (Some(token), Some(certificate)) if token.id() == certificate.id() => Allowed::of_both(token, &certificate),
            // T256: the token of an agent without a key is bound to the certificate of its parent. The agent acts, and the parent
            // presents the certificate.
            (Some(token), Some(_)) if is_bound(&token, shown.certificate.map(leaf).transpose()?) => Allowed::of(token),
            (Some(_), Some(_)) => return Err(Denied::of("CREDENTIALS_DIFFER")),
            (None, None) => return Err(Denied::of("CREDENTIAL_MISSING")),
        };
        let has: BTreeSet<&str> = allowed.scopes().iter().map(String::as_str).collect();
        match scopes.iter().find(|scope| !has.contains(scope.as_str())) {
            Some(missing) => Err(Denied::scope(missing, scopes)),
            None => {
                // ORDER: last, so that a request that is refused for something else uses up nothing.
                self.0.verifier.use_up(allowed.reliance())?;
                Ok(allowed)
            }
        }
    }

    fn token(&self, token: &str, audience: Option<&str>, shown: &Shown<'_>) -> Result<Svid, Denied> {
        let audience = audience.ok_or_else(|| Denied::of("TOKEN_NOT_ACCEPTED"))?;
        // T249: `typ` decides whether a token is an access token or a JWT-SVID, and it is verified as that kind only.
        if is_access_token(token) {
            return self.access(token, audience, shown);
        }
        let verify = || Ok(Verified::Svid(Svid::Jwt(Arc::new(self.0.verifier.verify_unused_jwt(token, audience)?))));
        // The cached token may have been verified for another of its audiences.
        match self.verified(b"jwt", token, verify)? {
            Verified::Svid(Svid::Jwt(jwt)) if jwt.audience.iter().any(|own| own == audience) => Ok(Svid::Jwt(jwt)),
            _ => Err(Reject::Audience(audience.to_owned()).into()),
        }
    }

    /// Verifies an access token, and the possession that its holder proves in this request.
    fn access(&self, token: &str, audience: &str, shown: &Shown<'_>) -> Result<Svid, Denied> {
        let issuer = self.0.issuer.as_deref().ok_or_else(|| Denied::of("TOKEN_NOT_ACCEPTED"))?;
        let verifier = &self.0.verifier;
        let verify = || Ok(Verified::Access(Arc::new(verifier.verify_unproved_access_token(token, (issuer, audience))?)));
        let unproved = match self.verified(b"at+jwt", token, verify)? {
            Verified::Access(unproved) if unproved.is_for(audience) => unproved,
            _ => return Err(Reject::Audience(audience.to_owned()).into()),
        };
        let now = verifier.clock().seconds();
        let proof = match &shown.proof {
            None => None,
            Some(Proof { text, method, url }) => {
                Some(verify_dpop(text, &DpopRequest { method, urls: &[*url], token: Some(token), now })?)
            }
        };
        let certificate = shown.certificate.map(leaf).transpose()?;
        let proved = Possession { key: proof.as_ref().map(|proof| proof.thumbprint), certificate };
        let token: &AccessToken = unproved.prove(&proved)?;
        if let Some(proof) = proof {
            if !matches!(token.confirmation, Some(Confirmation::Key(_))) {
                return Err(Reject::Proof("the token is not bound to a key: send it as a bearer token".into()).into());
            }
            // ORDER: last, so that only holders of valid tokens can fill the memory of proofs.
            self.0.proofs.accept(&proof, token.binding.root_id(), now)?;
        }
        // A service that ignores the actions would take the token for one without limits.
        if token.details.is_some() && !shown.actions {
            return Err(Denied::of("TOKEN_NOT_ACCEPTED"));
        }
        let id = parse_spiffe_id(&token.client.to_string()).map_err(Reject::from)?;
        let principal = Principal::Agent(token.client.clone());
        Ok(Svid::Access(Arc::new(Access { token: token.clone(), id, principal })))
    }

    fn certificate(&self, pem: &str) -> Result<Svid, Denied> {
        let verified = self.verified(b"x509", pem, || {
            let chain = certificates_from_pem(pem.as_bytes()).map_err(|e| Reject::Malformed(e.to_string()))?;
            Ok(Verified::Svid(Svid::X509(Arc::new(self.0.verifier.verify_x509(&chain)?))))
        })?;
        match verified {
            Verified::Svid(svid) => Ok(svid),
            Verified::Access(_) => Err(Denied::of("CREDENTIAL_MALFORMED")),
        }
    }

    /// Verifies the signatures of a credential unless they are cached. In both cases expiry and revocation are checked now.
    fn verified(&self, kind: &[u8], text: &str, verify: impl FnOnce() -> Result<Verified, Reject>) -> Result<Verified, Denied> {
        let verifier = &self.0.verifier;
        let digest = sha256(&[kind, b"\0", text.as_bytes()].concat());
        // ORDER: read before the bundle. A change in between makes the cached entry outdated at once.
        let (generation, now) = (verifier.bundles().generation(), verifier.clock().seconds());
        if let Some(verified) = self.0.kept.get(&digest, generation, now) {
            verifier.check(verified.reliance())?;
            return Ok(verified);
        }
        metrics::counter!("mayfly_guard_verifications_total").increment(1);
        let verified = verify()?;
        self.0.kept.put(digest, generation, now, verified.clone());
        Ok(verified)
    }
}

/// Whether a token is bound to the certificate that is shown with it. The certificate may be of another identity: the token of an
/// agent without a key is bound to its parent's.
fn is_bound(token: &Svid, certificate: Option<[u8; 32]>) -> bool {
    let confirmation = match token {
        Svid::Jwt(jwt) => jwt.confirmation.as_ref(),
        Svid::Access(access) => access.token.confirmation.as_ref(),
        Svid::X509(_) => None,
    };
    let bound = confirmation.filter(|confirmation| matches!(confirmation, Confirmation::Certificate(_)));
    bound.is_some_and(|bound| bound.check(&Possession { key: None, certificate }).is_ok())
}

/// SHA-256 of the leaf in a PEM text.
fn leaf(pem: &str) -> Result<[u8; 32], Denied> {
    let chain = certificates_from_pem(pem.as_bytes()).map_err(|e| Reject::Malformed(e.to_string()))?;
    Ok(chain.first().map(|leaf| sha256(leaf)).ok_or_else(|| Reject::Malformed("there is no certificate".into()))?)
}
