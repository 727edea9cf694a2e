//! `mayfly token`.

use serde_json::json;

use super::connect;
use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::output;
use crate::dev::provider;

/// Print an ID token of a user of the development provider
#[derive(clap::Args)]
pub(super) struct Args {
    /// `demo` or `guest`
    user: String,
    /// Audience of the token; `mayfly-dev-user` is for `mayfly my`, `mayfly-dev-revoke` for `mayfly revoke --user-token`
    #[arg(long, default_value = provider::AUDIENCE)]
    audience: String,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let at = connect::endpoint(&global.home)?;
    let Some((issuer, ca)) = at.oidc.zip(at.oidc_ca) else {
        let message = "only `mayfly dev` has a provider of its own: get a token from yours";
        return Err(Failure::new(FAILURE, message));
    };
    let token = provider::fetch_token(&issuer, &ca, &args.user, &args.audience).await.map_err(|e| e.to_string())?;
    let object = json!({ "token": token, "user": { "iss": issuer, "sub": args.user } });
    output::print(global.output, &object, || token.clone())
}
