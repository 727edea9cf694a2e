//! The service of inspection: the agents that the caller may see.

use mayfly_agent::api::v1;
use mayfly_verify::{Mode, Workload};
use tonic::{Request, Response, Status};

use super::message::{agent_message, timestamp};
use super::server::inspection_server::Inspection;
use super::{Door, methods};
use crate::acts::Issuer;
use crate::acts::inspect::{self, Known};
use crate::acts::status;
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

    async fn list_classes(&self, request: Request<v1::ListClassesRequest>) -> Result<Response<v1::ListClassesResponse>, Status> {
        self.run(methods::LIST_CLASSES, request, |issuer, caller, _| async move {
            let (classes, revision) = inspect::classes(&issuer, &caller);
            Ok(v1::ListClassesResponse { classes: classes.into_iter().map(class).collect(), revision })
        })
        .await
    }

    async fn get_status(&self, request: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.run(methods::GET_STATUS, request, |issuer, _, _| async move { Ok(status_message(&issuer)) }).await
    }
}

/// The status as a message.
fn status_message(issuer: &Issuer) -> v1::GetStatusResponse {
    let now = status::status(issuer);
    let trouble = |said: Result<(), String>| said.err().unwrap_or_default();
    let part = |(name, said): (&'static str, Result<(), String>)| v1::StatusPart { name: name.into(), trouble: trouble(said) };
    let provider = |(name, iss, said): (String, String, Option<Result<(), String>>)| v1::StatusProvider {
        name,
        iss,
        asked: said.is_some(),
        trouble: said.map(trouble).unwrap_or_default(),
    };
    v1::GetStatusResponse {
        trust_domain: issuer.trust_domain.to_string(),
        version: crate::VERSION.into(),
        started_at: Some(timestamp(issuer.health.started_at)),
        revision: now.revision,
        live_agents: now.live,
        ready: now.ready.is_ready(),
        parts: now.ready.parts.into_iter().map(part).collect(),
        providers: now.providers.into_iter().map(provider).collect(),
        history: Some(v1::StatusHistory {
            first: now.entries.0,
            end: now.entries.1,
            revision: now.in_history,
            signed: now.signed,
        }),
        warnings: now.ready.warnings,
    }
}

fn class(known: Known) -> v1::Class {
    let Known { class, closed, live } = known;
    let mode = |mode: &Mode| match mode {
        Mode::Delegated => v1::Mode::Delegated.into(),
        Mode::Autonomous => v1::Mode::Autonomous.into(),
    };
    let workload = |workload: &Workload| match workload {
        Workload::Own(name) => format!("workload/{name}"),
        foreign @ Workload::Foreign(_) => foreign.to_string(),
    };
    let classes = class.classes.iter().map(|name| format!("class/{name}"));
    v1::Class {
        name: class.name.to_string(),
        owner: class.owner,
        scopes: class.scopes.into_iter().collect(),
        audiences: class.audiences.into_iter().collect(),
        svid_ttl_seconds: class.svid_ttl,
        max_lease_seconds: class.max_lease,
        max_depth: class.max_depth,
        modes: class.modes.iter().map(mode).collect(),
        spawners: class.workloads.iter().map(workload).chain(classes).collect(),
        closed,
        live_agents: live,
    }
}
