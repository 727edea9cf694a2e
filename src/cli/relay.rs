//! `mayfly relay`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::listen::{self, accept};
use mayfly_agent::peers::{Authorize, Verifier};
use mayfly_agent::revocation::Freshness;
use mayfly_agent::tls::server_config;
use mayfly_verify::BindingOid;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::{output, serving};
use crate::config::LogFormat;
use crate::doors::relay;
use crate::follow;
use crate::guard::address::Socket;
use crate::guard::{Guard, metrics_only, serve};
use crate::process;
use crate::publish::feed::Feed;
use crate::telemetry;

/// Forward the feed of revocations to many verifiers
///
/// A relay verifies what it receives and forwards it as the issuer signed it: it cannot invent anything, and verifiers notice
/// when it leaves something out or repeats it. It listens with the identity in a folder, which it renews, for peers of its
/// trust domain.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// Where verifiers connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve /heartbeat, /metrics, /healthz and /readyz here; an issuer asks /heartbeat at its start (`journal.witnesses`)
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

/// At most this many verifiers connect.
const CONNECTIONS: usize = 10_000;
/// How often outdated metrics are dropped.
const UPKEEP: Duration = Duration::from_secs(5);

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say as whom the relay listens with --as DIR")?.to_owned();
    telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "warn".into()))?;
    // ORDER: the process is protected before there is a key in memory.
    process::begin()?;
    process::lock_memory();
    // 1. The relay's identity, which is renewed, and the issuer's feed: messages are verified before they are forwarded.
    let settings = connect::settings(global, args.acting.server.as_deref(), &dir)?;
    let trust_domain = settings.trust_domain.clone();
    let feed = Feed::relay();
    let onward = Arc::clone(&feed);
    let tap = Box::new(move |tick| onward.forward(tick));
    let followed = follow::begin(settings, dir, Freshness::default(), Some(tap)).await?;
    // 2. The feed is served to peers of the trust domain that are not revoked.
    let listener = TcpListener::bind(args.listen).await.map_err(|e| format!("cannot listen on {}: {e}", args.listen))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let verifier = Verifier::new(followed.bundles.clone(), followed.revocations.live().clone());
    let config = server_config(&followed.own, &verifier, Authorize::trust_domain(trust_domain)).map_err(|e| e.to_string())?;
    let bounds = listen::Bounds { connections: CONNECTIONS, ..Default::default() };
    let incoming = accept(listener, config, verifier, bounds);
    let (stop, stopping) = watch::channel(false);
    let monitor = match args.metrics {
        Some(at) => {
            let listener = TcpListener::bind(at).await.map_err(|e| format!("cannot listen on {at}: {e}"))?;
            let at = listener.local_addr().map_err(|e| e.to_string())?;
            let (bundles, live) = (followed.bundles.clone(), followed.revocations.live().clone());
            let guard = Guard::new(bundles, live, BindingOid::default(), false, None);
            let guard = guard.map_err(|_| "no random numbers can be had".to_owned())?;
            let metrics = telemetry::metrics()?;
            let router = metrics_only(&guard, &metrics);
            drop(process::task("upkeep of metrics", async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    metrics.run_upkeep();
                }
            }));
            Some((at, process::task("metrics of the relay", serve::serve(Socket::Tcp(listener), router, stopping.clone()))))
        }
        None => None,
    };
    let server = Server::builder().add_routes(relay::routes(feed, stopping.clone()));
    let also = monitor.as_ref().map(|(at, _)| at.to_string());
    output::print(global.output, &json!({ "listen": address.to_string(), "metrics": also }), || {
        format!("relaying revocations on {address}; Ctrl-C stops it")
    })?;
    let mut stopped = stopping;
    let serving = server.serve_with_incoming_shutdown(incoming, async move { drop(stopped.wait_for(|stop| *stop).await) });
    let stopper = async {
        let requested = serving::requested().await;
        stop.send_replace(true);
        requested
    };
    let (served, requested) = tokio::join!(serving, stopper);
    if let Some((_, monitor)) = monitor {
        let _ = monitor.await;
    }
    drop(followed);
    served.map_err(|e| e.to_string())?;
    requested
}
