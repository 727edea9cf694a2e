//! `mayfly history prove`.

use std::time::{Duration, Instant};

use mayfly_agent::api::v1;
use serde_json::json;

use crate::cli::connect::Acting;
use crate::cli::exit::{FAILURE, Failure};
use crate::cli::global::Global;
use crate::cli::happened::client;
use crate::cli::output;

/// How long to wait for a checkpoint that covers a new entry.
const PATIENCE: Duration = Duration::from_secs(10);

/// Print a proof of a decision for somebody outside (operator): a C2SP tlog-proof of its first entry, or all entries with their
/// proofs as JSON
#[derive(clap::Args)]
pub(super) struct Args {
    /// As `mayfly history` prints it, such as r1204
    decision: String,
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let mut client = client(global, &args.acting).await?;
    let began = Instant::now();
    let proofs = loop {
        let request = v1::GetDecisionRequest { decision_id: args.decision.clone(), ..Default::default() };
        let proofs = client.get_decision(request).await?.into_inner().proofs;
        if proofs.is_empty() {
            return Err(Failure::new(FAILURE, "only operators get proofs: leave out --as, or act as an operator"));
        }
        if proofs.iter().all(|proof| !proof.proof.is_empty()) {
            break proofs;
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::new(FAILURE, "no checkpoint covers this decision yet: see whether the history can be written"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let object = |p: &v1::EntryProof| json!({ "index": p.index, "leaf": p.leaf, "proof": p.proof });
    let objects: Vec<_> = proofs.iter().map(object).collect();
    let lines = || proofs.first().map(|first| first.proof.lines().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
    output::print(global.output, &json!({ "decision_id": args.decision, "entries": objects }), lines)
}
