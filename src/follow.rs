//! A program beside the issuer with an identity in a folder: it renews the identity, and follows the bundle and the feed of
//! revocations. A relay and a guard begin here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::channel::{ChannelSettings, ConnectError, connect_as};
use mayfly_agent::peers::{Bundles, FollowingBundle};
use mayfly_agent::revocation::{Following, Freshness, Tick, follow, follow_with};
use mayfly_agent::tls::CurrentIdentity;
use mayfly_verify::Bundle;
use mayfly_verify::feed::FeedKey;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::folder::{self, Key};
use crate::process;

/// How long the issuer may take for one answer: a process that is stopped accepts connections and says nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to renew.
const PAUSE: Duration = Duration::from_secs(10);

/// Why it cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The folder holds no identity, or one that has expired.
    #[error("{0}")]
    Folder(String),
    /// The issuer cannot be reached, or is another one.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The issuer refuses to tell its bundle.
    #[error("{0}")]
    Status(#[from] tonic::Status),
    /// The issuer accepted the connection and did not answer.
    #[error("the issuer does not answer")]
    Silent,
    /// The issuer's bundle or the key of its feed cannot be used.
    #[error("the issuer's bundle cannot be used: {0}")]
    Bundle(String),
}

/// Called with each verified part of the feed.
pub type Tap = Box<dyn FnMut(Tick) + Send>;

/// What is kept up to date until it is dropped.
pub struct Followed {
    /// The identity, as the next handshake shows it.
    pub own: CurrentIdentity,
    /// The bundle of the trust domain, those of foreign ones, and the authorities below the roots.
    pub bundles: Bundles,
    /// What is revoked.
    pub revocations: Following,
    _bundle: FollowingBundle,
    renewing: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Connects with the identity in the folder `dir`, gets the bundle, and follows from there. `settings` say where the issuer is and by
/// what it is trusted. Fails if the identity has expired, or if the issuer cannot be reached now.
pub async fn begin(
    settings: ChannelSettings,
    dir: PathBuf,
    freshness: Freshness,
    tap: Option<Tap>,
) -> Result<Followed, FollowError> {
    // Said here, because the issuer only ends the handshake.
    if half_of_life(&dir).is_none() {
        let message = "has expired: get another identity with `mayfly join` and `mayfly redeem`";
        return Err(FollowError::Folder(format!("the certificate in `{}` {message}", dir.display())));
    }
    let own = folder::identity(&dir).and_then(|identity| CurrentIdentity::new(identity).map_err(|e| e.to_string()));
    let own = own.map_err(FollowError::Folder)?;
    let trust_domain = settings.trust_domain.clone();
    let channel = connect_as(settings, own.clone()).await?;
    // What is trusted: the bundle, and the key of heartbeats that comes with it.
    let got = tokio::time::timeout(PATIENCE, fetch_bundle(channel.clone())).await.map_err(|_| FollowError::Silent)??;
    let unusable = |e: &dyn std::fmt::Display| FollowError::Bundle(e.to_string());
    let key = FeedKey::from_point(&got.feed_key).map_err(|e| unusable(&e))?;
    let bundles = Bundles::default();
    bundles.set(Bundle::from_json(trust_domain.clone(), &got.spiffe_json).map_err(|e| unusable(&e))?);
    let bundle = bundles.follow(channel.clone(), trust_domain.clone());
    let revocations = match tap {
        Some(tap) => follow_with(channel.clone(), key, trust_domain, freshness, tap),
        None => follow(channel.clone(), key, trust_domain, freshness),
    };
    let renewing = process::task("own certificate", keep_renewing(channel, own.clone(), dir));
    Ok(Followed { own, bundles, revocations, _bundle: bundle, renewing })
}

async fn fetch_bundle(channel: Channel) -> Result<v1::Bundle, FollowError> {
    let got = BundlesClient::new(channel).get_bundle(v1::GetBundleRequest {}).await?.into_inner();
    got.bundle.ok_or_else(|| FollowError::Bundle("the answer is incomplete".into()))
}

/// Renews in place whenever half of the certificate's remaining life has passed.
async fn keep_renewing(channel: Channel, own: CurrentIdentity, dir: PathBuf) {
    loop {
        tokio::time::sleep(half_of_life(&dir).unwrap_or(PAUSE)).await;
        while let Err(cause) = renew(&channel, &own, &dir).await {
            tracing::error!(%cause, "the own certificate could not be renewed: trying again");
            tokio::time::sleep(PAUSE).await;
            // Somebody may have put another identity into the folder, because this one has expired.
            if let Ok(identity) = folder::identity(&dir)
                && let Err(cause) = own.replace(identity)
            {
                tracing::debug!(%cause, "the identity in the folder cannot be used");
            }
        }
    }
}

async fn renew(channel: &Channel, own: &CurrentIdentity, dir: &Path) -> Result<(), String> {
    let key = Key::new()?;
    let mut client = IdentitiesClient::new(channel.clone());
    let asked = client.renew(v1::RenewRequest { csr: key.csr.clone() });
    let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| "the issuer does not answer")?;
    let got = answer.map_err(|e| e.to_string())?.into_inner();
    let (svid, bundle) = got.svid.zip(got.bundle).ok_or("the answer is incomplete")?;
    folder::write(dir, &key, &svid, &bundle)?;
    own.replace(folder::identity(dir)?).map_err(|e| e.to_string())
}

/// Half of what is left of the certificate's life, at least a second; `None` if the certificate cannot be read or has expired.
fn half_of_life(dir: &Path) -> Option<Duration> {
    let chain = folder::certificates(&dir.join("svid.pem")).ok()?;
    let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let left = leaf.validity().time_to_expiration()?;
    Some((left.unsigned_abs() / 2).max(Duration::from_secs(1)))
}
