//! `mayfly join`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::json;

use super::connect;
use super::exit::Failure;
use super::global::Global;
use super::output;

/// Make a join token with which a workload fetches its first identity (operator)
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of a configured workload
    workload: String,
    /// Seconds until the token expires, at most 600
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    ttl: u64,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let channel = connect::as_operator(&global.home).await?;
    let request = v1::CreateJoinTokenRequest { workload: args.workload, ttl_seconds: args.ttl };
    let made = OperationsClient::new(channel).create_join_token(request).await?.into_inner();
    let object = json!({
        "token": made.token,
        "workload_id": made.workload_id,
        "expires_at": output::timestamp(made.expires_at.as_ref()),
        "revision": made.revision,
    });
    output::print(global.output, &object, || made.token.clone())
}
