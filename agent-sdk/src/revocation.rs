//! Follows the issuer's feed of revocations. The result is a [`Live`], which every check in the process shares.
//!
//! ```no_run
//! # async fn example(channel: tonic::transport::Channel, point: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! use mayfly_agent::revocation::{Freshness, follow};
//! use mayfly_verify::{TrustDomain, feed::FeedKey};
//!
//! // The key comes with the bundle: `mayfly.v1.Bundle.feed_key`.
//! let key = FeedKey::from_point(point)?;
//! let feed = follow(channel, key, TrustDomain::new("prod.example.org")?, Freshness::default());
//! let live = feed.live().clone();
//! // For each request: live.check(now, &svid)?
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

pub use mayfly_verify::Freshness;
use mayfly_verify::feed::{FeedCut, FeedError, FeedKey, FeedMessage, Follower, Heartbeat, Known, Limits};
use mayfly_verify::{Live, Subject, TrustDomain};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::api::v1;
use crate::api::v1::revocations_client::RevocationsClient;
use crate::channel::{Authorized, without_user_token};
use crate::random;
pub use crate::stream::Link;
use crate::stream::{self, End, Subscription};

/// Heartbeats come every second. A feed that is silent for this long is opened again.
const SILENCE: Duration = Duration::from_secs(5);
/// The issuer's reason for refusing a follower whose digest of the journal differs from its own.
const FORK: &str = "FEED_FORK";

/// Follows a feed until it is dropped.
#[derive(Debug)]
pub struct Following {
    live: Live,
    link: watch::Receiver<Link>,
    task: JoinHandle<()>,
}

impl Following {
    /// The current revocations, for checks. Clones stay usable when the feed is dropped, and grow stale.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// State of the feed, and each change of it (T41).
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The messages between two valid heartbeats, unchanged.
#[derive(Debug)]
pub struct Tick {
    /// The messages in order; the last one has the heartbeat. If they begin with a snapshot, they are the whole state.
    pub messages: Vec<v1::WatchCutsResponse>,
    /// The state after these messages.
    pub known: Arc<Known>,
}

type Tap = Box<dyn FnMut(Tick) + Send>;

/// Follows the feed over a channel, and resumes after every break. The channel must present an identity, or lead to the operator
/// socket. `key` signs the heartbeats of `trust_domain`.
pub fn follow(channel: Channel, key: FeedKey, trust_domain: TrustDomain, freshness: Freshness) -> Following {
    begin(without_user_token(channel), key, trust_domain, freshness, None)
}

/// The same over a channel that may send a person's token: of an operator or an auditor.
pub fn follow_as(channel: Authorized, key: FeedKey, trust_domain: TrustDomain, freshness: Freshness) -> Following {
    begin(channel, key, trust_domain, freshness, None)
}

/// The same, and passes the verified messages to a callback: for a relay.
pub fn follow_with(
    channel: Channel,
    key: FeedKey,
    trust_domain: TrustDomain,
    freshness: Freshness,
    each: impl FnMut(Tick) + Send + 'static,
) -> Following {
    begin(without_user_token(channel), key, trust_domain, freshness, Some(Box::new(each)))
}

fn begin(channel: Authorized, key: FeedKey, trust_domain: TrustDomain, freshness: Freshness, tap: Option<Tap>) -> Following {
    let live = Live::new(trust_domain.clone(), freshness);
    let follower = Follower::new(key, trust_domain, Limits::default());
    let (sender, link) = watch::channel(Link::Connecting);
    let client = RevocationsClient::new(channel);
    let (subscription, confirming, messages) = (Vec::new(), None, Vec::new());
    let mut feed = Feed { client, follower, live: live.clone(), link: sender, tap, subscription, confirming, messages };
    let task = tokio::spawn(async move { stream::follow(&mut feed).await });
    Following { live, link, task }
}

/// The feed as a stream to follow.
struct Feed {
    client: RevocationsClient<Authorized>,
    follower: Follower,
    live: Live,
    link: watch::Sender<Link>,
    tap: Option<Tap>,
    /// The name of the open stream, with which it is confirmed.
    subscription: Vec<u8>,
    /// The last confirmation, while it is under way: one at a time.
    confirming: Option<JoinHandle<()>>,
    /// Messages since the last heartbeat, kept for the callback alone. The follower limits their number.
    messages: Vec<v1::WatchCutsResponse>,
}

impl Feed {
    /// After a fork every check refuses, until the program is started again.
    fn forked(&self, error: &FeedError) {
        if let FeedError::Fork(revision) = error {
            self.live.fork(*revision);
        }
    }
}

impl Subscription for Feed {
    type Message = v1::WatchCutsResponse;
    type Why = String;
    const SILENCE: Option<Duration> = Some(SILENCE);

    async fn open(&mut self) -> Result<Streaming<Self::Message>, Status> {
        self.messages.clear();
        let from = self.follower.connect();
        // Without randomness the stream has no name, and is followed all the same.
        self.subscription = random::bytes::<16>().map(|bytes| bytes.to_vec()).unwrap_or_default();
        let request = v1::WatchCutsRequest {
            incarnation: from.map(|p| p.incarnation.as_bytes().to_vec()).unwrap_or_default(),
            after: from.map_or(0, |p| p.head),
            subscription: self.subscription.clone(),
            relays: self.tap.is_some(),
            chain: from.and_then(|p| p.chain).map(Vec::from).unwrap_or_default(),
        };
        match self.client.watch_cuts(request).await {
            Ok(stream) => Ok(stream.into_inner()),
            // The issuer itself reports the fork, and would report it at each attempt.
            Err(status) if status.get_details_error_info().is_some_and(|info| info.reason == FORK) => {
                let error = self.follower.refuse();
                self.forked(&error);
                Err(status)
            }
            Err(status) => Err(status),
        }
    }

    async fn take(&mut self, wire: Self::Message) -> Result<bool, String> {
        let confirm = wire.confirm;
        let taken = message(&wire).and_then(|message| self.follower.take(message));
        let taken = taken.inspect_err(|error| self.forked(error)).map_err(|error| error.to_string())?;
        if self.tap.is_some() {
            if wire.snapshot {
                self.messages.clear();
            }
            self.messages.push(wire);
        }
        let Some(known) = taken else { return Ok(false) };
        self.live.publish(Arc::clone(&known));
        if confirm {
            self.confirm(known.head);
        }
        if let Some(tap) = &mut self.tap {
            tap(Tick { messages: std::mem::take(&mut self.messages), known });
        }
        self.link.send_if_modified(|link| std::mem::replace(link, Link::Open) != Link::Open);
        Ok(true)
    }

    fn why(&self, status: Status) -> String {
        reason(&status)
    }

    fn ended(&mut self, end: End<String>) -> Option<Duration> {
        let pause = end.backoff();
        self.link.send_replace(Link::Broken(end.why));
        Some(pause)
    }
}

impl Feed {
    /// Says up to which head the feed is known, beside following it. If the other end wants no confirmation nothing is lost.
    fn confirm(&mut self, head: u64) {
        if self.subscription.is_empty() || self.confirming.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (mut client, subscription) = (self.client.clone(), self.subscription.clone());
        self.confirming = Some(tokio::spawn(async move {
            let said = client.confirm_cuts(v1::ConfirmCutsRequest { subscription, head });
            let _ = tokio::time::timeout(SILENCE, said).await;
        }));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(task) = &self.confirming {
            task.abort();
        }
    }
}

fn reason(status: &Status) -> String {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => format!("we may not read the feed: {}", status.message()),
        _ => status.message().to_owned(),
    }
}

/// Decodes a message of the feed.
pub fn message(wire: &v1::WatchCutsResponse) -> Result<FeedMessage, FeedError> {
    let cuts = wire.cuts.iter().map(cut).collect::<Result<_, _>>()?;
    Ok(FeedMessage { snapshot: wire.snapshot, cuts, heartbeat: wire.heartbeat.as_ref().map(heartbeat).transpose()? })
}

fn cut(wire: &v1::Cut) -> Result<FeedCut, FeedError> {
    let subject = Subject(fixed(&wire.subject, "subject")?);
    Ok(FeedCut { subject, before: wire.before, keep_until: wire.keep_until, revision: wire.revision })
}

fn heartbeat(wire: &v1::Heartbeat) -> Result<Heartbeat, FeedError> {
    Ok(Heartbeat {
        trust_domain: TrustDomain::new(&wire.trust_domain).map_err(|_| FeedError::Malformed("trust_domain"))?,
        incarnation: uuid::Uuid::from_bytes(fixed(&wire.incarnation, "incarnation")?),
        head: wire.head,
        as_of: wire.as_of,
        count: wire.count,
        digest: fixed(&wire.digest, "digest")?,
        chain: (!wire.chain.is_empty()).then(|| fixed(&wire.chain, "chain")).transpose()?,
        signature: fixed(&wire.signature, "signature")?,
    })
}

fn fixed<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], FeedError> {
    bytes.try_into().map_err(|_| FeedError::Malformed(field))
}
