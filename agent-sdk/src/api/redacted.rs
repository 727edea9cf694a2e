//! `Debug` of the messages that carry a secret: everything else they say, so that they can be logged.
//!
//! The generator leaves these out (`tests/generated.rs` lists them); a field added later stays hidden until named here.

use std::fmt;

use super::v1::{
    ApproveRequest, AttestRequest, CreateJoinTokenResponse, DenyRequest, ExchangeRequest, ExchangeResponse, ExplainRequest,
    ExtendRequest, GetAgentRequest, GetApprovalRequest, GetDecisionRequest, IntrospectRequest, JwtSvid, ListAgentsRequest,
    ListApprovalsRequest, ListEntriesRequest, RedeemRequest, ReopenRequest, RevokeRequest, SpawnRequest, SpawnResponse,
    TokensRevokeRequest, explain_request,
};
use super::workload::{Jwtsvid, ValidateJwtsvidRequest, Witsvid, X509svid};

/// Hides `user_token`, but not whether there is one.
macro_rules! hides_user_token {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .field("has_user_token", &!self.user_token.is_empty())
                    .finish_non_exhaustive()
            }
        }
    )*};
}

hides_user_token! {
    RevokeRequest { target, reason, allow_new, dry_run }
    ReopenRequest {}
    ExtendRequest { lease_seconds }
    ListAgentsRequest { page_size, page_token, all }
    GetAgentRequest { agent }
    ListEntriesRequest { since, until, user, agent, class, root, kinds, reason, page_size, page_token }
    GetDecisionRequest { decision_id }
}

impl fmt::Debug for ExplainRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExplainRequest").field("what", &self.what).finish()
    }
}

/// Hides `token`.
impl fmt::Debug for explain_request::What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            explain_request::What::Agent(agent) => f.debug_tuple("Agent").field(agent).finish(),
            explain_request::What::Certificates(credential) => f.debug_tuple("Certificates").field(credential).finish(),
            explain_request::What::Token(_) => f.debug_tuple("Token").finish_non_exhaustive(),
            explain_request::What::Decision(id) => f.debug_tuple("Decision").field(id).finish(),
            explain_request::What::Spawn(spawn) => f.debug_tuple("Spawn").field(spawn).finish(),
        }
    }
}

/// Hides `secret`.
impl fmt::Debug for RedeemRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedeemRequest").finish_non_exhaustive()
    }
}

/// Hides `token`.
impl fmt::Debug for AttestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttestRequest").field("workload", &self.workload).finish_non_exhaustive()
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

/// Hides `subject_token`, but not whether there is one.
impl fmt::Debug for ExchangeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeRequest")
            .field("audience", &self.audience)
            .field("scopes", &self.scopes)
            .field("has_subject_token", &!self.subject_token.is_empty())
            .finish_non_exhaustive()
    }
}

/// Hides `access_token`.
impl fmt::Debug for ExchangeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeResponse")
            .field("token_type", &self.token_type)
            .field("expires_at", &self.expires_at)
            .field("scopes", &self.scopes)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// Hides `token`.
impl fmt::Debug for IntrospectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectRequest").finish_non_exhaustive()
    }
}

/// Hides `token`.
impl fmt::Debug for TokensRevokeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokensRevokeRequest").finish_non_exhaustive()
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

/// Hides `x509_svid_key`.
impl fmt::Debug for X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509svid").field("spiffe_id", &self.spiffe_id).field("hint", &self.hint).finish_non_exhaustive()
    }
}

/// Hides `svid`.
impl fmt::Debug for Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwtsvid").field("spiffe_id", &self.spiffe_id).field("hint", &self.hint).finish_non_exhaustive()
    }
}

/// Hides `svid`.
impl fmt::Debug for ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateJwtsvidRequest").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// Hides `wit_svid` and `wit_svid_key`.
impl fmt::Debug for Witsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witsvid").field("spiffe_id", &self.spiffe_id).field("hint", &self.hint).finish_non_exhaustive()
    }
}

/// Hides `user_token`, but not whether there is one.
impl fmt::Debug for GetApprovalRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetApprovalRequest")
            .field("approval_id", &self.approval_id)
            .field("has_user_token", &!self.user_token.is_empty())
            .finish_non_exhaustive()
    }
}

/// Hides `user_token`, but not whether there is one.
impl fmt::Debug for ListApprovalsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListApprovalsRequest")
            .field("all", &self.all)
            .field("has_user_token", &!self.user_token.is_empty())
            .finish_non_exhaustive()
    }
}

/// Hides `user_token`.
impl fmt::Debug for ApproveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApproveRequest")
            .field("approval_id", &self.approval_id)
            .field("digest", &self.digest)
            .field("narrowed", &self.narrowed)
            .finish_non_exhaustive()
    }
}

/// Hides `user_token`.
impl fmt::Debug for DenyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenyRequest").field("approval_id", &self.approval_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::v1::MintJwtResponse;
    use super::super::workload::X509svidResponse;
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let jwt = JwtSvid { token: "hush".into(), spiffe_id: "said".into(), ..Default::default() };
        let x509 = X509svid { x509_svid_key: b"hush".to_vec(), spiffe_id: "said".into(), ..Default::default() };
        let printed = [
            format!("{:?}", RedeemRequest { secret: b"hush".to_vec(), csr: Vec::new() }),
            format!("{:?}", SpawnRequest { user_token: "hush".into(), class: "said".into(), ..Default::default() }),
            format!("{:?}", SpawnResponse { jwt: Some(jwt.clone()), ticket: "hush".into(), ..Default::default() }),
            format!("{:?}", ExchangeRequest { subject_token: "hush".into(), audience: "said".into(), ..Default::default() }),
            format!("{:?}", ExchangeResponse { access_token: "hush".into(), token_type: "said".into(), ..Default::default() }),
            format!("{:?}", IntrospectRequest { token: "hush".into() }),
            format!("{:?}", TokensRevokeRequest { token: "hush".into() }),
            format!("{:?}", RevokeRequest { user_token: "hush".into(), reason: "said".into(), ..Default::default() }),
            format!("{:?}", ExtendRequest { user_token: "hush".into(), lease_seconds: 1 }),
            format!("{:?}", ReopenRequest { user_token: "hush".into(), ..Default::default() }),
            format!("{:?}", ListAgentsRequest { user_token: "hush".into(), page_token: "said".into(), ..Default::default() }),
            format!("{:?}", GetAgentRequest { user_token: "hush".into(), agent: "said".into() }),
            format!("{:?}", ListEntriesRequest { user_token: "hush".into(), class: "said".into(), ..Default::default() }),
            format!("{:?}", GetDecisionRequest { user_token: "hush".into(), decision_id: "said".into() }),
            format!("{:?}", MintJwtResponse { svid: Some(jwt), ..Default::default() }),
            format!("{:?}", X509svidResponse { svids: vec![x509], ..Default::default() }),
            format!("{:?}", Jwtsvid { svid: "hush".into(), spiffe_id: "said".into(), ..Default::default() }),
            format!("{:?}", ValidateJwtsvidRequest { svid: "hush".into(), audience: "said".into() }),
            format!(
                "{:?}",
                Witsvid { wit_svid_key: "hush".into(), wit_svid: "hush".into(), hint: "said".into(), ..Default::default() }
            ),
            format!("{:?}", CreateJoinTokenResponse { token: "hush".into(), workload_id: "said".into(), ..Default::default() }),
        ];
        for text in &printed {
            assert!(!text.contains("hush") && !text.contains(&format!("{:?}", b"hush")), "{text}");
        }
        assert_eq!(printed.iter().filter(|text| text.contains("said")).count(), 15);
    }
}
