//! `mayfly relay`: the feed of an issuer, handed on to many verifiers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::channel::connect_as;
use mayfly_agent::listen::{self, accept};
use mayfly_agent::peers::{Authorize, Bundles, Verifier};
use mayfly_agent::revocation::{Freshness, follow_with};
use mayfly_agent::tls::{CurrentIdentity, server_config};
use mayfly_verify::Bundle;
use mayfly_verify::feed::FeedKey;
use serde_json::json;
use tokio::sync::watch;
use tonic::transport::{Channel, Server};

use super::act::{incomplete, settings_of};
use super::run::stopped;
use super::{Acting, Common, Failure, USAGE, show};
use crate::doors::relay;
use crate::folder::{self, Key};
use crate::publish::feed::Feed;

/// Between two tries to renew.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) async fn run(common: &Common, acting: &Acting, at: SocketAddr) -> Result<(), Failure> {
    let dir = acting.identity.clone().ok_or_else(|| Failure::new(USAGE, "say as whom the relay stands with --as DIR"))?;
    // 1. Who we are, and a channel to the issuer that follows it.
    let own = CurrentIdentity::new(folder::identity(&dir)?).map_err(|e| e.to_string())?;
    let settings = settings_of(common, acting, &dir)?;
    let trust_domain = settings.trust_domain.clone();
    let channel = connect_as(settings, own.clone()).await?;
    // 2. Whom we believe: the bundle, and the key of heartbeats that comes with it.
    let got = BundlesClient::new(channel.clone()).get_bundle(v1::GetBundleRequest {}).await?.into_inner();
    let got = got.bundle.ok_or_else(incomplete)?;
    let key = FeedKey::from_point(&got.feed_key).map_err(|e| e.to_string())?;
    let bundles = Bundles::default();
    bundles.set(Bundle::from_json(trust_domain.clone(), &got.spiffe_json).map_err(|e| e.to_string())?);
    let _bundle = bundles.follow(channel.clone(), trust_domain.clone());
    // 3. What is heard is verified, and only then handed on.
    let feed = Feed::relay();
    let onward = Arc::clone(&feed);
    let following =
        follow_with(channel.clone(), key, trust_domain.clone(), Freshness::default(), move |tick| onward.forward(tick));
    // 4. To whoever is of our trust domain, and not cut.
    let listener = tokio::net::TcpListener::bind(at).await.map_err(|e| format!("cannot listen on {at}: {e}"))?;
    let at = listener.local_addr().map_err(|e| e.to_string())?;
    let verifier = Verifier::new(bundles, following.live().clone());
    let config = server_config(&own, &verifier, Authorize::trust_domain(trust_domain)).map_err(|e| e.to_string())?;
    let incoming = accept(listener, config, verifier, listen::Bounds { connections: 10_000, ..Default::default() });
    let (stop, stopping) = watch::channel(false);
    let server = Server::builder().add_routes(relay::routes(feed, stopping.clone()));
    let renewing = tokio::spawn(keep(channel, own, dir));
    show::either(common, &json!({ "listen": at.to_string() }), || format!("relaying what is revoked on {at}; Ctrl-C ends it"))?;
    let mut over = stopping;
    let serve = server.serve_with_incoming_shutdown(incoming, async move { drop(over.wait_for(|stop| *stop).await) });
    let signal = async {
        let done = stopped().await;
        stop.send_replace(true);
        done
    };
    let (served, signalled) = tokio::join!(serve, signal);
    renewing.abort();
    served.map_err(|e| Failure::new(1, e.to_string()))?;
    signalled
}

/// Renews in place when half of the certificate's life is over.
async fn keep(channel: Channel, own: CurrentIdentity, dir: std::path::PathBuf) {
    loop {
        tokio::time::sleep(half(&dir).unwrap_or(PAUSE)).await;
        while let Err(cause) = renew(&channel, &own, &dir).await {
            tracing::error!(%cause, "the relay's certificate could not be renewed: trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn renew(channel: &Channel, own: &CurrentIdentity, dir: &Path) -> Result<(), String> {
    let key = Key::new()?;
    let mut client = IdentitiesClient::new(channel.clone());
    let got = client.renew(v1::RenewRequest { csr: key.csr.clone() }).await.map_err(|e| e.to_string())?.into_inner();
    let (svid, bundle) = got.svid.zip(got.bundle).ok_or("the answer is incomplete")?;
    folder::write(dir, &key, &svid, &bundle)?;
    own.replace(folder::identity(dir)?).map_err(|e| e.to_string())
}

/// Half of what is left of the certificate's life.
fn half(dir: &Path) -> Option<Duration> {
    let chain = folder::certificates(&dir.join("svid.pem")).ok()?;
    let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let left = leaf.validity().time_to_expiration()?;
    Some((left.unsigned_abs() / 2).max(Duration::from_secs(1)))
}
