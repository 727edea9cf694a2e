//! The service of approvals: agents ask, people answer.

use mayfly_agent::api::v1;
use tonic::{Request, Response, Status};

use super::message::{timestamp, user_message};
use super::server::approvals_server::Approvals;
use super::{Door, methods};
use crate::acts::answer::Says;
use crate::acts::approvals::{self, Known};
use crate::acts::{Issuer, answer, ask};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::No;
use crate::state::{Approval, Status as Standing};

#[tonic::async_trait]
impl Approvals for Door {
    async fn ask(&self, request: Request<v1::AskRequest>) -> Result<Response<v1::AskResponse>, Status> {
        self.run(methods::ASK, request, |issuer, caller, r| async move {
            let v1::AskRequest { audience, authorization_details: details, scopes, reason, expires_seconds: expires } = r;
            let (approval, revision) =
                ask::ask(&issuer, caller.clone(), ask::Asked { audience, scopes, details, reason, expires }).await?;
            Ok(v1::AskResponse { approval: Some(as_it_stands(&issuer, &caller, &approval)?), revision })
        })
        .await
    }

    async fn get_approval(&self, request: Request<v1::GetApprovalRequest>) -> Result<Response<v1::GetApprovalResponse>, Status> {
        self.run_for(
            methods::GET_APPROVAL,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let known = approvals::get(&issuer, &caller, &r.approval_id)?;
                Ok(v1::GetApprovalResponse { approval: Some(message(&issuer, &known)) })
            },
        )
        .await
    }

    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        self.run_for(
            methods::LIST_APPROVALS,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let (known, revision) = approvals::list(&issuer, &caller, r.all);
                let approvals = known.iter().map(|known| message(&issuer, known)).collect();
                Ok(v1::ListApprovalsResponse { approvals, revision })
            },
        )
        .await
    }

    async fn approve(&self, request: Request<v1::ApproveRequest>) -> Result<Response<v1::ApproveResponse>, Status> {
        self.run_for(
            methods::APPROVE,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let shown = answer::digest(&r.digest)?;
                let says = match r.narrowed {
                    None => Says::Yes { shown },
                    Some(v1::Narrowed { authorization_details: details, scopes }) => Says::Part { shown, details, scopes },
                };
                let answered = answer::answer(&issuer, caller.clone(), &r.approval_id, &r.user_token, says).await?;
                let (approval, revision) = answered;
                Ok(v1::ApproveResponse { approval: Some(as_it_stands(&issuer, &caller, &approval)?), revision })
            },
        )
        .await
    }

    async fn deny(&self, request: Request<v1::DenyRequest>) -> Result<Response<v1::DenyResponse>, Status> {
        self.run_for(
            methods::DENY,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let (approval, revision) =
                    answer::answer(&issuer, caller.clone(), &r.approval_id, &r.user_token, Says::No).await?;
                Ok(v1::DenyResponse { approval: Some(as_it_stands(&issuer, &caller, &approval)?), revision })
            },
        )
        .await
    }
}

/// The message for an approval that was just recorded.
fn as_it_stands(issuer: &Issuer, caller: &Caller, approval: &Approval) -> Result<v1::Approval, No> {
    Ok(message(issuer, &approvals::get(issuer, caller, &hex::encode(approval.id))?))
}

/// An approval as a message.
pub(super) fn message(issuer: &Issuer, known: &Known) -> v1::Approval {
    let Known { approval, status, agent } = known;
    let state = match status {
        Standing::Pending => v1::ApprovalState::Pending,
        Standing::Approved => v1::ApprovalState::Approved,
        Standing::Denied => v1::ApprovalState::Denied,
        Standing::Expired => v1::ApprovalState::Expired,
        Standing::Used => v1::ApprovalState::Used,
        Standing::Revoked => v1::ApprovalState::Revoked,
    };
    let user = |user: &mayfly_verify::User| user_message(issuer, user);
    v1::Approval {
        approval_id: hex::encode(approval.id),
        state: state.into(),
        agent_id: agent.id(&issuer.trust_domain).to_string(),
        chain: agent.chain(&issuer.trust_domain),
        user: approval.user.as_ref().map(user),
        delegation_id: agent.delegation.as_ref().map(|d| d.id.to_string()).unwrap_or_default(),
        audience: approval.audience.clone(),
        scopes: approval.scopes.clone(),
        authorization_details: approval.details.clone(),
        reason: approval.reason.clone(),
        digest: hex::encode(approval.digest),
        asked_at: Some(timestamp(approval.asked_at / SECOND)),
        expires_at: Some(timestamp(approval.ends_at / SECOND)),
        uses: approval.uses,
        used: approval.used,
        lasts_seconds: approval.lasts,
        answered_by: approval.answer.as_ref().map(|answer| user(&answer.by)),
        answered_at: approval.answer.as_ref().map(|answer| timestamp(answer.at / SECOND)),
        evidence: approval.answer.as_ref().map(|answer| hex::encode(answer.evidence)).unwrap_or_default(),
        narrowed: approval
            .answer
            .as_ref()
            .and_then(|answer| answer.narrowed.as_ref())
            .map(|narrowed| v1::Narrowed { authorization_details: narrowed.details.clone(), scopes: narrowed.scopes.clone() }),
        page: approvals::page(issuer, approval.id).unwrap_or_default(),
    }
}
