//! `mayfly delegations`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use mayfly_agent::api::v1;
use serde_json::{Value, json};

use super::connect::Acting;
use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::{happened, output};

/// See what users let workloads do: who consented, when, by which token, and to what at most
///
/// It reads the history, so delegations that have ended are told too, for as long as that is kept.
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
    /// All that is known of one delegation, with what was revoked of it
    Show {
        /// Its id, as agents have it in `delegation_id`
        delegation: String,
    },
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let mut client = happened::client(global, &args.acting).await?;
    let entries = happened::of_kinds(&mut client, &["delegation", "revocation"]).await?;
    let (delegations, revocations): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.kind == "delegation");
    match args.command {
        Command::List { all } => {
            let delegations: Vec<_> = delegations.iter().filter(|entry| all || !has_ended(entry)).collect();
            let objects: Vec<_> = delegations.iter().map(|entry| object(entry, &revocations)).collect();
            output::print(global.output, &json!({ "delegations": objects }), || {
                output::lines(&delegations, "no delegations", |entry| line(entry))
            })
        }
        Command::Show { delegation } => {
            let found = delegations.iter().find(|entry| entry.delegation_id == delegation);
            let unknown = || format!("there is no delegation `{delegation}`, or it is older than what the history keeps");
            let object = object(found.ok_or_else(|| Failure::new(FAILURE, unknown()))?, &revocations);
            output::print(global.output, &object, || output::fields(&object))
        }
    }
}

fn has_ended(entry: &v1::HistoryEntry) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    entry.ends_at.as_ref().is_some_and(|ends| u64::try_from(ends.seconds).unwrap_or(0) <= now)
}

fn object(entry: &v1::HistoryEntry, revocations: &[v1::HistoryEntry]) -> Value {
    // Of this delegation, or of its user since.
    let hits = |r: &&v1::HistoryEntry| {
        let whole_user = r.target.starts_with("user ") && r.user == entry.user && r.revision > entry.revision;
        whole_user || r.target == format!("delegation {}", entry.delegation_id)
    };
    let revoked = |r: &v1::HistoryEntry| {
        json!({
            "at": output::precise_timestamp(r.at.as_ref()),
            "by": r.caller,
            "reason": r.reason,
            "target": r.target,
            "decision_id": r.decision_id,
        })
    };
    json!({
        "delegation_id": entry.delegation_id,
        "user": entry.user.as_ref().map(|u| json!({ "iss": u.iss, "sub": u.sub })),
        "root_id": entry.root_id,
        "recorded_at": output::precise_timestamp(entry.at.as_ref()),
        "ends_at": output::optional_timestamp(entry.ends_at.as_ref()),
        "has_ended": has_ended(entry),
        // No ceiling of its own: the class and the audience bound it.
        "scopes": Some(&entry.scopes).filter(|scopes| !scopes.is_empty()),
        "token": entry.target.strip_prefix("token "),
        "peer": Some(&entry.peer).filter(|peer| !peer.is_empty()),
        "decision_id": entry.decision_id,
        "revocations": revocations.iter().filter(hits).map(revoked).collect::<Vec<_>>(),
    })
}

fn line(entry: &v1::HistoryEntry) -> String {
    let user = entry.user.as_ref().map_or("nobody", |user| user.sub.as_str());
    let scopes = if entry.scopes.is_empty() { "what the class allows".to_owned() } else { entry.scopes.join(" ") };
    let (from, until) = (output::timestamp(entry.at.as_ref()), output::timestamp(entry.ends_at.as_ref()));
    format!("{}  {user} lets {} do {scopes}, {from} until {until}", entry.delegation_id, entry.root_id)
}
