//! `mayfly approvals`.

use std::path::PathBuf;

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::approvals_client::ApprovalsClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::{file, output};

/// See what agents asked for: as a person with a token of your own, with --as as an agent or its workload, otherwise as an operator
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// File with the person's own token, for an audience that is configured for users themselves; `-` reads stdin
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "identity")]
    user_token: Option<PathBuf>,
    /// Trust bundle (PEM) for --user-token; by default that of the issuer in --home
    #[arg(long, global = true, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each approval that can still be answered or used
    List {
        /// Also those that were denied, used, or have expired, for as long as they are known
        #[arg(long)]
        all: bool,
    },
    /// All that is known of one approval
    Show {
        /// The id of the approval
        id: String,
    },
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let (user_token, channel) = match &args.user_token {
        Some(file) => {
            let token = file::read_text(file)?.trim().to_owned();
            (token, connect::as_stranger(global, args.acting.server.as_deref(), args.bundle.as_deref()).await?)
        }
        None => (String::new(), connect::as_identity_or_operator(global, &args.acting).await?),
    };
    let mut client = ApprovalsClient::new(channel);
    match args.command {
        Command::List { all } => {
            let got = client.list_approvals(v1::ListApprovalsRequest { user_token, all }).await?.into_inner();
            let objects: Vec<_> = got.approvals.iter().map(output::approval::object).collect();
            output::print(global.output, &json!({ "approvals": objects, "revision": got.revision }), || {
                output::lines(&got.approvals, "no approvals", output::approval::line)
            })
        }
        Command::Show { id } => {
            let got = client.get_approval(v1::GetApprovalRequest { approval_id: id, user_token }).await?.into_inner();
            let object = output::approval::object(&got.approval.ok_or_else(Failure::incomplete_answer)?);
            output::print(global.output, &object, || output::fields(&object))
        }
    }
}
