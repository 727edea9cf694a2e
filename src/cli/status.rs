//! `mayfly status`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::authorities_client::AuthoritiesClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::{heard, output, place};
use crate::home::Endpoint;

/// Show the issuer's address, its signing keys, and the followers of its feed (operator, auditor)
///
/// On another machine it leaves out what is only known from the issuer's home.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let remote = args.acting.identity.is_some() || place::of(global)?.is_some();
    let local = if remote { None } else { Some(place::endpoint(global)?) };
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let trust_domain = match &local {
        Some(at) => at.trust_domain.clone(),
        None => connect::fetch_bundle(channel.clone()).await?.trust_domain,
    };
    let got = AuthoritiesClient::new(channel.clone()).list_authorities(v1::ListAuthoritiesRequest {}).await?.into_inner();
    let feed = heard::look(channel).await?;
    let authorities: Vec<_> = got.authorities.iter().map(output::authority::object).collect();
    let at = local.as_ref();
    let object = json!({
        "trust_domain": trust_domain,
        "revision": got.revision,
        "https_issuer": at.and_then(|at| at.https_issuer.clone()),
        "https_ca": at.and_then(|at| at.https_ca.clone()),
        "grpc": at.map(|at| &at.grpc),
        "http": at.map(|at| &at.http),
        "bundle": at.and_then(|at| at.bundle.clone()),
        "socket": at.map(|at| &at.socket),
        "issuers": at.map(|at| &at.issuers),
        "authorities": authorities,
        "feed": { "head": feed.head, "subscribers": feed.subscribers.iter().map(heard::object).collect::<Vec<_>>() },
    });
    output::print(global.output, &object, || {
        let mut lines = vec![format!("trust domain      {trust_domain}, at revision {}", got.revision)];
        lines.extend(at.map(home).into_iter().flatten());
        lines.extend(got.authorities.iter().map(|authority| format!("authority         {}", output::authority::line(authority))));
        lines.push(format!("feed              at revision {}, followed by {}", feed.head, feed.subscribers.len()));
        lines.extend(feed.subscribers.iter().map(|subscriber| format!("                  {}", heard::line(subscriber))));
        lines
    })
}

/// The lines about the issuer's home.
fn home(at: &Endpoint) -> Vec<String> {
    let mut lines = vec![
        format!("gRPC (mTLS)       {}", at.grpc),
        format!("OpenID discovery  {}", at.https_issuer.as_deref().unwrap_or("not served: see [https]")),
        format!("SPIFFE bundle     {}", at.bundle.as_deref().unwrap_or("not served: see [bundle_endpoint]")),
        format!("metrics, health   http://{}", at.http),
        format!("operator socket   {}", at.socket.display()),
    ];
    lines.extend(at.issuers.iter().map(|(name, url)| format!("users of          {name}: {url}")));
    lines
}
