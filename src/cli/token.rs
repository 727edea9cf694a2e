//! `mayfly token`.

use serde_json::json;

use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::{output, place};
use crate::dev::provider;

/// Print an ID token of a user of the development provider, or an ID-JAG
#[derive(clap::Args)]
pub(super) struct Args {
    /// `demo` or `guest`
    user: String,
    /// Audience of the token; `mayfly-dev-user` is for `mayfly my`, `mayfly-dev-revoke` for `mayfly revoke --user-token`
    #[arg(long, default_value = provider::AUDIENCE)]
    audience: String,
    /// Print an ID-JAG for this client, by the SPIFFE ID of a workload or an agent
    #[arg(long, value_name = "ID", conflicts_with = "audience")]
    id_jag: Option<String>,
    /// A scope of the ID-JAG; without it, the ID-JAG names no scopes
    #[arg(long = "scope", value_name = "SCOPE", requires = "id_jag")]
    scopes: Vec<String>,
    /// The resource that the ID-JAG is for
    #[arg(long, value_name = "URL", requires = "id_jag")]
    resource: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let at = place::endpoint(global)?;
    let Some((issuer, ca)) = at.oidc.zip(at.oidc_ca) else {
        let message = "only `mayfly dev` has a provider of its own: get a token from yours";
        return Err(Failure::new(FAILURE, message));
    };
    let scope = args.scopes.join(" ");
    let (mut claims, mut audience) = (Vec::new(), args.audience);
    if let Some(client) = &args.id_jag {
        let none = || Failure::new(FAILURE, "this issuer has no HTTPS listener, so no ID-JAG can be for it");
        audience = at.https_issuer.ok_or_else(none)?;
        claims.push(("client_id", client.as_str()));
        claims.extend(Some(scope.as_str()).filter(|scope| !scope.is_empty()).map(|scope| ("scope", scope)));
        claims.extend(args.resource.as_deref().map(|resource| ("resource", resource)));
    }
    let token = provider::fetch_token(&issuer, &ca, &args.user, &audience, &claims).await.map_err(|e| e.to_string())?;
    let object = json!({ "token": token, "user": { "iss": issuer, "sub": args.user } });
    output::print(global.output, &object, || token.clone())
}
