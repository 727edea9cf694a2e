//! Waits until the followers of the feed confirm that they have received a revocation.

use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connect::Channel;
use super::exit::Failure;
use super::output;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// A time in which at least one heartbeat arrives.
const MOMENT: Duration = Duration::from_millis(1500);

/// The followers of the feed when the wait ended.
pub(super) struct Heard {
    /// Those that have confirmed it.
    pub(super) heard: Vec<v1::Subscriber>,
    /// Those that have not.
    pub(super) missing: Vec<v1::Subscriber>,
}

/// Waits until all followers have confirmed the feed up to a revision, at most for `bound`.
pub(super) async fn wait(channel: Channel, revision: u64, bound: Duration) -> Result<Heard, Failure> {
    let mut client = RevocationsClient::new(channel);
    let began = Instant::now();
    loop {
        let request = v1::ListSubscribersRequest { confirm: true };
        let got = client.list_subscribers(request).await?.into_inner();
        let (heard, missing): (Vec<_>, Vec<_>) = got.subscribers.into_iter().partition(|s| s.heard >= revision);
        if missing.is_empty() || began.elapsed() >= bound {
            return Ok(Heard { heard, missing });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The followers of the feed, with its head. Followers that confirm get a moment to do so first.
pub(super) async fn look(channel: Channel) -> Result<v1::ListSubscribersResponse, Failure> {
    let mut client = RevocationsClient::new(channel);
    let began = Instant::now();
    let mut wanted = None;
    loop {
        let got = client.list_subscribers(v1::ListSubscribersRequest { confirm: true }).await?.into_inner();
        let head = *wanted.get_or_insert(got.head);
        if got.subscribers.iter().all(|s| !s.confirms || s.heard >= head) || began.elapsed() >= MOMENT {
            return Ok(got);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A subscriber, with the field names that every command uses.
pub(super) fn object(subscriber: &v1::Subscriber) -> Value {
    json!({
        "id": subscriber.id,
        "peer": Some(&subscriber.peer).filter(|peer| !peer.is_empty()),
        "since": output::timestamp(subscriber.since.as_ref()),
        "sent": subscriber.sent,
        "heard": Some(subscriber.heard).filter(|heard| *heard > 0),
        "confirms": subscriber.confirms,
        "relays": subscriber.relays,
    })
}

/// One line: the follower, its address, and the revision that it has confirmed.
pub(super) fn line(subscriber: &v1::Subscriber) -> String {
    let kind = if subscriber.relays { " (a relay: those behind it are not known)" } else { "" };
    let heard = match (subscriber.confirms, subscriber.heard) {
        (false, _) => format!("was sent everything up to revision {}; it does not say what it has heard", subscriber.sent),
        (true, 0) => format!("was sent everything up to revision {}", subscriber.sent),
        (true, heard) => format!("has heard everything up to revision {heard}"),
    };
    format!("{} at {}{kind} {heard}", subscriber.id, subscriber.peer)
}
