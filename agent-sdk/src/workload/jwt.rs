//! JWT-SVIDs from a Workload API: minting our own, and validating those of others.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_verify::{SpiffeId, inspect_jwt, inspect_jwt_end, parse_spiffe_id};
use tonic::Code;

use super::{Source, WorkloadError};
use crate::api::{v1, workload as api};
use crate::identity::within_patience;

impl Source {
    /// Returns a JWT-SVID of our default identity for one audience. A token is cached for half of its life; if no new one can be
    /// fetched then, the cached one is returned until shortly before it expires. At most 64 tokens are cached.
    pub async fn jwt(&self, audience: &str) -> Result<v1::JwtSvid, WorkloadError> {
        self.jwt_for(&[audience]).await
    }

    /// The same for several audiences at once. Each of them can use the token at the others; JWT-SVID 3.2 recommends one.
    pub async fn jwt_for(&self, audiences: &[&str]) -> Result<v1::JwtSvid, WorkloadError> {
        let id = self.holds()?;
        if let Some(fresh) = self.shared.tokens.lock().fresh(audiences, SystemTime::now()) {
            return Ok(fresh);
        }
        let audience = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        let request = api::JwtsvidRequest { audience, spiffe_id: id.to_string() };
        match within_patience(self.shared.client.clone().fetch_jwtsvid(request))
            .await
            .map_err(|status| WorkloadError::of(&status))
        {
            Ok(got) => {
                let svid = read(got, &id)?;
                // If the identity was revoked in the meantime, the token must not be handed out.
                if self.holds()? != id {
                    return Err(WorkloadError::Unavailable("our identity changed in the meantime".into()));
                }
                self.shared.tokens.lock().put(audiences, &svid, SystemTime::now());
                Ok(svid)
            }
            Err(e @ WorkloadError::Unavailable(_)) => self.shared.tokens.lock().holding(audiences, SystemTime::now()).ok_or(e),
            Err(e) => Err(e),
        }
    }

    /// Returns the SPIFFE ID of a token that is valid for this audience. CL-8: the API is asked first, because it may know more.
    /// If it does not validate tokens, the bundle of the token's own trust domain decides.
    pub async fn validate_jwt(&self, token: &str, audience: &str) -> Result<SpiffeId, WorkloadError> {
        if self.shared.validates.load(Ordering::Relaxed) {
            let request = api::ValidateJwtsvidRequest { audience: audience.to_owned(), svid: token.to_owned() };
            match within_patience(self.shared.client.clone().validate_jwtsvid(request)).await {
                Ok(answer) => return subject(&answer, token),
                Err(status) if status.code() == Code::Unimplemented => self.shared.validates.store(false, Ordering::Relaxed),
                Err(status) if status.code() == Code::InvalidArgument => {
                    return Err(WorkloadError::Token(status.message().to_owned()));
                }
                // The bundles are not asked instead: an API that does not answer now might know of a revocation.
                Err(status) => return Err(WorkloadError::of(&status)),
            }
        }
        // Tokens of a federated trust domain are accepted, as the API would accept them.
        let of = inspect_jwt(token).map_err(|e| WorkloadError::Token(e.to_string()))?;
        let verifier = self.verifier().without_revocation(of.trust_domain());
        verifier.verify_jwt(token, audience).map(|svid| svid.id).map_err(|e| WorkloadError::Token(e.to_string()))
    }

    fn holds(&self) -> Result<SpiffeId, WorkloadError> {
        let current = self.current();
        match (current.svid(), current.lost()) {
            (Some(svid), _) => Ok(svid.spiffe_id().clone()),
            (None, Some(lost)) => Err(lost.clone().into()),
            (None, None) => Err(WorkloadError::Unavailable("no identity has arrived yet".into())),
        }
    }
}

/// Reads the first token (CL-6), and checks that its subject is our SPIFFE ID.
fn read(answer: api::JwtsvidResponse, id: &SpiffeId) -> Result<v1::JwtSvid, WorkloadError> {
    let svid = answer.svids.into_iter().next().ok_or(WorkloadError::Answer("there is no token"))?;
    if svid.spiffe_id.is_empty() || svid.svid.is_empty() {
        return Err(WorkloadError::Answer("a mandatory field is empty"));
    }
    let sub = inspect_jwt(&svid.svid).map_err(|_| WorkloadError::Answer("the token cannot be read"))?;
    if sub != *id || id.to_string() != svid.spiffe_id {
        return Err(WorkloadError::Answer("the token has another SPIFFE ID"));
    }
    let end = inspect_jwt_end(&svid.svid).map_err(|_| WorkloadError::Answer("the token has no expiry"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(end).ok().filter(|_| end > now).ok_or(WorkloadError::Answer("the token has expired"))?;
    let expires_at = Some(prost_types::Timestamp { seconds, nanos: 0 });
    Ok(v1::JwtSvid { spiffe_id: svid.spiffe_id, token: svid.svid, expires_at })
}

/// Checks that the API's verdict is about this token (CL-3).
fn subject(answer: &api::ValidateJwtsvidResponse, token: &str) -> Result<SpiffeId, WorkloadError> {
    let said = parse_spiffe_id(&answer.spiffe_id).map_err(|_| WorkloadError::Answer("the validated SPIFFE ID cannot be read"))?;
    match inspect_jwt(token) {
        Ok(sub) if sub == said => Ok(said),
        _ => Err(WorkloadError::Answer("another token was validated")),
    }
}
