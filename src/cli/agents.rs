//! `mayfly agents`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output::{self, Format};

/// See the agents that the issuer knows (operator); with --as, those that the identity may see
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each agent
    List {
        /// Also those that ended, expired or were revoked
        #[arg(long)]
        all: bool,
    },
    /// Workloads with the agents below them
    Tree {
        /// Also those that ended, expired or were revoked
        #[arg(long)]
        all: bool,
    },
    /// All that is known of one agent
    Show {
        /// SPIFFE ID or UUID
        agent: String,
    },
}

/// The children of each id: of workloads and of agents.
type Children<'a> = BTreeMap<&'a str, Vec<&'a v1::Agent>>;

/// What the text of a list or a tree says when there is nothing to show.
const NONE: &str = "no agents";

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let client = InspectionClient::new(connect::as_identity_or_operator(&global.home, &args.acting).await?);
    match args.command {
        Command::List { all } => list(client, all, global.output).await,
        Command::Tree { all } => tree(client, all, global.output).await,
        Command::Show { agent } => show(client, agent, global.output).await,
    }
}

async fn list(client: InspectionClient<Channel>, all: bool, format: Format) -> Result<(), Failure> {
    let (agents, revision) = fetch(client, all).await?;
    let objects: Vec<_> = agents.iter().map(output::agent::object).collect();
    output::print(format, &json!({ "agents": objects, "revision": revision }), || {
        output::lines(&agents, NONE, output::agent::line)
    })
}

async fn tree(client: InspectionClient<Channel>, all: bool, format: Format) -> Result<(), Failure> {
    let (agents, revision) = fetch(client, all).await?;
    let mut children = Children::new();
    for agent in &agents {
        children.entry(&agent.parent_id).or_default().push(agent);
    }
    let roots: BTreeSet<&str> = agents.iter().map(|agent| agent.root_id.as_str()).collect();
    let objects: Vec<_> = roots.iter().map(|root| json!({ "id": root, "agents": branch(root, &children) })).collect();
    output::print(format, &json!({ "revision": revision, "roots": objects }), || {
        let lines: Vec<_> = roots.iter().flat_map(|root| branch_lines(root, &children)).collect();
        output::lines(&lines, NONE, String::clone)
    })
}

async fn show(mut client: InspectionClient<Channel>, agent: String, format: Format) -> Result<(), Failure> {
    let got = client.get_agent(v1::GetAgentRequest { agent }).await?.into_inner();
    let object = output::agent::object(&got.agent.ok_or_else(Failure::incomplete_answer)?);
    output::print(format, &object, || output::fields(&object))
}

/// All pages, with the revision of the last one.
async fn fetch(mut client: InspectionClient<Channel>, all: bool) -> Result<(Vec<v1::Agent>, u64), Failure> {
    let mut agents = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client.list_agents(v1::ListAgentsRequest { page_size: 1000, page_token, all }).await?.into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            return Ok((agents, page.revision));
        }
        page_token = page.next_page_token;
    }
}

/// The agents below an id, each with the agents below it.
fn branch(id: &str, children: &Children<'_>) -> Vec<Value> {
    let below = children.get(id).into_iter().flatten();
    below
        .map(|agent| {
            let mut object = output::agent::object(agent);
            output::insert(&mut object, "agents", branch(&agent.agent_id, children));
            object
        })
        .collect()
}

/// A root, and a line for each agent below it, indented by its depth.
fn branch_lines(root: &str, children: &Children<'_>) -> Vec<String> {
    let mut lines = vec![root.to_owned()];
    // What is still to be printed, the next one last, each with its depth.
    let mut open: Vec<(&v1::Agent, usize)> = Vec::new();
    let push_children = |open: &mut Vec<_>, id: &str, depth: usize| {
        let below = children.get(id).into_iter().flatten();
        open.extend(below.rev().map(|agent| (*agent, depth)));
    };
    push_children(&mut open, root, 1);
    while let Some((agent, depth)) = open.pop() {
        lines.push(format!("{}{}", "  ".repeat(depth), output::agent::line(agent)));
        push_children(&mut open, &agent.agent_id, depth + 1);
    }
    lines
}
