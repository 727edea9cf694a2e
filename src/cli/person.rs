//! The options of commands for people who act by a token of their own: the token, and how to reach the issuer.

use std::path::PathBuf;

use mayfly_agent::api::v1::approvals_client::ApprovalsClient;

use super::exit::Failure;
use super::global::Global;
use super::{connect, place};

// No documentation comment: clap would show it as the help of each command that has these options.
#[derive(clap::Args)]
pub(super) struct Person {
    /// File with the person's own token, for an audience that is configured for users themselves; `-` reads stdin. Without it, the token of
    /// `mayfly login`
    #[arg(long, value_name = "FILE")]
    user_token: Option<PathBuf>,
    /// Trust bundle (PEM) of the issuer; by default that of the context, or that of the issuer in --home
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// host:port of the issuer; by default that of the context, or that of the issuer in --home [env: MAYFLY_SERVER]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
}

impl Person {
    /// The token, and a client without an identity.
    pub(super) async fn client(&self, global: &Global) -> Result<(String, ApprovalsClient<connect::Channel>), Failure> {
        let usage = "give --user-token FILE, or sign in with `mayfly login`: a person answers by a token of their own";
        let token = place::token_or(self.user_token.as_deref(), global, usage).await?;
        let channel = connect::as_stranger(global, self.server.as_deref(), self.bundle.as_deref()).await?;
        Ok((token, ApprovalsClient::new(channel)))
    }
}
