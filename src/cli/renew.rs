//! `mayfly renew`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;

use super::certified::Certified;
use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use crate::folder::Key;

/// Renew an identity in place, with a fresh key
///
/// The lease of an agent does not move. Once the new certificate has been used, the old one must not be used again: whoever
/// connects with it holds a copy, and the agent is revoked.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say whose identity to renew with --as DIR")?;
    let key = Key::new()?;
    let channel = connect::as_identity(&global.home, args.acting.server.as_deref(), dir).await?;
    let got = IdentitiesClient::new(channel).renew(v1::RenewRequest { csr: key.csr.clone() }).await?.into_inner();
    Certified::from(got).save(global.output, dir, &key)
}
