//! `mayfly introspect`.

use std::path::PathBuf;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::tokens_client::TokensClient;
use serde_json::Value;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::file;
use super::global::Global;
use super::output;

/// Ask whether a token is valid now, as a service that it is for
///
/// A service that is not its audience is told that it is not active. Without --as, an operator asks.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// File with the token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let token = file::read_text(&args.token_file)?.trim().to_owned();
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let got = TokensClient::new(channel).introspect(v1::IntrospectRequest { token }).await?.into_inner();
    let said: Value = serde_json::from_slice(&got.json).map_err(|_| Failure::incomplete_answer())?;
    output::print(global.output, &said, || output::fields(&said))
}
