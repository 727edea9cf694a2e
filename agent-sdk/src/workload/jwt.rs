//! JWT-SVIDs of a Workload API: ours for an audience, and whether those of others hold.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_verify::{SpiffeId, inspect_jwt, inspect_jwt_end, parse_spiffe_id};
use tonic::{Code, Response, Status};

use super::{Source, WorkloadError};
use crate::api::{v1, workload as api};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Source {
    /// A JWT-SVID of our default identity for one audience. It is remembered until it is half over; while no fresh one can be
    /// had, it is given out until shortly before its end. At most 64 tokens are remembered.
    pub async fn jwt(&self, audience: &str) -> Result<v1::JwtSvid, WorkloadError> {
        self.jwt_for(&[audience]).await
    }

    /// The same for several audiences at once. Each of them can use the token at all the others: JWT-SVID 3.2 recommends one.
    pub async fn jwt_for(&self, audiences: &[&str]) -> Result<v1::JwtSvid, WorkloadError> {
        let id = self.holds()?;
        if let Some(fresh) = self.shared.tokens.lock().fresh(audiences, SystemTime::now()) {
            return Ok(fresh);
        }
        let audience = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        let request = api::JwtsvidRequest { audience, spiffe_id: id.to_string() };
        match timely(self.shared.client.clone().fetch_jwtsvid(request)).await.map_err(|status| WorkloadError::of(&status)) {
            Ok(got) => {
                let svid = read(got, &id)?;
                // What was taken back in between must not be handed on.
                if self.holds()? != id {
                    return Err(WorkloadError::Unavailable("our identity changed meanwhile".into()));
                }
                self.shared.tokens.lock().put(audiences, &svid, SystemTime::now());
                Ok(svid)
            }
            Err(e @ WorkloadError::Unavailable(_)) => self.shared.tokens.lock().holding(audiences, SystemTime::now()).ok_or(e),
            Err(e) => Err(e),
        }
    }

    /// Whose token it is, if it holds for this audience. CL-8: the API is asked, which may know more; where it does not validate,
    /// the bundle of the token's own trust domain decides.
    pub async fn validate_jwt(&self, token: &str, audience: &str) -> Result<SpiffeId, WorkloadError> {
        if self.shared.validates.load(Ordering::Relaxed) {
            let request = api::ValidateJwtsvidRequest { audience: audience.to_owned(), svid: token.to_owned() };
            match timely(self.shared.client.clone().validate_jwtsvid(request)).await {
                Ok(answer) => return subject(&answer, token),
                Err(status) if status.code() == Code::Unimplemented => self.shared.validates.store(false, Ordering::Relaxed),
                Err(status) if status.code() == Code::InvalidArgument => {
                    return Err(WorkloadError::Token(status.message().to_owned()));
                }
                // What does not answer now is not asked elsewhere: it may know of a revocation.
                Err(status) => return Err(WorkloadError::of(&status)),
            }
        }
        // A federated trust domain holds here as it does at the API.
        let of = inspect_jwt(token).map_err(|e| WorkloadError::Token(e.to_string()))?;
        let verifier = self.verifier().without_revocation(of.trust_domain());
        verifier.verify_jwt(token, audience).map(|svid| svid.id).map_err(|e| WorkloadError::Token(e.to_string()))
    }

    fn holds(&self) -> Result<SpiffeId, WorkloadError> {
        let current = self.current();
        match (current.svid(), current.lost()) {
            (Some(svid), _) => Ok(svid.spiffe_id().clone()),
            (None, Some(lost)) => Err(lost.clone().into()),
            (None, None) => Err(WorkloadError::Unavailable("nothing came yet".into())),
        }
    }
}

/// CL-6: the first; and it is ours.
fn read(answer: api::JwtsvidResponse, id: &SpiffeId) -> Result<v1::JwtSvid, WorkloadError> {
    let svid = answer.svids.into_iter().next().ok_or(WorkloadError::Answer("there is no token"))?;
    if svid.spiffe_id.is_empty() || svid.svid.is_empty() {
        return Err(WorkloadError::Answer("a mandatory field is empty"));
    }
    let sub = inspect_jwt(&svid.svid).map_err(|_| WorkloadError::Answer("the token cannot be read"))?;
    if sub != *id || id.to_string() != svid.spiffe_id {
        return Err(WorkloadError::Answer("the token is somebody else's"));
    }
    let end = inspect_jwt_end(&svid.svid).map_err(|_| WorkloadError::Answer("the token has no end"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(end).ok().filter(|_| end > now).ok_or(WorkloadError::Answer("the token has run out"))?;
    let expires_at = Some(prost_types::Timestamp { seconds, nanos: 0 });
    Ok(v1::JwtSvid { spiffe_id: svid.spiffe_id, token: svid.svid, expires_at })
}

/// CL-3: what is said must be said of this token.
fn subject(answer: &api::ValidateJwtsvidResponse, token: &str) -> Result<SpiffeId, WorkloadError> {
    let said = parse_spiffe_id(&answer.spiffe_id).map_err(|_| WorkloadError::Answer("it validated nobody's token"))?;
    match inspect_jwt(token) {
        Ok(sub) if sub == said => Ok(said),
        _ => Err(WorkloadError::Answer("it validated another token")),
    }
}

async fn timely<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::unavailable(format!("no answer within {} seconds", PATIENCE.as_secs()))),
    }
}
