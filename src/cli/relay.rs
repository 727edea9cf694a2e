//! `mayfly relay`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::channel::connect_as;
use mayfly_agent::listen::{self, accept};
use mayfly_agent::peers::{Authorize, Bundles, Verifier};
use mayfly_agent::revocation::{Freshness, follow_with};
use mayfly_agent::tls::{CurrentIdentity, server_config};
use mayfly_agent::validity;
use mayfly_verify::Bundle;
use mayfly_verify::feed::FeedKey;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::keeping::{self, When};
use super::{output, shutdown};
use crate::config::LogFormat;
use crate::doors::relay;
use crate::folder;
use crate::process;
use crate::publish::feed::Feed;
use crate::telemetry;

/// Hand the feed of revocations on to many verifiers
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
}

/// At most this many verifiers connect.
const CONNECTIONS: usize = 10_000;

/// Between two attempts to renew.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say as whom the relay listens with --as DIR")?.to_owned();
    telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "warn".into()))?;
    // ORDER: before there is a key in memory.
    process::begin()?;
    process::lock_memory();
    // 1. The relay's identity, and a channel to the issuer that follows its renewals.
    let own = CurrentIdentity::new(folder::identity(&dir)?).map_err(|e| e.to_string())?;
    let settings = connect::settings(&global.home, args.acting.server.as_deref(), &dir)?;
    let trust_domain = settings.trust_domain.clone();
    let channel = connect_as(settings, own.clone()).await?;
    // 2. What the relay trusts: the bundle, and the key of heartbeats that comes with it.
    let got = connect::fetch_bundle(channel.clone()).await?;
    let key = FeedKey::from_point(&got.feed_key).map_err(|e| e.to_string())?;
    let bundles = Bundles::default();
    bundles.set(Bundle::from_json(trust_domain.clone(), &got.spiffe_json).map_err(|e| e.to_string())?);
    let _following_bundle = bundles.follow(channel.clone(), trust_domain.clone());
    // 3. What the issuer says is verified, and only then forwarded.
    let feed = Feed::relay();
    let onward = Arc::clone(&feed);
    let following = follow_with(channel.clone(), key, trust_domain.clone(), Freshness::default(), move |tick| {
        onward.forward(tick);
    });
    // 4. The feed is served to peers of the trust domain that are not revoked.
    let listener = TcpListener::bind(args.listen).await.map_err(|e| format!("cannot listen on {}: {e}", args.listen))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let verifier = Verifier::new(bundles, following.live().clone());
    let config = server_config(&own, &verifier, Authorize::trust_domain(trust_domain)).map_err(|e| e.to_string())?;
    let bounds = listen::Bounds { connections: CONNECTIONS, ..Default::default() };
    let incoming = accept(listener, config, verifier, bounds);
    let (stop, stopping) = watch::channel(false);
    let server = Server::builder().add_routes(relay::routes(feed, stopping.clone()));
    let renewing = process::task("certificate of the relay", keep_renewing(global.home.clone(), args.acting.server, own, dir));
    output::print(global.output, &json!({ "listen": address.to_string() }), || {
        format!("relaying revocations on {address}; Ctrl-C stops it")
    })?;
    let mut stopped = stopping;
    let serving = server.serve_with_incoming_shutdown(incoming, async move { drop(stopped.wait_for(|stop| *stop).await) });
    let stopper = async {
        let requested = shutdown::requested().await;
        stop.send_replace(true);
        requested
    };
    let (served, requested) = tokio::join!(serving, stopper);
    renewing.abort();
    served.map_err(|e| e.to_string())?;
    requested
}

/// Renews in place whenever half of the certificate's life has passed, and shows what another program has renewed.
async fn keep_renewing(home: PathBuf, server: Option<String>, own: CurrentIdentity, dir: PathBuf) {
    loop {
        tokio::time::sleep(until_half(&dir).unwrap_or(PAUSE)).await;
        while let Err(cause) = renew(&home, server.as_deref(), &own, &dir).await {
            tracing::error!(%cause, "the relay's certificate could not be renewed: trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn renew(home: &Path, server: Option<&str>, own: &CurrentIdentity, dir: &Path) -> Result<(), Failure> {
    keeping::renew(home, server, dir, When::Due).await?;
    own.replace(folder::identity(dir)?).map_err(|e| Failure::from(e.to_string()))
}

/// How long until half of the certificate's life has passed, at least a second. `None` if the certificate cannot be read.
fn until_half(dir: &Path) -> Option<Duration> {
    let half = keeping::validity_of(dir).ok()?.half();
    Some(Duration::from_secs(half.saturating_sub(validity::now()).max(1)))
}
