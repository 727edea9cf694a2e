//! `mayfly backup`.

use std::path::PathBuf;

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::json;

use super::exit::Failure;
use super::global::Global;
use super::{connect, output, restore};

/// Copy the journal of a running issuer, or put a copy back
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// New file for the copy, on the issuer's machine
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    Restore(restore::Args),
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    if let Some(Command::Restore(args)) = args.command {
        return restore::run(&args, global);
    }
    let Some(out) = args.out else {
        return Err(Failure::usage("say where to: mayfly backup --out FILE, or mayfly backup restore FILE"));
    };
    let path = std::path::absolute(out).map_err(|e| e.to_string())?.display().to_string();
    let channel = connect::as_operator(&global.home).await?;
    let request = v1::BackupRequest { path: path.clone() };
    let got = OperationsClient::new(channel).backup(request).await?.into_inner();
    let object = json!({ "path": path, "revision": got.revision, "bytes": got.bytes });
    output::print(global.output, &object, || format!("{} bytes up to revision {}, in {path}", got.bytes, got.revision))
}
