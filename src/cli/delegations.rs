//! `mayfly delegations`.

use clap::Subcommand;
use serde_json::json;

use super::connect::Acting;
use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::happened;
use super::output::{self, delegation as shown};

/// See what users let workloads do: who consented, when, by which token, and to what at most
///
/// It reads the history, so it also knows delegations that have ended, for as long as the history is kept.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each delegation that has not ended
    List {
        /// Also those that have ended
        #[arg(long)]
        all: bool,
    },
    /// All that is known of one delegation, with the revocations that affect it
    Show {
        /// Its id, which agents show as `delegation_id`
        delegation: String,
    },
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let mut client = happened::client(global, &args.acting).await?;
    let entries = happened::of_kinds(&mut client, &["delegation", "revocation"], "").await?;
    let (delegations, revocations): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.kind == "delegation");
    match args.command {
        Command::List { all } => {
            let delegations: Vec<_> = delegations.iter().filter(|entry| all || !shown::has_ended(entry)).collect();
            let objects: Vec<_> = delegations.iter().map(|entry| shown::object(entry, &revocations)).collect();
            output::print(global.output, &json!({ "delegations": objects }), || {
                shown::table(&delegations, &revocations, "no delegations")
            })
        }
        Command::Show { delegation } => {
            let found = delegations.iter().find(|entry| entry.delegation_id == delegation);
            let unknown = || format!("there is no delegation `{delegation}`, or it is older than what the history keeps");
            let object = shown::object(found.ok_or_else(|| Failure::new(FAILURE, unknown()))?, &revocations);
            output::print(global.output, &object, || output::fields(&object))
        }
    }
}
