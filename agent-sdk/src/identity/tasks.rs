//! The two tasks of an identity: one renews the certificate, the other follows the bundles.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Current, IdentityError, Key, Over, Shared, pace, timely, within_patience};
use crate::api::v1;
use crate::api::v1::bundles_client::BundlesClient;
use crate::api::v1::identities_client::IdentitiesClient;
use crate::peers::{Foreign, FromIssuer};
use crate::random::chance;
use crate::stream::{self, End, Subscription};

/// How often the clock is read while waiting, because clocks can be set and machines sleep.
const LOOK: Duration = Duration::from_secs(20);

/// Renews the certificate until the identity ends. Each identity has its own timer, so the nearest expiry is served first.
pub(super) async fn renew(shared: Arc<Shared>) {
    let mut over = shared.over.subscribe();
    let mut at = next_renewal(&shared.current.borrow(), SystemTime::now());
    loop {
        let ends_at = shared.current.borrow().expires_at();
        tokio::select! {
            () = until(at.unwrap_or(ends_at).min(ends_at)) => {}
            () = shared.extended.notified() => {}
            _ = over.wait_for(Option::is_some) => return,
        }
        let now = SystemTime::now();
        if now >= ends_at {
            let why =
                if at.is_none() { "its lease has ended" } else { "it could not be renewed in time: check that the issuer runs" };
            shared.end(Over::Expired(why.into()));
            return;
        }
        match once(&shared).await {
            Ok(next) => {
                at = next_renewal(&next, SystemTime::now());
            }
            Err(IdentityError::Over(over)) => {
                shared.end(over);
                return;
            }
            // Whatever the error is, the current certificate stays valid until it expires.
            Err(_) => {
                let now = SystemTime::now();
                at = Some(now + pace::again(shared.current.borrow().left(now), chance()));
            }
        }
    }
}

/// When to renew next. `None` if the certificate lasts as long as the lease, so that a renewal would gain nothing.
fn next_renewal(current: &Current, now: SystemTime) -> Option<SystemTime> {
    if current.lease_ends_at().is_some_and(|lease| current.expires_at() >= lease) {
        return None;
    }
    Some(now + pace::renewal(current.left(now), chance()))
}

/// Renews once, and publishes the next certificate.
async fn once(shared: &Shared) -> Result<Current, IdentityError> {
    let locked = match &shared.kept {
        Some(kept) => Some((kept, kept.lock().await?)),
        None => None,
    };
    let current = Arc::clone(&shared.current.borrow());
    if let Some(newer) = locked.as_ref().and_then(|(kept, _)| kept.newer(&current)) {
        shared.connection.show(newer, &current.bundle().x509_authorities, || ()).await?;
    }
    let key = Key::new()?;
    let request = v1::RenewRequest { csr: key.csr()? };
    let got = timely(IdentitiesClient::new(shared.connection.channel()).renew(request)).await?;
    if let Some((kept, locked)) = &locked {
        kept.write(locked, &key, &got, &shared.at.address)?;
    }
    let next = Current::new(key, got.svid, got.bundle, got.agent, got.revision)?;
    let next = next.with_bundles_of(&shared.current.borrow());
    if next.spiffe_id() != shared.current.borrow().spiffe_id() {
        return Err(IdentityError::Answer("the certificate has another SPIFFE ID"));
    }
    let publish = || {
        shared.bundles.set(next.trust().clone());
        shared.current.send_modify(|current| *current = Arc::new(next.with_bundles_of(current)));
    };
    // ORDER: before the certificate is published, so that no new connection is made with its predecessor.
    shared.connection.show(next.certified_key(), &next.bundle().x509_authorities, publish).await?;
    Ok(next)
}

/// Follows the bundles. This stream is also the fastest news of a revocation: the issuer closes it, and gives the reason when
/// it is opened again.
pub(super) async fn follow_bundle(shared: Arc<Shared>) {
    let mut over = shared.over.subscribe();
    let mut channels = shared.connection.watch();
    let bundles = FromIssuer::new(shared.bundles.clone(), shared.at.trust_domain.clone());
    let mut stream = BundleStream { shared: Arc::clone(&shared), channel: shared.connection.channel(), bundles };
    loop {
        stream.channel = channels.borrow_and_update().clone();
        tokio::select! {
            () = stream::follow(&mut stream) => return,
            // Reopened over a connection with the renewed certificate, which also tells the issuer that it is in use.
            changed = channels.changed() => if changed.is_err() { return },
            _ = over.wait_for(Option::is_some) => return,
        }
    }
}

/// The issuer's bundles as a stream to follow.
struct BundleStream {
    shared: Arc<Shared>,
    channel: Channel,
    bundles: FromIssuer,
}

impl Subscription for BundleStream {
    type Message = v1::WatchBundleResponse;
    type Why = IdentityError;

    async fn open(&mut self) -> Result<Streaming<Self::Message>, Status> {
        let mut client = BundlesClient::new(self.channel.clone());
        within_patience(client.watch_bundle(v1::WatchBundleRequest {})).await
    }

    async fn take(&mut self, message: Self::Message) -> Result<bool, IdentityError> {
        let bundle =
            message.bundle.filter(|b| !b.x509_authorities.is_empty()).ok_or(IdentityError::Answer("there is no bundle"))?;
        let shared = &self.shared;
        let foreign = Foreign::read(&bundle.trust_domain, &message.foreign);
        let below = &message.x509_intermediates;
        self.bundles.take(&bundle, &foreign, below).map_err(|_| IdentityError::Answer("the bundle cannot be used"))?;
        let known = Arc::clone(&shared.current.borrow());
        let Some(next) = known.with_bundles(bundle, foreign)? else { return Ok(true) };
        shared.connection.believe(&next.bundle().x509_authorities).await?;
        // If a renewal came in the meantime, its certificate stays and only the bundles change.
        shared.current.send_modify(|current| *current = Arc::new(current.with_bundles_of(&next)));
        Ok(true)
    }

    fn why(&self, status: Status) -> IdentityError {
        IdentityError::of(&status)
    }

    fn ended(&mut self, end: End<IdentityError>) -> Option<Duration> {
        if let IdentityError::Over(why) = end.why {
            self.shared.end(why);
            return None;
        }
        // The first time after a short pause: this is how a revoked agent learns of its revocation.
        if end.failures == 0 {
            return Some(pace::CALLS.pause(0, chance()));
        }
        let current = Arc::clone(&self.shared.current.borrow());
        Some(pace::back(current.left(SystemTime::now()), current.refresh(), chance()))
    }
}

/// Waits until a time of day.
pub(crate) async fn until(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
