//! `mayfly renew`.

use super::certified::Certified;
use super::connect::Acting;
use super::exit::Failure;
use super::global::Global;
use super::keeping::{self, When};

/// Renew an identity in place, with a fresh key
///
/// The lease of an agent is not extended. Once the new certificate has been used, the old one must not be used again: the issuer
/// takes it for a stolen copy, and revokes the agent.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say whose identity to renew with --as DIR")?;
    let got = keeping::renew(global, args.acting.server.as_deref(), dir, When::Now).await?;
    Certified::from(got.ok_or_else(Failure::incomplete_answer)?).report(global.output, dir)
}
