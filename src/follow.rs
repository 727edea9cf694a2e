//! A program beside the issuer with an identity in a folder: it renews the identity, and follows the bundle and the feed of
//! revocations. A relay and a guard begin here.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::channel::{ChannelSettings, ConnectError, Identity, Trust, connect, connect_as};
use mayfly_agent::peers::{Bundles, FollowingBundle};
use mayfly_agent::revocation::{Following, Freshness, Tick, follow, follow_with};
use mayfly_agent::tls::CurrentIdentity;
use mayfly_agent::validity;
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{Bundle, TrustDomain};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::folder::{self, Key, Locked};
use crate::process;

/// How long the issuer may take for one answer, because the connection to a suspended process is accepted and never answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for another program that renews the same folder.
const LOCKED: Duration = Duration::from_secs(30);
/// How often the folder is looked at for a certificate that another program has renewed.
const LOOK: Duration = Duration::from_secs(1);
/// Pause between two attempts to renew.
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
    /// The issuer refuses to send its bundle.
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

/// The identity, the bundles and the revocations, which are kept up to date until this is dropped.
pub struct Followed {
    /// The identity, as the next handshake shows it.
    pub own: CurrentIdentity,
    /// The bundle of the trust domain, those of foreign ones, and the authorities below the roots.
    pub bundles: Bundles,
    /// What is revoked.
    pub revocations: Following,
    /// The connection to the issuer.
    pub channel: Channel,
    /// Notifies when the folder may hold another certificate.
    pub renewed: watch::Receiver<()>,
    _bundle: FollowingBundle,
    renewing: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// The issuer's address, and the roots that verify it.
struct Issuer {
    address: String,
    trust_domain: TrustDomain,
    trust: Trust,
    connect_timeout: Duration,
}

impl Issuer {
    fn of(settings: &ChannelSettings) -> Issuer {
        Issuer {
            address: settings.address.clone(),
            trust_domain: settings.trust_domain.clone(),
            trust: settings.trust.clone(),
            connect_timeout: settings.connect_timeout,
        }
    }

    fn settings(&self, identity: Identity) -> ChannelSettings {
        ChannelSettings {
            address: self.address.clone(),
            trust_domain: self.trust_domain.clone(),
            trust: self.trust.clone(),
            identity: Some(identity),
            connect_timeout: self.connect_timeout,
        }
    }
}

/// Connects with the identity in the folder `dir`, gets the bundle, and follows from there. `settings` name the issuer's address
/// and the roots that verify it. Fails if the identity has expired, or if the issuer cannot be reached now.
pub async fn begin(
    settings: ChannelSettings,
    dir: PathBuf,
    freshness: Freshness,
    tap: Option<Tap>,
) -> Result<Followed, FollowError> {
    let own = folder::identity(&dir).and_then(|identity| CurrentIdentity::new(identity).map_err(|e| e.to_string()));
    let own = own.map_err(FollowError::Folder)?;
    let trust_domain = settings.trust_domain.clone();
    let issuer = Issuer::of(&settings);
    let channel = connect_as(settings, own.clone()).await?;
    // The bundle, and the key of heartbeats that comes with it, which are trusted from here on.
    let got = tokio::time::timeout(PATIENCE, fetch_bundle(channel.clone())).await.map_err(|_| FollowError::Silent)??;
    let unusable = |e: &dyn std::fmt::Display| FollowError::Bundle(e.to_string());
    let key = FeedKey::from_point(&got.feed_key).map_err(|e| unusable(&e))?;
    let bundles = Bundles::default();
    bundles.set(Bundle::from_json(trust_domain.clone(), &got.spiffe_json).map_err(|e| unusable(&e))?);
    let (bundle, own_channel) = (bundles.follow(channel.clone(), trust_domain.clone()), channel.clone());
    let revocations = match tap {
        Some(tap) => follow_with(channel.clone(), key, trust_domain, freshness, tap),
        None => follow(channel.clone(), key, trust_domain, freshness),
    };
    let (news, renewed) = watch::channel(());
    let renewing = process::task("own certificate", keep_renewing(issuer, own.clone(), dir, news));
    Ok(Followed { own, bundles, revocations, channel: own_channel, renewed, _bundle: bundle, renewing })
}

async fn fetch_bundle(channel: Channel) -> Result<v1::Bundle, FollowError> {
    let got = BundlesClient::new(channel).get_bundle(v1::GetBundleRequest {}).await?.into_inner();
    got.bundle.ok_or_else(|| FollowError::Bundle("the answer is incomplete".into()))
}

/// Renews in place whenever half of the certificate's life has passed, and takes over a certificate that another program has
/// renewed.
async fn keep_renewing(issuer: Issuer, own: CurrentIdentity, dir: PathBuf, news: watch::Sender<()>) {
    let mut seen = written(&dir);
    loop {
        let due = until_half(&dir).unwrap_or(PAUSE);
        tokio::time::sleep(due.min(LOOK)).await;
        let now = written(&dir);
        if due > LOOK {
            if now != seen && folder::identity(&dir).is_ok_and(|identity| own.replace(identity).is_ok()) {
                seen = now;
                news.send_replace(());
            }
            continue;
        }
        while let Err(cause) = renew(&issuer, &own, &dir).await {
            tracing::error!(%cause, "the own certificate could not be renewed: trying again");
            tokio::time::sleep(PAUSE).await;
            // Somebody may have put another identity into the folder, because this one has expired.
            if let Ok(identity) = folder::identity(&dir)
                && let Err(cause) = own.replace(identity)
            {
                tracing::debug!(%cause, "the identity in the folder cannot be used");
            }
            news.send_replace(());
        }
        news.send_replace(());
        seen = written(&dir);
    }
}

/// When the certificate in the folder was written.
fn written(dir: &Path) -> Option<SystemTime> {
    std::fs::metadata(dir.join("svid.pem")).and_then(|file| file.modified()).ok()
}

async fn renew(issuer: &Issuer, own: &CurrentIdentity, dir: &Path) -> Result<(), String> {
    // ORDER: the folder is locked before the certificate is read. The issuer would refuse one that another program has just
    // replaced.
    let locked = Locked::soon(dir, LOCKED).await.map_err(|e| e.to_string())?;
    if folder::validity(dir)?.half() <= validity::now() {
        let key = Key::new()?;
        // The issuer judges a connection by the certificate that it was opened with, so a new connection with the newest
        // certificate is made.
        let settings = issuer.settings(folder::identity(dir)?);
        let asked = async {
            let channel = connect(settings).await.map_err(|e| e.to_string())?;
            let request = v1::RenewRequest { csr: key.csr.clone() };
            IdentitiesClient::new(channel).renew(request).await.map_err(|e| e.to_string())
        };
        let got = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| "the issuer does not answer")??.into_inner();
        let is_workload = got.agent.is_none();
        let (svid, bundle) = got.svid.zip(got.bundle).ok_or("the answer is incomplete")?;
        folder::write_locked(&locked, &key, &svid, &bundle, None)?;
        own.replace(folder::identity(dir)?).map_err(|e| e.to_string())?;
        if is_workload {
            present(issuer.settings(folder::identity(dir)?)).await;
        }
        return Ok(());
    }
    own.replace(folder::identity(dir)?).map_err(|e| e.to_string())
}

/// Uses the renewed certificate of a workload at once, which makes copies of the previous one useless. If that fails, the next call
/// does it.
pub async fn present(settings: ChannelSettings) {
    let shown = async {
        let channel = connect(settings).await.map_err(|e| e.to_string())?;
        IdentitiesClient::new(channel).whoami(v1::WhoamiRequest {}).await.map_err(|e| e.to_string())
    };
    let cause = match tokio::time::timeout(PATIENCE, shown).await {
        Ok(Ok(_)) => return,
        Ok(Err(cause)) => cause,
        Err(_) => "the issuer does not answer".into(),
    };
    tracing::warn!(%cause, "the renewed certificate was not shown to the issuer: the one before counts until it is");
}

/// How long until half of the certificate's life has passed, at least a second. `None` if the certificate cannot be read.
fn until_half(dir: &Path) -> Option<Duration> {
    let half = folder::validity(dir).ok()?.half();
    Some(Duration::from_secs(half.saturating_sub(validity::now()).max(1)))
}
