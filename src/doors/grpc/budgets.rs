//! The service of budgets: show, spend, reserve, release.

use mayfly_agent::api::v1;
use mayfly_verify::AgentId;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::message::timestamp;
use super::server::budgets_server::Budgets;
use super::{Door, methods};
use crate::acts::Issuer;
use crate::acts::budget::{self, Left, Reserve, Spend};
use crate::clock::SECOND;
use crate::denial::Denial;
use crate::judge::budget::Line;
use crate::state::{Hold, Unit};

#[tonic::async_trait]
impl Budgets for Door {
    async fn get_budget(&self, request: Request<v1::GetBudgetRequest>) -> Result<Response<v1::GetBudgetResponse>, Status> {
        self.run(methods::GET_BUDGET, request, |issuer, caller, r| async move {
            let (agent, lines, holds) = budget::show(&issuer, &caller, issuer.agent_id(&r.agent)?)?;
            let line = |line: Line| v1::BudgetLine {
                agent_id: line.id(&issuer.trust_domain).to_string(),
                unit: message(line.unit).into(),
                limit: line.limit,
                spent: line.spent,
                reserved: line.held,
                left: line.left(),
                class: line.class.to_string(),
                owner: line.owner,
            };
            let reservation = |(id, agent, hold): (u64, AgentId, Hold)| v1::Reservation {
                reservation: id,
                agent_id: agent.to_string(),
                unit: message(hold.unit).into(),
                left: hold.left,
                expires_at: Some(timestamp(hold.ends_at / SECOND)),
            };
            Ok(v1::GetBudgetResponse {
                agent_id: agent.to_string(),
                lines: lines.into_iter().map(line).collect(),
                reservations: holds.into_iter().map(reservation).collect(),
            })
        })
        .await
    }

    async fn spend(&self, request: Request<v1::SpendRequest>) -> Result<Response<v1::SpendResponse>, Status> {
        self.run(methods::SPEND, request, |issuer, caller, r| async move {
            let agent = agent(&issuer, &r.agent)?;
            let reservation = Some(r.reservation).filter(|id| *id > 0);
            let spend = Spend { agent, unit: unit(r.unit)?, amount: r.amount, reservation, request: None };
            let Left { agent, revision, left, reservation_left, .. } =
                budget::spend(&issuer, caller, spend, &r.request_id).await?;
            Ok(v1::SpendResponse { agent_id: agent.to_string(), revision, left, reservation_left })
        })
        .await
    }

    async fn reserve(&self, request: Request<v1::ReserveRequest>) -> Result<Response<v1::ReserveResponse>, Status> {
        self.run(methods::RESERVE, request, |issuer, caller, r| async move {
            let agent = agent(&issuer, &r.agent)?;
            let reserve = Reserve { agent, unit: unit(r.unit)?, amount: r.amount, life: r.life_seconds.into(), request: None };
            let Left { agent, revision, left, ends_at, .. } = budget::reserve(&issuer, caller, reserve, &r.request_id).await?;
            let expires_at = Some(timestamp(ends_at));
            Ok(v1::ReserveResponse { agent_id: agent.to_string(), reservation: revision, left, expires_at })
        })
        .await
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        self.run(methods::RELEASE, request, |issuer, caller, r| async move {
            let Left { agent, revision, left, .. } = budget::release(&issuer, caller, r.reservation).await?;
            Ok(v1::ReleaseResponse { agent_id: agent.to_string(), revision, left })
        })
        .await
    }
}

fn agent(issuer: &Issuer, text: &str) -> Result<Option<Uuid>, Denial> {
    if text.is_empty() { Ok(None) } else { issuer.agent_id(text).map(Some) }
}

fn unit(number: i32) -> Result<Unit, Denial> {
    match v1::BudgetUnit::try_from(number) {
        Ok(v1::BudgetUnit::Ops) => Ok(Unit::Ops),
        Ok(v1::BudgetUnit::Tokens) => Ok(Unit::Tokens),
        Ok(v1::BudgetUnit::MicroUsd) => Ok(Unit::Usd),
        _ => Err(Denial::malformed("AMOUNT_MALFORMED", "say what is counted: ops, tokens or millionths of a dollar")),
    }
}

fn message(unit: Unit) -> v1::BudgetUnit {
    match unit {
        Unit::Ops => v1::BudgetUnit::Ops,
        Unit::Tokens => v1::BudgetUnit::Tokens,
        Unit::Usd => v1::BudgetUnit::MicroUsd,
    }
}
