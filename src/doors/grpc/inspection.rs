//! The service of inspection: the agents that the caller may see.

use mayfly_agent::api::v1;
use tonic::{Request, Response, Status};

use super::message::{agent_message, timestamp};
use super::server::inspection_server::Inspection;
use super::{Door, methods};
use crate::acts::inspect;
use crate::clock::SECOND;

#[tonic::async_trait]
impl Inspection for Door {
    async fn list_agents(&self, request: Request<v1::ListAgentsRequest>) -> Result<Response<v1::ListAgentsResponse>, Status> {
        self.run_for(
            methods::LIST_AGENTS,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let after = issuer.pages.open(&caller, &r.page_token)?;
                let size = usize::try_from(r.page_size).unwrap_or(usize::MAX);
                let (agents, next, revision) = inspect::list(&issuer, &caller, after, size, r.all);
                let agents = agents.iter().map(|(agent, standing)| agent_message(&issuer, agent, *standing)).collect();
                let next = next.map(|next| issuer.pages.seal(&caller, next)).transpose()?;
                Ok(v1::ListAgentsResponse { agents, next_page_token: next.unwrap_or_default(), revision })
            },
        )
        .await
    }

    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Result<Response<v1::GetAgentResponse>, Status> {
        self.run_for(
            methods::GET_AGENT,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let (agent, standing, over) = inspect::get(&issuer, &caller, issuer.agent_id(&r.agent)?)?;
                let mut message = agent_message(&issuer, &agent, standing);
                if let Some(why) = over {
                    message.over_at = Some(timestamp(why.at / SECOND));
                    (message.over_by, message.over_reason) = (why.by, why.reason);
                }
                Ok(v1::GetAgentResponse { agent: Some(message) })
            },
        )
        .await
    }
}
