//! `mayfly agents`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use serde_json::{Value, json};

use super::connect::{self, Acting, Channel};
use super::exit::Failure;
use super::found;
use super::global::Global;
use super::output::table::Style;
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
        #[command(flatten)]
        filters: Filters,
    },
    /// Workloads with the agents below them
    Tree {
        #[command(flatten)]
        filters: Filters,
    },
    /// All that is known of one agent
    Show {
        /// SPIFFE ID, class and UUID as tables on a terminal show them, UUID, or the beginning of a UUID
        agent: String,
    },
}

// No documentation comment: clap would show it as the help of each command that has these options.
#[derive(clap::Args)]
struct Filters {
    /// Also those that ended, expired or were revoked
    #[arg(long)]
    all: bool,
    /// Only those of a class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Only those that act for a user: <issuer>/<subject>, the issuer by its configured name or its URL; or a subject, of any issuer
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only those below a workload: its name, or its SPIFFE ID
    #[arg(long, alias = "workload", value_name = "NAME")]
    root: Option<String>,
    /// Only those whose UUID begins with this
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
}

impl Filters {
    fn fits(&self, agent: &v1::Agent) -> bool {
        let is = |wanted: &Option<String>, fits: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(fits);
        is(&self.class, &|class| agent.class == class)
            && is(&self.root, &|root| agent.root_id == root || agent.root_id.ends_with(&format!("/workload/{root}")))
            && is(&self.id, &|id| found::uuid(agent).starts_with(&id.to_ascii_lowercase()))
            && is(&self.user, &|wanted| {
                let whole = |user: &v1::User| format!("{}/{}", user.iss, user.sub);
                agent.user.as_ref().is_some_and(|user| user.name == wanted || user.sub == wanted || whole(user) == wanted)
            })
    }
}

/// The children of each id: of workloads and of agents.
type Children<'a> = BTreeMap<&'a str, Vec<&'a v1::Agent>>;

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let client = InspectionClient::new(connect::as_identity_or_operator(global, &args.acting).await?);
    match args.command {
        Command::List { filters } => list(client, &filters, global.output).await,
        Command::Tree { filters } => tree(client, &filters, global.output).await,
        Command::Show { agent } => show(client, agent, global.output).await,
    }
}

async fn list(client: InspectionClient<Channel>, filters: &Filters, format: Format) -> Result<(), Failure> {
    let Fetched { agents, revision, over } = fetch(client, filters, format).await?;
    let objects: Vec<_> = agents.iter().map(output::agent::object).collect();
    output::print(format, &json!({ "agents": objects, "revision": revision }), || output::agent::table(&agents, &none(over)))
}

async fn tree(client: InspectionClient<Channel>, filters: &Filters, format: Format) -> Result<(), Failure> {
    let Fetched { agents, revision, over } = fetch(client, filters, format).await?;
    let mut children = Children::new();
    for agent in &agents {
        children.entry(&agent.parent_id).or_default().push(agent);
    }
    let roots: BTreeSet<&str> = agents.iter().map(|agent| agent.root_id.as_str()).collect();
    let objects: Vec<_> = roots.iter().map(|root| json!({ "id": root, "agents": branch(root, &children) })).collect();
    output::print(format, &json!({ "revision": revision, "roots": objects }), || {
        let style = Style::of_stdout();
        let rows: Vec<_> = roots.iter().flat_map(|root| branch_rows(root, &children, style)).collect();
        if rows.is_empty() { vec![none(over)] } else { style.aligned(&rows) }
    })
}

async fn show(mut client: InspectionClient<Channel>, agent: String, format: Format) -> Result<(), Failure> {
    let object = output::agent::object(&found::agent(&mut client, &agent, "").await?);
    output::print(format, &object, || output::fields(&object))
}

/// The agents that match the filters.
struct Fetched {
    agents: Vec<v1::Agent>,
    /// The revision of the last page.
    revision: u64,
    /// How many match but may not act any more, and are left out.
    over: usize,
}

async fn fetch(mut client: InspectionClient<Channel>, filters: &Filters, format: Format) -> Result<Fetched, Failure> {
    let (mut agents, revision) = found::all(&mut client, filters.all, "").await?;
    agents.retain(|agent| filters.fits(agent));
    let mut over = 0;
    // Programs are not told of it, so nothing is asked for them.
    if agents.is_empty() && !filters.all && format == Format::Text {
        over = found::all(&mut client, true, "").await?.0.iter().filter(|agent| filters.fits(agent)).count();
    }
    Ok(Fetched { agents, revision, over })
}

/// The text of a list or a tree without agents.
fn none(over: usize) -> String {
    match over {
        0 => "no agents".to_owned(),
        over => format!("no agents now; {over} ended, expired or were revoked: see them with --all"),
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

/// A root, and a row for each agent below it, indented by its depth.
fn branch_rows(root: &str, children: &Children<'_>, style: Style) -> Vec<Vec<String>> {
    let mut rows = vec![vec![root.to_owned()]];
    // The agents that are still to be printed, the next one last, each with its depth.
    let mut open: Vec<(&v1::Agent, usize)> = Vec::new();
    let push_children = |open: &mut Vec<_>, id: &str, depth: usize| {
        let below = children.get(id).into_iter().flatten();
        open.extend(below.rev().map(|agent| (*agent, depth)));
    };
    push_children(&mut open, root, 1);
    while let Some((agent, depth)) = open.pop() {
        let mut row = output::agent::row(agent, style);
        if let Some(id) = row.first_mut() {
            id.insert_str(0, &"  ".repeat(depth));
        }
        rows.push(row);
        push_children(&mut open, &agent.agent_id, depth + 1);
    }
    rows
}
