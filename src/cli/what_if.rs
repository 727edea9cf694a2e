//! `mayfly what-if`.

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::decisions_client::DecisionsClient;
use mayfly_agent::api::v1::what_if_request::What;
use serde_json::{Value, json};

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output;
use super::policy;
use super::revoke::UNKNOWN;
use super::target::{self, Target};

/// Say which live agents a change would end, or which could spawn no more, and change nothing (operator)
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A revocation: the agents that it would end, one by one
    #[command(group(ArgGroup::new("what").required(true).args(target::OPTIONS)))]
    Revoke(Target),
    /// Another value of a limit: the users, workloads or agents that would have no room for one more agent
    Limit {
        /// The name of a configured limit
        name: String,
        /// Its value: agents, or spawns at once or in a window
        value: u64,
    },
    /// Another set of policies: the agents that could not be renewed, and those that would get no token for some audience
    Policy {
        /// The folder with the `*.cedar` files
        dir: PathBuf,
    },
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let what = match args.command {
        Command::Revoke(target) => What::Revoke(v1::Target { target: Some(target.wire()?) }),
        Command::Limit { name, value } => What::Limit(v1::LimitChange { name, value }),
        Command::Policy { dir } => What::Policies(policy::set_message(&policy::load(&dir)?)),
    };
    let policies = matches!(what, What::Policies(_));
    let limits = matches!(what, What::Limit(_));
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let mut answers = DecisionsClient::new(channel).what_if(v1::WhatIfRequest { what: Some(what) }).await?.into_inner();
    let (mut agents, mut losses, mut last) = (Vec::new(), Vec::new(), v1::WhatIfResponse::default());
    while let Some(answer) = answers.message().await? {
        agents.extend(answer.agents.iter().cloned());
        losses.extend(answer.losses.iter().cloned());
        if answer.as_of.is_some() {
            last = answer;
        }
    }
    let as_of = last.as_of.ok_or_else(Failure::incomplete_answer)?;
    if policies {
        return taken(global, as_of, &losses);
    }
    let listed: Vec<Value> = agents.iter().map(output::agent::object).collect();
    let mut object = json!({ "revision": as_of.revision, "exact": as_of.exact, "at": output::timestamp(as_of.at.as_ref()) });
    output::insert(&mut object, if limits { "counted" } else { "would_end" }, listed);
    if limits {
        let starved = last.starved.iter().map(|s| json!({ "whose": s.whose, "used": s.used, "agents": s.agents }));
        output::insert(&mut object, "starved", starved.collect::<Vec<_>>());
        let source = last.source.unwrap_or_default();
        output::insert(&mut object, "where", source.r#where);
        output::insert(&mut object, "owner", source.owner);
    }
    if last.unknown_user {
        output::insert(&mut object, "unknown_user", true);
    }
    output::print(global.output, &object, || {
        if limits {
            return output::lines(&last.starved, "there would be room for all", |s| {
                format!("no room: {} uses {}, with {} agents", s.whose, s.used, s.agents)
            });
        }
        let mut lines = output::lines(&agents, "no agent would end", |agent| {
            format!("would end: {} for {}", agent.agent_id, output::agent::user(agent))
        });
        lines.extend(last.unknown_user.then(|| UNKNOWN.to_owned()));
        lines
    })
}

/// What a set of policies would take from agents.
fn taken(global: &Global, as_of: v1::AsOf, losses: &[v1::PolicyLoss]) -> Result<(), Failure> {
    let loss = |loss: &v1::PolicyLoss| {
        let source = loss.source.clone().unwrap_or_default();
        json!({ "agent_id": loss.agent_id, "action": loss.action, "audience": loss.audience,
                "policy": loss.policy, "where": source.r#where, "owner": source.owner })
    };
    let (end, starve): (Vec<_>, Vec<_>) = losses.iter().partition(|loss| loss.action == "renew");
    let list = |of: &[&v1::PolicyLoss]| of.iter().map(|one| loss(one)).collect::<Vec<Value>>();
    let object = json!({
        "revision": as_of.revision, "exact": as_of.exact, "at": output::timestamp(as_of.at.as_ref()), "agents": as_of.agents,
        "would_end": list(&end), "would_starve": list(&starve),
    });
    output::print(global.output, &object, || {
        let mut lines = output::lines(losses, "no agent would lose anything", |loss| {
            let owner = loss.source.clone().unwrap_or_default().owner;
            let why = match loss.policy.as_str() {
                "" => format!("no policy permits it (the set is owned by {owner})"),
                policy => format!("by {policy} of {owner}"),
            };
            match loss.action.as_str() {
                "renew" => format!("would end: {}  {why}", loss.agent_id),
                action => format!("would starve: {}  no {action} for {}  {why}", loss.agent_id, loss.audience),
            }
        });
        let not_exact = "this is not exact: agents changed meanwhile, faster than they could be followed, or a policy counts agents or budgets";
        lines.extend((!as_of.exact).then(|| not_exact.to_owned()));
        lines
    })
}
