//! `mayfly workloads`.

use std::collections::BTreeMap;

use clap::Subcommand;
use mayfly_agent::api::v1;
use serde_json::{Value, json};

use super::connect::Acting;
use super::exit::Failure;
use super::global::Global;
use super::output::table::Style;
use super::{happened, output};

/// See which workloads have joined, from where, and until when their certificates last (operator)
///
/// It reads the history, so it does not show a workload that joined before the oldest entry that is kept.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each workload
    List,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let Command::List = args.command;
    let mut client = happened::client(global, &args.acting).await?;
    let entries = happened::of_kinds(&mut client, &["certificate"], "").await?;
    let mut workloads: BTreeMap<&str, Vec<&v1::HistoryEntry>> = BTreeMap::new();
    for entry in &entries {
        workloads.entry(&entry.root_id).or_default().push(entry);
    }
    let objects: Vec<_> = workloads.iter().map(|(id, of)| object(id, of)).collect();
    output::print(global.output, &json!({ "workloads": objects }), || {
        let style = Style::of_stdout();
        let row = |(id, of): (&&str, &Vec<&v1::HistoryEntry>)| {
            let from = of.last().map(|entry| entry.peer.clone()).unwrap_or_default();
            let joined = style.time(of.first().and_then(|entry| entry.at.as_ref()));
            vec![style.id(id), joined, style.time(newest(of).and_then(|entry| entry.ends_at.as_ref())), from]
        };
        let head = ["WORKLOAD", "JOINED", "CERTIFICATE UNTIL", "FROM"];
        style.table("no workload has joined", &head, workloads.iter().map(row).collect())
    })
}

/// The certificate that lasts longest.
fn newest<'a>(certificates: &[&'a v1::HistoryEntry]) -> Option<&'a v1::HistoryEntry> {
    certificates.iter().max_by_key(|entry| entry.ends_at.as_ref().map_or(0, |at| at.seconds)).copied()
}

/// A workload from its certificates in the history, the oldest first.
fn object(id: &str, certificates: &[&v1::HistoryEntry]) -> Value {
    let last = newest(certificates);
    let at = |entry: Option<&&v1::HistoryEntry>| entry.map(|entry| output::precise_timestamp(entry.at.as_ref()));
    json!({
        "workload_id": id,
        "joined_at": at(certificates.first()),
        "certified_at": at(certificates.last()),
        "certificate_expires_at": last.and_then(|entry| output::optional_timestamp(entry.ends_at.as_ref())),
        "certificates": certificates.len(),
        "peer": certificates.last().map(|entry| entry.peer.as_str()).filter(|peer| !peer.is_empty()),
    })
}
