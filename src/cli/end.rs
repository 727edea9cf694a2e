//! `mayfly end`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output;

/// End an agent: with --as the one in a folder, otherwise any agent by its id (operator)
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// SPIFFE ID or UUID; without it, the agent of --as itself
    agent: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    if args.acting.identity.is_none() && args.agent.is_none() {
        return Err(Failure::usage("say which agent: an id, or --as DIR for the one in a folder"));
    }
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let request = v1::EndRequest { agent: args.agent.unwrap_or_default() };
    let got = IdentitiesClient::new(channel).end(request).await?.into_inner();
    let accepted_until = output::optional_timestamp(got.accepted_until.as_ref());
    let object = json!({ "agent_id": got.agent_id, "revision": got.revision, "accepted_until": accepted_until });
    output::print(global.output, &object, || {
        let mut lines = vec![format!("{} ended at revision {}", got.agent_id, got.revision)];
        lines.extend(accepted_until.map(|until| {
            format!("verifiers accept its credentials until {until}: to take it back now, mayfly revoke --agent {}", got.agent_id)
        }));
        lines
    })
}
