//! `mayfly history export`.

use mayfly_agent::api::v1;
use serde_json::{Value, json};

use super::{Wanted, request};
use crate::cli::connect::Acting;
use crate::cli::exit::Failure;
use crate::cli::global::Global;
use crate::cli::happened::client;
use crate::cli::output::{self, Format, entry};

/// Print entries for another program, one JSON object a line, as they are read
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// The fields of `mayfly history -o json`, or events of OCSF 1.4, class API Activity
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Form,
    #[command(flatten)]
    acting: Acting,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Jsonl,
    Ocsf,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let mut client = client(global, &args.acting).await?;
    let (request, mut page_token) = (request(&args.wanted)?, String::new());
    loop {
        let page = client.list_entries(v1::ListEntriesRequest { page_token, ..request.clone() }).await?.into_inner();
        for one in &page.entries {
            let object = if args.format == Form::Ocsf { ocsf(one) } else { entry::object(one) };
            if !output::print_unless_closed(Format::Json, &object, String::new)? {
                return Ok(());
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

/// An event of the Open Cybersecurity Schema Framework: API Activity, class 6003 of category 6.
fn ocsf(entry: &v1::HistoryEntry) -> Value {
    let (activity, name) = match entry.kind.as_str() {
        "admission" | "delegation" | "redemption" | "mint" | "join_token" | "certificate" | "opened" => (1, "Create"),
        "look" => (2, "Read"),
        "renewal" | "use" | "budget" | "extension" | "reopening" | "authorities" | "configuration" => (3, "Update"),
        "end" | "revocation" => (4, "Delete"),
        _ => (99, "Other"),
    };
    let (status, failed) = match entry.outcome.as_str() {
        "recorded" | "answered" => (1, false),
        "denied" | "failed" => (2, true),
        _ => (0, false),
    };
    let time = entry.at.as_ref().map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000);
    json!({
        "class_uid": 6003,
        "class_name": "API Activity",
        "category_uid": 6,
        "category_name": "Application Activity",
        "activity_id": activity,
        "activity_name": name,
        "type_uid": 600_300 + activity,
        "severity_id": if failed { 2 } else { 1 },
        "status_id": status,
        "status_code": Some(&entry.reason_code).filter(|code| !code.is_empty()),
        "status_detail": Some(&entry.reason).filter(|reason| !reason.is_empty()),
        "time": time,
        "metadata": {
            "version": "1.4.0",
            "uid": entry.index.to_string(),
            "correlation_uid": entry.decision_id,
            "product": { "name": "Mayfly", "vendor_name": "Mayfly", "version": env!("CARGO_PKG_VERSION") },
        },
        "api": { "operation": entry.kind, "service": { "name": entry.method }, "request": { "uid": entry.request_id } },
        "actor": { "user": { "uid": entry.caller } },
        "src_endpoint": { "name": entry.peer },
        "resources": [{ "uid": entry.agent_id, "type": entry.class, "owner": { "uid": entry.root_id } }],
        "unmapped": entry::object(entry),
    })
}
