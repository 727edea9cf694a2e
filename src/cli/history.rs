//! `mayfly history`.

mod export;
mod prove;
mod verify;

use std::time::Duration;

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::history_client::HistoryClient;
use serde_json::json;

use super::connect::{Acting, Channel};
use super::exit::Failure;
use super::global::Global;
use super::happened::{self, PAGE, client};
use super::output::user::Names;
use super::output::{self, Format, entry};
use super::user;
use super::when::When;

/// Pause between two requests for new entries.
const PAUSE: Duration = Duration::from_millis(500);

/// See what happened: an entry for each record, each denial and each read of who acts for whom (operator); with --as, what the
/// identity may see
///
/// Entries come in the order in which they were written.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Continue with new entries, one a line, until the command is stopped
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    acting: Acting,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The entries of one decision; for operators with the secrets that let an auditor read them
    Show {
        /// As `mayfly history` prints it, such as r1204
        decision: String,
        #[command(flatten)]
        acting: Acting,
    },
    Export(export::Args),
    Prove(prove::Args),
    Verify(verify::Args),
}

// No documentation comment: clap would show it as the help of the command.
#[derive(clap::Args, Clone)]
struct Wanted {
    /// From a time on: RFC 3339, or how long ago, such as 1h or 30d
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Up to a time: RFC 3339, or how long ago
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// For a user: <issuer>/<subject>, the issuer by its configured name or its URL
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// About an agent: SPIFFE ID or UUID
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// About agents of a class
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// About a workload and everything below it
    #[arg(long, value_name = "WORKLOAD")]
    root: Option<String>,
    /// Of a kind, such as mint, revocation or denial; may be given several times
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// With a reason code, or a part of a reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    match args.command {
        None => list(args, global).await,
        Some(Command::Show { decision, acting }) => show(client(global, &acting).await?, decision, global.output).await,
        Some(Command::Export(args)) => export::run(args, global).await,
        Some(Command::Prove(args)) => prove::run(args, global).await,
        Some(Command::Verify(args)) => verify::run(&args, global),
    }
}

async fn list(args: Args, global: &Global) -> Result<(), Failure> {
    let mut client = client(global, &args.acting).await?;
    let request = request(&args.wanted)?;
    if args.follow {
        return follow(client, request, global).await;
    }
    let entries = happened::all(&mut client, request).await?;
    let objects: Vec<_> = entries.iter().map(entry::object).collect();
    output::print(global.output, &json!({ "entries": objects }), || {
        entry::table(&entries, Names::known(global), "nothing happened that you may see")
    })
}

/// Prints each entry as it comes, until the output is closed.
async fn follow(mut client: HistoryClient<Channel>, request: v1::ListEntriesRequest, global: &Global) -> Result<(), Failure> {
    let mut page_token = String::new();
    let mut names = Names::known(global);
    loop {
        let page = client.list_entries(v1::ListEntriesRequest { page_token, ..request.clone() }).await?.into_inner();
        names = names.and(page.entries.iter().filter_map(|entry| entry.user.as_ref()));
        for one in &page.entries {
            if !output::print_unless_closed(global.output, &entry::object(one), || entry::line(one, &names))? {
                return Ok(());
            }
        }
        let more = !page.next_page_token.is_empty();
        page_token = page.end_page_token;
        if !more {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn show(mut client: HistoryClient<Channel>, decision_id: String, format: Format) -> Result<(), Failure> {
    let got = client
        .get_decision(v1::GetDecisionRequest { decision_id: decision_id.clone(), ..Default::default() })
        .await?
        .into_inner();
    let mut objects: Vec<_> = got.entries.iter().map(entry::object).collect();
    for (object, proof) in objects.iter_mut().zip(&got.proofs) {
        output::insert(object, "leaf", proof.leaf.clone());
        output::insert(object, "opening", proof.opening.clone());
        output::insert(object, "salt", hex::encode(&proof.salt));
    }
    output::print(format, &json!({ "decision_id": decision_id, "entries": objects }), || {
        objects.iter().flat_map(|object| output::fields(object).into_iter().chain([String::new()])).collect::<Vec<_>>()
    })
}

/// The request for the first page.
fn request(wanted: &Wanted) -> Result<v1::ListEntriesRequest, Failure> {
    let user = wanted.user.as_deref().map(user::parse).transpose()?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Ok(v1::ListEntriesRequest {
        since: wanted.since.map(When::timestamp),
        until: wanted.until.map(When::timestamp),
        user,
        agent: text(&wanted.agent),
        class: text(&wanted.class),
        root: text(&wanted.root),
        kinds: wanted.kinds.clone(),
        reason: text(&wanted.reason),
        page_size: PAGE,
        ..Default::default()
    })
}
