//! `mayfly status`.

use std::collections::BTreeMap;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::authorities_client::AuthoritiesClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use serde_json::{Value, json};

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::{heard, output, place};
use crate::home::Endpoint;

/// Show whether the issuer is ready and what is wrong, its addresses, keys, providers and history, and the followers of its feed
/// (operator, auditor)
///
/// On another machine it leaves out what is only known from the issuer's home.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let remote = args.acting.identity.is_some() || args.acting.server.is_some() || place::of(global)?.is_some();
    let local = if remote { None } else { Some(place::endpoint(global)?) };
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let now = InspectionClient::new(channel.clone()).get_status(v1::GetStatusRequest {}).await?.into_inner();
    let got = AuthoritiesClient::new(channel.clone()).list_authorities(v1::ListAuthoritiesRequest {}).await?.into_inner();
    let feed = heard::look(channel).await?;
    let history = now.history.unwrap_or_default();
    let at = local.as_ref();
    let object = json!({
        "trust_domain": now.trust_domain,
        "version": now.version,
        "started_at": output::timestamp(now.started_at.as_ref()),
        "ready": now.ready,
        "wrong": wrong(&now),
        "revision": now.revision,
        "live_agents": now.live_agents,
        "https_issuer": at.and_then(|at| at.https_issuer.clone()),
        "https_ca": at.and_then(|at| at.https_ca.clone()),
        "grpc": at.map(|at| &at.grpc),
        "http": at.map(|at| &at.http),
        "bundle": at.and_then(|at| at.bundle.clone()),
        "socket": at.map(|at| &at.socket),
        "issuers": now.providers.iter().map(|p| (p.name.clone(), p.iss.clone())).collect::<BTreeMap<_, _>>(),
        "providers": now.providers.iter().map(provider_object).collect::<Vec<_>>(),
        "parts": now.parts.iter().map(|part| (part.name.clone(), part.trouble.is_empty())).collect::<BTreeMap<_, _>>(),
        "authorities": got.authorities.iter().map(output::authority::object).collect::<Vec<_>>(),
        "history": { "first": history.first, "entries": history.end - history.first.min(history.end), "revision": history.revision, "signed": history.signed },
        "feed": { "head": feed.head, "subscribers": feed.subscribers.iter().map(heard::object).collect::<Vec<_>>() },
    });
    output::print(global.output, &object, || {
        let state = if now.ready { "ready" } else { "NOT READY" };
        let since = output::timestamp(now.started_at.as_ref());
        let mut lines = vec![
            format!("trust domain      {}, {state}", now.trust_domain),
            format!("issuer            mayfly {}, since {since}", now.version),
        ];
        lines.extend(wrong(&now).into_iter().map(|trouble| format!("wrong             {trouble}")));
        lines.extend(at.map(home).into_iter().flatten());
        lines.extend(now.providers.iter().map(provider_line));
        lines.push(format!("journal           at revision {}, with {} live agents", now.revision, now.live_agents));
        lines.push(format!(
            "history           entries {} to {}, up to revision {}; {} are signed",
            history.first,
            history.end.saturating_sub(1),
            history.revision,
            history.signed
        ));
        lines.extend(got.authorities.iter().map(|authority| format!("authority         {}", output::authority::line(authority))));
        lines.push(format!("feed              at revision {}, followed by {}", feed.head, feed.subscribers.len()));
        lines.extend(feed.subscribers.iter().map(|subscriber| format!("                  {}", heard::line(subscriber))));
        lines
    })
}

/// What is wrong, one sentence for each trouble.
fn wrong(now: &v1::GetStatusResponse) -> Vec<String> {
    let parts = now.parts.iter().filter(|part| !part.trouble.is_empty());
    parts.map(|part| format!("{}: {}", part.name, part.trouble)).chain(now.warnings.iter().cloned()).collect()
}

fn provider_object(provider: &v1::StatusProvider) -> Value {
    let reachable = provider.asked.then_some(provider.trouble.is_empty());
    let trouble = Some(&provider.trouble).filter(|trouble| !trouble.is_empty());
    json!({ "name": provider.name, "iss": provider.iss, "reachable": reachable, "trouble": trouble })
}

fn provider_line(provider: &v1::StatusProvider) -> String {
    let state = match (provider.asked, provider.trouble.is_empty()) {
        (false, _) => "not asked yet",
        (true, true) => "reachable",
        (true, false) => "cannot be reached",
    };
    format!("provider          {}: {}, {state}", provider.name, provider.iss)
}

/// The lines about the issuer's home.
fn home(at: &Endpoint) -> Vec<String> {
    vec![
        format!("gRPC (mTLS)       {}", at.grpc),
        format!("OpenID discovery  {}", at.https_issuer.as_deref().unwrap_or("not served: see [https]")),
        format!("SPIFFE bundle     {}", at.bundle.as_deref().unwrap_or("not served: see [bundle_endpoint]")),
        format!("metrics, health   http://{}", at.http),
        format!("operator socket   {}", at.socket.display()),
    ]
}
