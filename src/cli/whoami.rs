//! `mayfly whoami`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output;

/// Say who an identity is, as the issuer knows it
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("give --as DIR: the identity to ask about")?;
    let channel = connect::as_identity(global, args.acting.server.as_deref(), dir).await?;
    let me = IdentitiesClient::new(channel).whoami(v1::WhoamiRequest {}).await?.into_inner();
    let kind = match me.kind() {
        v1::IdentityKind::Agent => "agent",
        v1::IdentityKind::Workload => "workload",
        v1::IdentityKind::Unspecified => return Err(Failure::incomplete_answer()),
    };
    // For an agent, the object has all fields of `agents show`.
    let mut object = me.agent.as_ref().map_or_else(|| json!({}), output::agent::object);
    output::insert(&mut object, "spiffe_id", me.spiffe_id);
    output::insert(&mut object, "kind", kind);
    output::print(global.output, &object, || output::fields(&object))
}
