//! `Debug` of the messages that carry a secret: everything else they say, so that they can be logged.
//!
//! The generator leaves these out (`tests/generated.rs` lists them); a field added later stays hidden until named here.

use std::fmt;

use super::v1::{CreateJoinTokenResponse, JwtSvid, RedeemRequest, SpawnRequest, SpawnResponse};

/// Hides `secret`.
impl fmt::Debug for RedeemRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedeemRequest").finish_non_exhaustive()
    }
}

/// Hides `user_token`, but not whether there is one.
impl fmt::Debug for SpawnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnRequest")
            .field("request_id", &self.request_id)
            .field("class", &self.class)
            .field("has_user_token", &!self.user_token.is_empty())
            .field("mode", &self.mode)
            .field("scopes", &self.scopes)
            .field("audiences", &self.audiences)
            .field("lease_seconds", &self.lease_seconds)
            .field("max_depth", &self.max_depth)
            .field("excess", &self.excess)
            .field("jwt_audience", &self.jwt_audience)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

/// Hides `ticket`, but not whether there is one.
impl fmt::Debug for SpawnResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnResponse")
            .field("agent", &self.agent)
            .field("svid", &self.svid)
            .field("revision", &self.revision)
            .field("clipped", &self.clipped)
            .field("jwt", &self.jwt)
            .field("has_ticket", &!self.ticket.is_empty())
            .finish_non_exhaustive()
    }
}

/// Hides `token`.
impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Hides `token`.
impl fmt::Debug for CreateJoinTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateJoinTokenResponse")
            .field("workload_id", &self.workload_id)
            .field("expires_at", &self.expires_at)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::v1::MintJwtResponse;
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let jwt = JwtSvid { token: "hush".into(), spiffe_id: "said".into(), ..Default::default() };
        let printed = [
            format!("{:?}", RedeemRequest { secret: b"hush".to_vec(), csr: Vec::new() }),
            format!("{:?}", SpawnRequest { user_token: "hush".into(), class: "said".into(), ..Default::default() }),
            format!("{:?}", SpawnResponse { jwt: Some(jwt.clone()), ticket: "hush".into(), ..Default::default() }),
            format!("{:?}", MintJwtResponse { svid: Some(jwt), ..Default::default() }),
            format!("{:?}", CreateJoinTokenResponse { token: "hush".into(), workload_id: "said".into(), ..Default::default() }),
        ];
        for text in &printed {
            assert!(!text.contains("hush") && !text.contains(&format!("{:?}", b"hush")), "{text}");
        }
        assert_eq!(printed.iter().filter(|text| text.contains("said")).count(), 4);
    }
}
