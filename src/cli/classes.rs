//! `mayfly classes`.

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use serde_json::{Value, json};

use super::connect::{self, Acting};
use super::duration::Length;
use super::exit::Failure;
use super::global::Global;
use super::output;
use super::output::table::Style;

/// See the kinds of agents, with the most that each may do (operator); with --as, those that the identity may spawn
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each class
    List,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let Command::List = args.command;
    let operator = args.acting.identity.is_none();
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let got = InspectionClient::new(channel).list_classes(v1::ListClassesRequest {}).await?.into_inner();
    let objects: Vec<_> = got.classes.iter().map(|class| object(class, operator)).collect();
    output::print(global.output, &json!({ "classes": objects, "revision": got.revision }), || {
        let head = ["CLASS", "OWNER", "SPAWNED BY", "LEASE", "SCOPES"];
        Style::of_stdout().table("no classes, or none that you may spawn", &head, got.classes.iter().map(row).collect())
    })
}

fn object(class: &v1::Class, operator: bool) -> Value {
    let mode = |mode: v1::Mode| if mode == v1::Mode::Autonomous { "autonomous" } else { "delegated" };
    json!({
        "class": class.name,
        "owner": class.owner,
        "scopes": class.scopes,
        "audiences": class.audiences,
        "svid_ttl_seconds": class.svid_ttl_seconds,
        "max_lease_seconds": class.max_lease_seconds,
        "max_depth": class.max_depth,
        "modes": class.modes().map(mode).collect::<Vec<_>>(),
        "spawners": class.spawners,
        "closed": class.closed,
        "live_agents": operator.then_some(class.live_agents),
    })
}

fn row(class: &v1::Class) -> Vec<String> {
    let name = if class.closed { format!("{} (closed)", class.name) } else { class.name.clone() };
    let lease = Length::of(class.max_lease_seconds).to_string();
    vec![name, class.owner.clone(), class.spawners.join(" "), lease, class.scopes.join(" ")]
}
