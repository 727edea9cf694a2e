//! Our own trust domain's bundle, and those of the trust domains beside it, as the issuer streams them.

use std::collections::BTreeSet;
use std::convert::Infallible;

use mayfly_verify::{Bundle, TrustDomain};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::Bundles;
use crate::api::v1;
use crate::api::v1::bundles_client::BundlesClient;
use crate::identity::Foreign;
use crate::revocation::{LONGEST, Link, PAUSE, jittered};

/// The stream of bundles that are followed for as long as this lives. What was believed through a break stays believed.
#[derive(Debug)]
pub struct FollowingBundle {
    link: watch::Receiver<Link>,
    task: JoinHandle<()>,
}

impl FollowingBundle {
    /// How the stream stands, and each change of that.
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
    /// Believes what the issuer says its bundle is, and each change of that. The channel is what makes it believable: it has
    /// verified the issuer of this trust domain.
    ///
    /// A channel that shows an identity also brings the bundles of the trust domains beside ours, and takes them away when the
    /// issuer does. Nothing of them holds before the [`Verifier`](super::Verifier) is told what they revoke.
    pub fn follow(&self, channel: Channel, trust_domain: TrustDomain) -> FollowingBundle {
        let (told, link) = watch::channel(Link::Connecting);
        let task = tokio::spawn(run(BundlesClient::new(channel), trust_domain, self.clone(), told));
        FollowingBundle { link, task }
    }
}

async fn run(mut client: BundlesClient<Channel>, trust_domain: TrustDomain, bundles: Bundles, told: watch::Sender<Link>) {
    let (mut pause, mut known) = (PAUSE, BTreeSet::new());
    loop {
        let why = match session(&mut client, &trust_domain, &bundles, &mut known, &told).await {
            Ok(never) => match never {},
            Err(why) => why,
        };
        if *told.borrow() == Link::Open {
            pause = PAUSE;
        }
        told.send_replace(Link::Broken(why));
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// One stream to its end, which is always a reason.
async fn session(
    client: &mut BundlesClient<Channel>,
    trust_domain: &TrustDomain,
    bundles: &Bundles,
    known: &mut BTreeSet<TrustDomain>,
    told: &watch::Sender<Link>,
) -> Result<Infallible, String> {
    let said = |status: tonic::Status| status.message().to_owned();
    let mut stream = client.watch_bundle(v1::WatchBundleRequest {}).await.map_err(said)?.into_inner();
    loop {
        let next = stream.message().await.map_err(said)?.ok_or("the stream ended")?;
        let wire = next.bundle.ok_or("there is no bundle in the answer")?;
        // FC-2: whose it is, we know; it is never learned from what comes.
        if wire.trust_domain != trust_domain.as_str() {
            return Err(format!("the bundle is of `{}`", wire.trust_domain.chars().take(255).collect::<String>()));
        }
        bundles.set(Bundle::from_json(trust_domain.clone(), &wire.spiffe_json).map_err(|e| e.to_string())?);
        let foreign = Foreign::read(&wire.trust_domain, &next.foreign);
        let named: BTreeSet<_> = foreign.iter().map(|one| one.trust_domain().clone()).collect();
        // What somebody else set is theirs.
        known.difference(&named).for_each(|gone| bundles.remove(gone));
        for one in foreign.iter() {
            bundles.set(Bundle::clone(one.bundle()));
        }
        *known = named;
        told.send_if_modified(|link| std::mem::replace(link, Link::Open) != Link::Open);
    }
}
