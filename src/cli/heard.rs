//! Waiting until those who follow the feed say that they have heard a revocation.

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
/// Longer than the feed is ever silent.
const MOMENT: Duration = Duration::from_millis(1500);

/// Who had heard when the wait ended.
pub(super) struct Heard {
    /// Those who have said that they have.
    pub(super) heard: Vec<v1::Subscriber>,
    /// Those who follow and have not.
    pub(super) missing: Vec<v1::Subscriber>,
}

/// Waits until everybody who follows the feed has heard it up to a revision, at most for `bound`.
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

/// Who follows the feed, with its head; those who say what they have heard get a moment to say so.
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

/// One line: who, from where, and how far it has heard.
pub(super) fn line(subscriber: &v1::Subscriber) -> String {
    let kind = if subscriber.relays { " (a relay: those behind it are not known)" } else { "" };
    let heard = match (subscriber.confirms, subscriber.heard) {
        (false, _) => format!("was sent everything up to revision {}; it does not say what it has heard", subscriber.sent),
        (true, 0) => format!("was sent everything up to revision {}", subscriber.sent),
        (true, heard) => format!("has heard everything up to revision {heard}"),
    };
    format!("{} at {}{kind} {heard}", subscriber.id, subscriber.peer)
}
