//! The service of access tokens: exchange, introspect, revoke.

use mayfly_agent::api::v1;
use tonic::{Request, Response, Status};

use super::message::timestamp;
use super::server::tokens_server::Tokens;
use super::{Door, methods};
use crate::acts::{exchange, introspect, revoke_token};
use crate::doors::peer::Peer;
use crate::judge::profile::Form;

#[tonic::async_trait]
impl Tokens for Door {
    async fn exchange(&self, request: Request<v1::ExchangeRequest>) -> Result<Response<v1::ExchangeResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        self.hand_in(methods::EXCHANGE, request, |issuer, caller, r| async move {
            let v1::ExchangeRequest {
                audience,
                scopes,
                subject_token,
                authorization_details: details,
                approval_id: approval,
                for_agent,
            } = r;
            let for_agent = if for_agent.is_empty() { None } else { Some(issuer.agent_id(&for_agent)?) };
            let (proved, actor_token) = (Peer::proved(peer.as_ref()), String::new());
            let asked = exchange::Asked {
                audience,
                scopes,
                subject_token,
                actor_token,
                proved,
                details,
                approval,
                for_agent,
                id_jag: None,
                resource: None,
            };
            let (access, access_token) = exchange::exchange(&issuer, caller, asked).await?;
            let token = access.token();
            Ok(v1::ExchangeResponse {
                access_token,
                token_type: if access.stated().form == Form::IdJag { "N_A" } else { "Bearer" }.into(),
                expires_at: Some(timestamp(token.ends_at)),
                scopes: token.scopes.clone(),
                revision: token.revision,
                authorization_details: token.details.clone(),
            })
        })
        .await
    }

    async fn introspect(&self, request: Request<v1::IntrospectRequest>) -> Result<Response<v1::IntrospectResponse>, Status> {
        self.hand_in(methods::INTROSPECT, request, |issuer, caller, r| async move {
            let said = introspect::introspect(&issuer, &caller, &r.token).await?;
            Ok(v1::IntrospectResponse { json: said.to_string().into_bytes() })
        })
        .await
    }

    async fn revoke(&self, request: Request<v1::TokensRevokeRequest>) -> Result<Response<v1::TokensRevokeResponse>, Status> {
        self.hand_in(methods::REVOKE_TOKEN, request, |issuer, caller, r| async move {
            revoke_token::revoke_token(&issuer, caller, &r.token).await?;
            Ok(v1::TokensRevokeResponse {})
        })
        .await
    }
}
