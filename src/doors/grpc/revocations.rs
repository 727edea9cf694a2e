//! The service of revocations: the feed, for verifiers, and the list of cuts, for operators.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::api::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::message::timestamp;
use super::server::revocations_server::Revocations;
use super::{Door, methods, targets};
use crate::acts::{Issuer, inspect};
use crate::caller::{Caller, Origin};
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::doors::counted::Counted;
use crate::judge::access::{self, Action};
use crate::publish::feed::{Cursor, Encoded, Feed, Head, Joined, Resumed, Subscriber, fork};

/// A subscriber that takes no message for this long is disconnected.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a person's token is checked during a stream, and how long the last message of a stream waits for its reader.
const LOOK: Duration = Duration::from_secs(1);

pub(in crate::doors) type Answer = Result<Encoded, Status>;

#[tonic::async_trait]
impl Revocations for Door {
    type WatchCutsStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn watch_cuts(&self, request: Request<v1::WatchCutsRequest>) -> Result<Response<Self::WatchCutsStream>, Status> {
        let stop = self.stop.clone();
        self.run(methods::WATCH_CUTS, request, |issuer, caller, r| async move {
            // T281: whoever was told of a revocation, and asks then whether it holds, hears of it.
            if !issuer.feed.caught_up().await {
                return Err(
                    Denial::new(Kind::Exhausted, "BUSY", "revocations are being published late: ask again in a moment").into()
                );
            }
            let from = match resume(&issuer.feed, &r)? {
                Resumed::After(cursor) => Some(cursor),
                Resumed::Snapshot => None,
                // After a restart the ring buffer does not reach back that far, but the journal may.
                Resumed::Unknown(head) => {
                    let ledger = issuer.ledger.clone();
                    let contains = tokio::task::spawn_blocking(move || ledger.contains(head)).await;
                    if !contains.map_err(|e| Fault::new("compare the past", e))?? {
                        return Err(fork(head.revision).into());
                    }
                    Some(issuer.feed.since(head.revision))
                }
            };
            let peer = Origin::current().and_then(|origin| origin.from).map(|from| from.to_string()).unwrap_or_default();
            let who = Who { id: name(&issuer, &caller), peer, since: issuer.clock.now() };
            let over = over(Arc::clone(&issuer), caller);
            let stream: Self::WatchCutsStream = Box::pin(subscribe(&issuer.feed, who, r, from, (stop, over)));
            Ok::<_, No>(stream)
        })
        .await
    }

    async fn list_cuts(&self, request: Request<v1::ListCutsRequest>) -> Result<Response<v1::ListCutsResponse>, Status> {
        self.run(methods::LIST_CUTS, request, |issuer, _, r| async move {
            let after = match r.page_token.as_str() {
                "" => 0,
                token => token.parse().map_err(|_| Denial::malformed("PAGE_TOKEN", "the page token is not ours"))?,
            };
            let (page, next, revision) = inspect::cuts(&issuer, after, usize::try_from(r.page_size).unwrap_or(usize::MAX));
            let cuts = page.into_iter().map(|made| targets::made(&issuer, made)).collect();
            Ok(v1::ListCutsResponse { cuts, next_page_token: next.map(|n| n.to_string()).unwrap_or_default(), revision })
        })
        .await
    }

    async fn confirm_cuts(&self, request: Request<v1::ConfirmCutsRequest>) -> Result<Response<v1::ConfirmCutsResponse>, Status> {
        self.hand_in(methods::CONFIRM_CUTS, request, |issuer, caller, r| async move {
            // If the stream has ended meanwhile there is nothing to confirm, and that is no error.
            issuer.feed.subscribers().confirm(&name(&issuer, &caller), &r.subscription, r.head);
            Ok(v1::ConfirmCutsResponse {})
        })
        .await
    }

    async fn list_subscribers(
        &self,
        request: Request<v1::ListSubscribersRequest>,
    ) -> Result<Response<v1::ListSubscribersResponse>, Status> {
        self.run(methods::LIST_SUBSCRIBERS, request, |issuer, _, r| async move {
            let subscribers = issuer.feed.subscribers();
            if r.confirm {
                subscribers.ask();
            }
            let message = |s: Subscriber| v1::Subscriber {
                id: s.id,
                peer: s.peer,
                since: Some(timestamp(s.since / SECOND)),
                sent: s.sent,
                heard: s.heard,
                confirms: !s.subscription.is_empty(),
                relays: s.relays,
            };
            let subscribers = subscribers.all().into_iter().map(message).collect();
            Ok(v1::ListSubscribersResponse { subscribers, head: issuer.feed.head() })
        })
        .await
    }
}

/// Resolves when the token of a person is no longer accepted. It never resolves for other callers, whose connections are closed
/// instead.
async fn over(issuer: Arc<Issuer>, caller: Caller) {
    let Some(person) = caller.person().cloned() else { return std::future::pending().await };
    let mut cuts = issuer.feed.cuts();
    let counts = || {
        let role = issuer.person(person.clone(), Action::WatchCuts)?;
        access::check(Action::WatchCuts, &role)
    };
    while counts().is_ok() {
        // A token expires without a record, and a reload may take an assignment away without one, so both are checked by time.
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            changed = cuts.changed() => if changed.is_err() { return },
        }
    }
}

/// A subscriber's name: its SPIFFE ID, or that of an operator on the local socket.
fn name(issuer: &Issuer, caller: &Caller) -> String {
    caller.spiffe_id(&issuer.trust_domain).unwrap_or_else(|| caller.scope())
}

/// A subscriber: its name, its address, and since when it is subscribed (Unix microseconds).
#[derive(Default)]
pub(in crate::doors) struct Who {
    id: String,
    peer: String,
    since: u64,
}

/// The position at which a subscriber continues. Denies one whose digest of the journal differs from ours.
pub(in crate::doors) fn resume(feed: &Feed, request: &v1::WatchCutsRequest) -> Result<Resumed, Denial> {
    let incarnation = match request.incarnation.as_slice() {
        [] => None,
        bytes => Some(Uuid::from_slice(bytes).map_err(|_| {
            Denial::malformed("INCARNATION_MALFORMED", "an incarnation has 16 bytes; leave it empty to get everything")
        })?),
    };
    if !matches!(request.subscription.len(), 0 | 16) {
        return Err(Denial::malformed(
            "INCARNATION_MALFORMED",
            "the name of a subscription has 16 bytes; leave it empty for none",
        ));
    }
    let chain = match request.chain.as_slice() {
        [] => None,
        bytes => Some(bytes.try_into().map_err(|_| {
            Denial::malformed("INCARNATION_MALFORMED", "a digest of the journal has 32 bytes; leave it empty if there is none")
        })?),
    };
    let Some(incarnation) = incarnation else { return Ok(Resumed::Snapshot) };
    feed.resume(Head { incarnation, revision: request.after, chain })
}

/// The stream of a subscriber: the cuts that it missed, or a snapshot, and then each new message.
pub(in crate::doors) fn subscribe(
    feed: &Arc<Feed>,
    who: Who,
    request: v1::WatchCutsRequest,
    from: Option<Cursor>,
    (mut stop, over): (watch::Receiver<bool>, impl Future<Output = ()> + Send + 'static),
) -> ReceiverStream<Answer> {
    let Who { id, peer, since } = who;
    let (subscription, relays) = (request.subscription, request.relays);
    let joined = feed.subscribers().join(Subscriber { id, peer, since, subscription, relays, ..Subscriber::default() });
    // One message is buffered for each subscriber; the ring buffer bounds the rest.
    let (answer, answers) = mpsc::channel(1);
    let feed = Arc::clone(feed);
    tokio::spawn(async move {
        let _counted = Counted::new(metrics::gauge!("mayfly_feed_subscribers"));
        // UNAVAILABLE, because clients do not connect again after CANCELLED or OK.
        let end = tokio::select! {
            end = follow(&feed, from, &joined, &answer) => end,
            () = async { drop(stop.wait_for(|stop| *stop).await) } => Some(Status::unavailable("stopping: connect again")),
            () = over => Some(Status::unauthenticated("the token does not count any more: sign in again")),
        };
        if let Some(end) = end {
            // The error is sent after a message that may still wait. Without it the stream would look complete.
            let _ = tokio::time::timeout(LOOK, answer.send(Err(end))).await;
        }
    });
    ReceiverStream::new(answers)
}

/// Sends messages until the subscriber disconnects.
async fn follow(feed: &Feed, mut cursor: Option<Cursor>, joined: &Joined, answer: &mpsc::Sender<Answer>) -> Option<Status> {
    let mut news = feed.news();
    loop {
        // ORDER: before the feed is read, so that a message in between is sent in the next round.
        news.mark_unchanged();
        // The messages below reach at least up to this head.
        let head = feed.head();
        let (messages, at) = feed.next(cursor);
        cursor = Some(at);
        for message in messages {
            match tokio::time::timeout(PATIENCE, answer.send(Ok(Encoded(message)))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => return Some(Status::unavailable("messages were not read: connect again, from the last heartbeat")),
            }
        }
        joined.sent(head);
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return None },
            () = answer.closed() => return None,
        }
    }
}
