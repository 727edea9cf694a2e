//! The service of decisions: why something is allowed or denied.

use std::pin::Pin;
use std::sync::Arc;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::explain_request::What as Wanted;
use mayfly_verify::Mode;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::approvals;
use super::identities::spawn_request;
use super::message::{agent_message, timestamp};
use super::server::decisions_server::Decisions;
use super::{Door, methods, targets};
use crate::acts::Issuer;
use crate::acts::revoke::{self, What};
use crate::clock::SECOND;
use crate::denial::Denial;
use crate::judge::Source;
use crate::judge::bound::Proved;
use crate::state::Standing;
use crate::why::explain::told::{Explanation, Part, Step};
use crate::why::explain::{self, What as Explained};
use crate::why::losses::{Loss, Losses};
use crate::why::survey::Found;
use crate::why::{governance, replay, what_if, who_can};

/// Agents in one message of a stream.
const AGENTS: usize = 500;
/// Most idle agents that a report names.
const IDLE: usize = 1000;
/// Agents in one message, each with what a set of policies would take from it: up to a kilobyte for each of its audiences.
const LOSING: usize = 16;
/// Most counts that an answer names, the fullest first.
const STARVED: usize = 1000;

/// A stream whose messages are made as they are taken.
type Pages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Decisions for Door {
    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        self.run(methods::EXPLAIN, request, |issuer, caller, r| async move {
            let what = match r.what {
                Some(Wanted::Agent(agent)) => Explained::Agent(agent),
                Some(Wanted::Certificates(credential)) => Explained::Certificates(credential.certificates),
                Some(Wanted::Token(token)) => Explained::Token(token),
                Some(Wanted::Decision(id)) => Explained::Decision(id),
                Some(Wanted::Spawn(spawn)) => Explained::Spawn(Box::new(spawn_request(dry(spawn)?, Proved::default())?.0)),
                None => {
                    let message = "say what to explain: an agent, a credential, a decision or a spawn";
                    return Err(Denial::malformed("EXPLAIN_MALFORMED", message).into());
                }
            };
            Ok(message(explain::explain(&issuer, caller, what).await?))
        })
        .await
    }

    type WhoCanStream = Pages<v1::WhoCanResponse>;

    async fn who_can(&self, request: Request<v1::WhoCanRequest>) -> Result<Response<Self::WhoCanStream>, Status> {
        self.run(methods::WHO_CAN, request, |issuer, caller, r| async move {
            let malformed = |e: mayfly_verify::NameError| Denial::malformed("CLASS_MALFORMED", e.to_string());
            let class = if r.class.is_empty() { None } else { Some(r.class.parse().map_err(malformed)?) };
            let user = r.user.map(|user| targets::user(&issuer, user)).transpose()?;
            let question = who_can::Question { scope: r.scope, audience: r.audience, user, class };
            let who_can::Answer { now, could } = who_can::who_can(&issuer, &caller, question).await?;
            let row = |c: who_can::Could| v1::CouldHave {
                class: c.class.to_string(),
                mode: if c.mode == Mode::Delegated { v1::Mode::Delegated } else { v1::Mode::Autonomous }.into(),
                provider: c.provider,
                audience: c.audience,
                spawners: c.spawners,
                source: Some(source(c.source)),
            };
            let last = v1::WhoCanResponse {
                could: could.into_iter().map(row).collect(),
                as_of: Some(as_of(&now)),
                ..Default::default()
            };
            let page = |agents| v1::WhoCanResponse { agents, ..Default::default() };
            Ok(pages(issuer, now, page, last))
        })
        .await
    }

    type WhatIfStream = Pages<v1::WhatIfResponse>;

    async fn what_if(&self, request: Request<v1::WhatIfRequest>) -> Result<Response<Self::WhatIfStream>, Status> {
        self.run(methods::WHAT_IF, request, |issuer, caller, r| async move {
            let what = match r.what {
                Some(v1::what_if_request::What::Revoke(target)) => match targets::revoked(&issuer, Some(target))? {
                    What::Target(target) => what_if::If::Revoke(target),
                    What::Before(_) => {
                        let message =
                            "a time is no target here: `mayfly revoke --before TIME --dry-run` counts what it would end";
                        return Err(Denial::malformed("EXPLAIN_MALFORMED", message).into());
                    }
                },
                Some(v1::what_if_request::What::Limit(limit)) => what_if::If::Limit(limit.name, limit.value),
                Some(v1::what_if_request::What::Policies(set)) => what_if::If::Policies(texts(set)),
                None => {
                    let message = "say what to imagine: a revocation, a limit with its value, or a set of policies";
                    return Err(Denial::malformed("EXPLAIN_MALFORMED", message).into());
                }
            };
            let unknown_user = match &what {
                what_if::If::Revoke(target) => revoke::is_unknown_user(&issuer, &What::Target(target.clone())),
                what_if::If::Limit(..) | what_if::If::Policies(_) => false,
            };
            let answer = what_if::what_if(&issuer, &caller, what).await?;
            let starved = |s: what_if::Starved| v1::Starved { whose: s.whose, used: s.used, agents: s.agents };
            let last = v1::WhatIfResponse {
                starved: answer.starved.into_iter().take(STARVED).map(starved).collect(),
                as_of: Some(as_of(&answer.agents)),
                source: answer.source.map(source),
                unknown_user,
                ..Default::default()
            };
            let page = |agents| v1::WhatIfResponse { agents, ..Default::default() };
            Ok(match answer.losses {
                Some(losses) => losing(issuer, answer.agents, losses, last),
                None => pages(issuer, answer.agents, page, last),
            })
        })
        .await
    }

    async fn replay(&self, request: Request<v1::ReplayRequest>) -> Result<Response<v1::ReplayResponse>, Status> {
        self.run(methods::REPLAY, request, |issuer, caller, r| async move {
            let since = r.since.as_ref().map(targets::microseconds).transpose()?.unwrap_or_default();
            let replayed = replay::replay(&issuer, &caller, since, r.candidate.map(texts)).await?;
            let difference = |d: replay::Difference| v1::ReplayDifference {
                revision: d.revision,
                at: Some(timestamp(d.at / SECOND)),
                // A denial made no agent.
                agent_id: match d.agent.is_nil() {
                    true => String::new(),
                    false => format!("spiffe://{}/agent/{}/{}", issuer.trust_domain, d.class, d.agent),
                },
                class: d.class,
                then: d.then,
                now: d.now,
                action: d.action.to_owned(),
            };
            Ok(v1::ReplayResponse {
                decided: replayed.decided,
                different: replayed.different,
                differences: replayed.differences.into_iter().map(difference).collect(),
                not_replayed: replayed.denials,
                configured_otherwise: replayed.configured_otherwise,
                policies_lost: replayed.policies_lost,
                denied: replayed.denied,
                tokens: replayed.tokens,
                revision: replayed.revision,
            })
        })
        .await
    }

    async fn govern(&self, request: Request<v1::GovernRequest>) -> Result<Response<v1::GovernResponse>, Status> {
        self.run(methods::GOVERN, request, |issuer, caller, r| async move {
            let since = r.since.as_ref().map(targets::microseconds).transpose()?.unwrap_or_default();
            let report = governance::governance(&issuer, &caller, since).await?;
            let unused = |unused: governance::Unused| v1::UnusedCeiling {
                class: unused.class.to_string(),
                scopes: unused.scopes,
                audiences: unused.audiences,
                source: Some(source(unused.source)),
            };
            let review = |review: governance::Review| v1::DueReview {
                policy: review.policy,
                review: review.due.unwrap_or_default(),
                source: Some(source(review.source)),
            };
            let idle = report.idle.agents.iter().take(IDLE);
            let known = issuer.ledger.read(|state| idle.filter_map(|uuid| state.agent(uuid).cloned()).collect::<Vec<_>>());
            Ok(v1::GovernResponse {
                unowned: report.unowned.into_iter().map(source).collect(),
                closed_owners: report.closed_owners.into_iter().map(source).collect(),
                unused: report.unused.into_iter().map(unused).collect(),
                idle_agents: known.iter().map(|agent| agent.id(&issuer.trust_domain).to_string()).collect(),
                admissions: report.admissions,
                since: Some(timestamp(report.since / SECOND)),
                complete: report.complete,
                revision: report.idle.revision,
                reviews: report.reviews.into_iter().map(review).collect(),
                approvals: report.approvals.iter().map(|known| approvals::message(&issuer, known)).collect(),
            })
        })
        .await
    }
}

/// The agents of a survey, read page by page as the client takes them, and then a last message.
fn pages<T: Send + 'static>(
    issuer: Arc<Issuer>,
    found: Found,
    page: impl Fn(Vec<v1::Agent>) -> T + Send + 'static,
    last: T,
) -> Pages<T> {
    let uuids: Vec<_> = found.agents.into_iter().collect();
    let chunks: Vec<Vec<_>> = uuids.chunks(AGENTS).map(<[_]>::to_vec).collect();
    let agents = tokio_stream::iter(chunks).map(move |uuids| {
        // An agent stays in the state for an hour after its end, so all agents that were found can still be read here.
        let known: Vec<_> = issuer.ledger.read(|state| uuids.iter().filter_map(|uuid| state.agent(uuid).cloned()).collect());
        let told = known.iter().map(|agent| agent_message(&issuer, agent, Standing::Live)).collect();
        Ok(page(told))
    });
    Box::pin(agents.chain(tokio_stream::iter([Ok(last)])))
}

/// The agents that would lose something by a set of policies, each with that, found page by page as the client takes them; and then a last
/// message. Policies are evaluated away from the threads that answer requests, and for one agent under a lock.
fn losing(issuer: Arc<Issuer>, found: Found, losses: Losses, last: v1::WhatIfResponse) -> Pages<v1::WhatIfResponse> {
    let uuids: Vec<_> = found.agents.into_iter().collect();
    let chunks: Vec<Vec<_>> = uuids.chunks(LOSING).map(<[_]>::to_vec).collect();
    let losses = Arc::new(losses);
    let agents = tokio_stream::iter(chunks).then(move |uuids| {
        let (issuer, losses) = (Arc::clone(&issuer), Arc::clone(&losses));
        async move {
            let page = tokio::task::spawn_blocking(move || {
                let look = |uuid: &Uuid| {
                    issuer
                        .ledger
                        .read(|state| state.agent(uuid).map(|agent| (agent.clone(), losses.of(state, agent, usize::MAX))))
                };
                let known = uuids.iter().filter_map(look);
                let message = |(agent, lost): (_, Vec<Loss>)| {
                    let told = agent_message(&issuer, &agent, Standing::Live);
                    let lost: Vec<_> = lost.into_iter().map(|loss| loss_message(&told, loss)).collect();
                    (told, lost)
                };
                known.map(message).unzip::<_, _, Vec<_>, Vec<_>>()
            });
            let (agents, lost) = page.await.map_err(|e| Status::internal(format!("what if: {e}")))?;
            Ok(v1::WhatIfResponse { agents, losses: lost.concat(), ..Default::default() })
        }
    });
    Box::pin(agents.chain(tokio_stream::iter([Ok(last)])))
}

fn loss_message(agent: &v1::Agent, loss: Loss) -> v1::PolicyLoss {
    v1::PolicyLoss {
        agent_id: agent.agent_id.clone(),
        action: loss.action.as_str().to_owned(),
        audience: loss.audience,
        policy: loss.policy,
        source: Some(source(loss.source)),
    }
}

/// The texts of a set of policies, by the names of their files.
fn texts(set: v1::PolicySet) -> Vec<(String, String)> {
    set.texts.into_iter().map(|text| (text.file, text.text)).collect()
}

fn as_of(found: &Found) -> v1::AsOf {
    let agents = u64::try_from(found.agents.len()).unwrap_or(u64::MAX);
    v1::AsOf { revision: found.revision, exact: found.exact, at: Some(timestamp(found.at / SECOND)), agents }
}

/// The spawn of a dry run has no key and no request id. It is read like one that asks for a ticket.
fn dry(spawn: v1::SpawnRequest) -> Result<v1::SpawnRequest, Denial> {
    if !spawn.csr.is_empty() || !spawn.request_id.is_empty() {
        let message = "a spawn that is only explained has no key and no request id: leave both out";
        return Err(Denial::malformed("EXPLAIN_MALFORMED", message));
    }
    Ok(v1::SpawnRequest { ticket: !spawn.keyless, ..spawn })
}

fn message(explained: Explanation) -> v1::ExplainResponse {
    let (reason, message) = explained.denial.map_or_else(Default::default, |denial| (denial.code.to_owned(), denial.message));
    let check = |row: explain::told::Row| v1::ExplainedCheck {
        check: row.check.to_owned(),
        passed: row.passed,
        saw: row.saw,
        source: Some(source(row.source)),
    };
    let policy = |(id, of)| v1::ExplainedPolicy { id, source: Some(source(of)) };
    let limit = |used: explain::told::Used| v1::ExplainedLimit {
        name: used.name,
        per: used.per.to_owned(),
        measure: used.measure.to_owned(),
        used: used.used,
        limit: used.limit,
        source: Some(source(used.source)),
    };
    v1::ExplainResponse {
        about: explained.about,
        allowed: reason.is_empty(),
        reason,
        message,
        checks: explained.checks.into_iter().map(check).collect(),
        scopes: explained.scopes.into_iter().map(part).collect(),
        audiences: explained.audiences.into_iter().map(part).collect(),
        limits: explained.limits.into_iter().map(limit).collect(),
        policies: explained.policies.into_iter().map(policy).collect(),
        flip: explained.flip.into_iter().map(|set| v1::Flip { changes: set.into_iter().map(change).collect() }).collect(),
        flip_complete: explained.complete,
        decision_id: explained.decision,
        revision: explained.revision,
        at: Some(timestamp(explained.at / SECOND)),
    }
}

fn change(step: Step) -> v1::FlipChange {
    v1::FlipChange { change: step.change.as_str().to_owned(), text: step.text, source: Some(source(step.source)) }
}

fn part(part: Part) -> v1::ExplainedPart {
    let from = part.from.into_iter().map(source).collect();
    v1::ExplainedPart { name: part.name, from, removed_by: part.removed_by.map(source) }
}

fn source(source: Source) -> v1::Source {
    let at = if source.at.is_empty() { source.key } else { format!("{} {}", source.at, source.key) };
    v1::Source { r#where: at, owner: source.owner }
}
