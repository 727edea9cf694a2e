//! The bundles that an issuer streams: its own trust domain's, and those of foreign trust domains.

use std::collections::BTreeSet;
use std::time::Duration;

use mayfly_verify::{Bundle, TrustDomain};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Bundles, Foreign};
use crate::api::v1;
use crate::api::v1::bundles_client::BundlesClient;
use crate::stream::{self, End, Link, Subscription};

/// Follows an issuer's bundles until it is dropped. While the stream is broken, the last bundles stay trusted.
#[derive(Debug)]
pub struct FollowingBundle {
    link: watch::Receiver<Link>,
    task: JoinHandle<()>,
}

impl FollowingBundle {
    /// State of the stream, and each change of it.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }
}

impl Drop for FollowingBundle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bundles {
    /// Trusts the issuer's bundle and each change of it. The channel must have verified the issuer of this trust domain.
    ///
    /// If the channel presents an identity, the issuer also sends the bundles of foreign trust domains, and they are removed when
    /// the issuer removes them. Their credentials are refused until the [`Verifier`](super::Verifier) knows their revocations.
    ///
    /// An [`Identity`](crate::identity::Identity) follows this stream already: use its `bundles()`.
    pub fn follow(&self, channel: Channel, trust_domain: TrustDomain) -> FollowingBundle {
        let (sender, link) = watch::channel(Link::Connecting);
        let issuer = FromIssuer::new(self.clone(), trust_domain);
        let mut stream = BundleStream { client: BundlesClient::new(channel), issuer, link: sender };
        let task = tokio::spawn(async move { stream::follow(&mut stream).await });
        FollowingBundle { link, task }
    }
}

/// Keeps a set of bundles as the issuer's messages say: its own bundle, and those of the foreign trust domains that it trusts.
pub(crate) struct FromIssuer {
    bundles: Bundles,
    trust_domain: TrustDomain,
    /// The foreign trust domains of the last message. Only their bundles are removed again; others were set by the program.
    foreign: BTreeSet<TrustDomain>,
}

impl FromIssuer {
    pub(crate) fn new(bundles: Bundles, trust_domain: TrustDomain) -> FromIssuer {
        FromIssuer { bundles, trust_domain, foreign: BTreeSet::new() }
    }

    /// Sets the bundles of one message, and the authorities below our own roots.
    pub(crate) fn take(&mut self, own: &v1::Bundle, foreign: &Foreign, below: &[Vec<u8>]) -> Result<(), String> {
        // FC-2: the trust domain is known beforehand, and never learned from a message.
        if own.trust_domain != self.trust_domain.as_str() {
            let other = own.trust_domain.chars().take(255).collect::<String>();
            return Err(format!("the bundle is of trust domain `{other}`, expected `{}`", self.trust_domain));
        }
        if self.bundles.set(Bundle::from_json(self.trust_domain.clone(), &own.spiffe_json).map_err(|e| e.to_string())?) {
            self.bundles.set_intermediates(&self.trust_domain, below);
        }
        let named: BTreeSet<_> = foreign.iter().map(|one| one.trust_domain().clone()).collect();
        self.foreign.difference(&named).for_each(|gone| self.bundles.remove(gone));
        for one in foreign.iter() {
            self.bundles.set(Bundle::clone(one.bundle()));
        }
        self.foreign = named;
        Ok(())
    }
}

/// The issuer's stream of bundles.
struct BundleStream {
    client: BundlesClient<Channel>,
    issuer: FromIssuer,
    link: watch::Sender<Link>,
}

impl Subscription for BundleStream {
    type Message = v1::WatchBundleResponse;
    type Why = String;

    async fn open(&mut self) -> Result<Streaming<Self::Message>, Status> {
        Ok(self.client.watch_bundle(v1::WatchBundleRequest {}).await?.into_inner())
    }

    async fn take(&mut self, message: Self::Message) -> Result<bool, String> {
        let own = message.bundle.ok_or("the issuer's message has no bundle")?;
        self.issuer.take(&own, &Foreign::read(&own.trust_domain, &message.foreign), &message.x509_intermediates)?;
        self.link.send_if_modified(|link| std::mem::replace(link, Link::Open) != Link::Open);
        Ok(true)
    }

    fn why(&self, status: Status) -> String {
        status.message().to_owned()
    }

    fn ended(&mut self, end: End<String>) -> Option<Duration> {
        let pause = end.backoff();
        self.link.send_replace(Link::Broken(end.why));
        Some(pause)
    }
}
