//! The two tasks of an identity: renew the certificate, and follow the bundles.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tonic::transport::Channel;

use super::{Current, Foreign, IdentityError, Over, PATIENCE, Shared, pace, timely};
use crate::api::v1;
use crate::api::v1::bundles_client::BundlesClient;
use crate::api::v1::identities_client::IdentitiesClient;
use crate::identity::key::Key;

/// How often the clock is looked at: it may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(20);
/// A stream that was open for so long was no failure.
const STOOD: Duration = Duration::from_secs(1);

/// Renews until the identity is over. The nearest expiry comes first by itself: each identity has its own clock.
pub(super) async fn renew(shared: Arc<Shared>) {
    let mut over = shared.over.subscribe();
    let mut at = next_renewal(&shared.current.borrow(), SystemTime::now());
    loop {
        let ends_at = shared.current.borrow().expires_at();
        tokio::select! {
            () = until(at.unwrap_or(ends_at).min(ends_at)) => {}
            _ = over.wait_for(Option::is_some) => return,
        }
        let now = SystemTime::now();
        if now >= ends_at {
            let why = if at.is_none() { "its lease is over" } else { "no renewal came in time: see whether the issuer runs" };
            shared.end(Over::Expired(why.into()));
            return;
        }
        match once(&shared).await {
            Ok(next) => {
                at = next_renewal(&next, SystemTime::now());
                shared.current.send_modify(|current| *current = Arc::new(next.hearing(current)));
            }
            Err(IdentityError::Over(over)) => {
                shared.end(over);
                return;
            }
            // Whatever it is, what we hold holds until it ends.
            Err(_) => {
                let now = SystemTime::now();
                at = Some(now + pace::again(shared.current.borrow().left(now), pace::chance()));
            }
        }
    }
}

/// None: a renewal brings nothing more.
fn next_renewal(current: &Current, now: SystemTime) -> Option<SystemTime> {
    if current.lease_ends_at().is_some_and(|lease| current.expires_at() >= lease) {
        return None;
    }
    Some(now + pace::renewal(current.left(now), pace::chance()))
}

async fn once(shared: &Shared) -> Result<Current, IdentityError> {
    let key = Key::new()?;
    let request = v1::RenewRequest { csr: key.csr()? };
    let got = timely(IdentitiesClient::new(shared.line.channel()).renew(request)).await?;
    let next = Current::new(key, got.svid, got.bundle, got.agent, got.revision)?;
    let next = next.hearing(&shared.current.borrow());
    if next.spiffe_id() != shared.current.borrow().spiffe_id() {
        return Err(IdentityError::Answer("the certificate is somebody else's"));
    }
    // ORDER: before anybody sees it, so that no connection is made with its predecessor any more.
    shared.line.show(next.certified_key(), &next.bundle().x509_authorities).await?;
    Ok(next)
}

/// Takes each change of the bundles. The same stream tells at once when we are cut: the issuer ends it, and says why when we
/// come back.
pub(super) async fn follow_bundle(shared: Arc<Shared>) {
    let mut failures = 0u32;
    let mut over = shared.over.subscribe();
    let mut line = shared.line.watch();
    loop {
        let channel = line.borrow_and_update().clone();
        let mut opened = None;
        let ended = tokio::select! {
            ended = session(&shared, channel, &mut opened) => ended,
            // Over a connection with the renewed certificate, which is in use by that.
            changed = line.changed() => if changed.is_ok() { continue } else { return },
            _ = over.wait_for(Option::is_some) => return,
        };
        if let IdentityError::Over(why) = ended {
            shared.end(why);
            return;
        }
        failures = if opened.is_some_and(|at: Instant| at.elapsed() > STOOD) { 1 } else { failures.saturating_add(1) };
        // The first time at once: who is cut learns of it so.
        let pause = match failures {
            1 => pace::pause(failures, PATIENCE, pace::chance()),
            _ => {
                let current = Arc::clone(&shared.current.borrow());
                pace::back(current.left(SystemTime::now()), current.refresh(), pace::chance())
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = over.wait_for(Option::is_some) => return,
        }
    }
}

/// One stream to its end, which is always a reason; and when it was open.
async fn session(shared: &Shared, channel: Channel, open: &mut Option<Instant>) -> IdentityError {
    let opened = timely(BundlesClient::new(channel).watch_bundle(v1::WatchBundleRequest {})).await;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(e) => return e,
    };
    *open = Some(Instant::now());
    loop {
        let (bundle, foreign) = match stream.message().await {
            Ok(Some(message)) => (message.bundle.filter(|b| !b.x509_authorities.is_empty()), message.foreign),
            Ok(None) => return IdentityError::Unavailable("the bundle's stream ended".into()),
            Err(status) => return IdentityError::of(&status),
        };
        let Some(bundle) = bundle else { return IdentityError::Answer("no bundle") };
        let known = Arc::clone(&shared.current.borrow());
        let foreign = Foreign::read(&bundle.trust_domain, &foreign);
        let next = match known.with_bundles(bundle, foreign) {
            Ok(Some(next)) => next,
            Ok(None) => continue,
            Err(e) => return e,
        };
        if let Err(e) = shared.line.believe(&next.bundle().x509_authorities).await {
            return e.into();
        }
        // A renewal may have come in between: then only the bundles are taken.
        shared.current.send_modify(|current| *current = Arc::new(current.hearing(&next)));
    }
}

/// Waits for a time of day.
pub(crate) async fn until(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
