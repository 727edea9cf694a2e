//! `mayfly status`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::authorities_client::AuthoritiesClient;
use serde_json::json;

use super::connect;
use super::exit::Failure;
use super::global::Global;
use super::{heard, output};

/// Say where the issuer is, what it signs with, and who follows its feed (operator)
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: Args, global: &Global) -> Result<(), Failure> {
    let at = connect::endpoint(&global.home)?;
    let mut client = AuthoritiesClient::new(connect::as_operator(&global.home).await?);
    let got = client.list_authorities(v1::ListAuthoritiesRequest {}).await?.into_inner();
    let feed = heard::look(connect::as_operator(&global.home).await?).await?;
    let authorities: Vec<_> = got.authorities.iter().map(output::authority::object).collect();
    let object = json!({
        "trust_domain": at.trust_domain,
        "revision": got.revision,
        "https_issuer": at.https_issuer,
        "https_ca": at.https_ca,
        "grpc": at.grpc,
        "http": at.http,
        "bundle": at.bundle,
        "socket": at.socket,
        "issuers": at.issuers,
        "authorities": authorities,
        "feed": { "head": feed.head, "subscribers": feed.subscribers.iter().map(heard::object).collect::<Vec<_>>() },
    });
    output::print(global.output, &object, || {
        let mut lines = vec![
            format!("trust domain      {}, at revision {}", at.trust_domain, got.revision),
            format!("gRPC (mTLS)       {}", at.grpc),
            format!("OpenID discovery  {}", at.https_issuer.as_deref().unwrap_or("not served: see [https]")),
            format!("SPIFFE bundle     {}", at.bundle.as_deref().unwrap_or("not served: see [bundle_endpoint]")),
            format!("metrics, health   http://{}", at.http),
            format!("operator socket   {}", at.socket.display()),
        ];
        lines.extend(at.issuers.iter().map(|(name, url)| format!("users of          {name}: {url}")));
        lines.extend(got.authorities.iter().map(|authority| format!("authority         {}", output::authority::line(authority))));
        lines.push(format!("feed              at revision {}, followed by {}", feed.head, feed.subscribers.len()));
        lines.extend(feed.subscribers.iter().map(|subscriber| format!("                  {}", heard::line(subscriber))));
        lines
    })
}
