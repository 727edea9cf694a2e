//! `mayfly extend`.

use std::path::PathBuf;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;

use super::certified::Certified;
use super::connect::{self, Acting};
use super::duration::Length;
use super::exit::Failure;
use super::global::Global;
use super::keeping::{self, When};
use super::place;

/// Let an agent live longer by a fresh token of its user, and renew its certificate
///
/// The lease ends with the token, and no later than the class and the agent's parent allow. `mayfly keep` and the SDK go on renewing until
/// then.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// File with a fresh token of the same user; `-` reads stdin. Without it, the token of `mayfly login`
    #[arg(long, value_name = "FILE")]
    user_token: Option<PathBuf>,
    /// How long from now, such as 30m or 8h; without it as long as allowed
    #[arg(long, value_name = "DURATION", default_value = "0", hide_default_value = true)]
    lease: Length,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say which agent with --as DIR")?;
    let server = args.acting.server.as_deref();
    let usage = "give --user-token FILE, or sign in with `mayfly login`: a lease is extended by a fresh token of the same user";
    let user_token = place::token_or(args.user_token.as_deref(), global, usage).await?;
    let channel = connect::as_identity(global, server, dir).await?;
    let request = v1::ExtendRequest { user_token, lease_seconds: args.lease.seconds() };
    IdentitiesClient::new(channel).extend(request).await?;
    // The certificate says until when the lease lasts, so a program that keeps the folder continues to renew.
    let got = keeping::renew(global, server, dir, When::Now).await?;
    Certified::from(got.ok_or_else(Failure::incomplete_answer)?).report(global.output, dir)
}
