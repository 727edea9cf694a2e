//! `mayfly mint`.

use std::path::PathBuf;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::file;
use super::global::Global;
use super::output;

/// Mint a JWT-SVID for one audience, as an agent
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// The audience of the token: the service that will verify it
    #[arg(long, value_name = "URL")]
    audience: String,
    /// An agent without a key that this agent spawned: the token is that agent's, bound to this one's certificate
    #[arg(long = "for", value_name = "AGENT")]
    for_agent: Option<String>,
    /// File for the token; without it the token goes to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Makes a retry the same token
    #[arg(long, default_value = "", hide_default_value = true)]
    request_id: String,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say which agent mints with --as DIR")?;
    let channel = connect::as_identity(global, args.acting.server.as_deref(), dir).await?;
    let for_agent = args.for_agent.unwrap_or_default();
    let request = v1::MintJwtRequest { request_id: args.request_id, audience: args.audience, for_agent, ..Default::default() };
    let got = IdentitiesClient::new(channel).mint_jwt(request).await?.into_inner();
    let jwt = got.svid.ok_or_else(Failure::incomplete_answer)?;
    let expires_at = output::timestamp(jwt.expires_at.as_ref());
    let mut object = json!({ "spiffe_id": jwt.spiffe_id, "expires_at": expires_at, "revision": got.revision });
    let Some(out) = &args.out else {
        output::insert(&mut object, "token", jwt.token.as_str());
        return output::print(global.output, &object, || jwt.token.clone());
    };
    file::write_secret(out, jwt.token.as_bytes())?;
    output::print(global.output, &object, || format!("a token of {} until {expires_at}, in {}", jwt.spiffe_id, out.display()))
}
