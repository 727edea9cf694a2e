//! Following what is revoked: the issuer's feed becomes a [`Live`], which every check in the process shares.
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
use tonic::{Code, Status};

use crate::api::v1;
use crate::api::v1::revocations_client::RevocationsClient;

/// A heartbeat comes every second; a feed that says nothing for so long is opened anew.
const SILENCE: Duration = Duration::from_secs(5);
/// The first pause after a break, which doubles.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// How the feed stands. What is known stays known through a break, and grows stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not open yet.
    Connecting,
    /// Messages come.
    Open,
    /// Broken, and opened again before long; says why.
    Broken(String),
}

/// A feed that is followed for as long as this lives.
#[derive(Debug)]
pub struct Following {
    live: Live,
    link: watch::Receiver<Link>,
    task: JoinHandle<()>,
}

impl Following {
    /// What is known, for checks. Clones outlive the feed and then grow stale.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// How the feed stands, and each change of that (T41).
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came between two heartbeats that held, as it came.
#[derive(Debug)]
pub struct Tick {
    /// In order; the last one has the heartbeat. After a snapshot they are everything.
    pub messages: Vec<v1::WatchCutsResponse>,
    /// What is known from now on.
    pub known: Arc<Known>,
}

type Tap = Box<dyn FnMut(Tick) + Send>;

/// Follows the feed over a channel, from where it was after every break. Needs an identity on the channel, or the operator
/// socket. `key` signs the heartbeats of `trust_domain`.
pub fn follow(channel: Channel, key: FeedKey, trust_domain: TrustDomain, freshness: Freshness) -> Following {
    begin(channel, key, trust_domain, freshness, None)
}

/// The same, and hands on what came, once it was verified: for a relay.
pub fn follow_with(
    channel: Channel,
    key: FeedKey,
    trust_domain: TrustDomain,
    freshness: Freshness,
    each: impl FnMut(Tick) + Send + 'static,
) -> Following {
    begin(channel, key, trust_domain, freshness, Some(Box::new(each)))
}

fn begin(channel: Channel, key: FeedKey, trust_domain: TrustDomain, freshness: Freshness, tap: Option<Tap>) -> Following {
    let live = Live::new(trust_domain.clone(), freshness);
    let follower = Follower::new(key, trust_domain, Limits::default());
    let (told, link) = watch::channel(Link::Connecting);
    let task = tokio::spawn(run(RevocationsClient::new(channel), follower, live.clone(), told, tap));
    Following { live, link, task }
}

async fn run(
    mut client: RevocationsClient<Channel>,
    mut follower: Follower,
    live: Live,
    told: watch::Sender<Link>,
    mut tap: Option<Tap>,
) {
    let mut pause = PAUSE;
    loop {
        let why = match session(&mut client, &mut follower, &live, &told, tap.as_mut()).await {
            Ok(never) => match never {},
            Err(why) => why,
        };
        // One that was open for a while starts anew at once.
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
    client: &mut RevocationsClient<Channel>,
    follower: &mut Follower,
    live: &Live,
    told: &watch::Sender<Link>,
    mut tap: Option<&mut Tap>,
) -> Result<std::convert::Infallible, String> {
    let from = follower.connect();
    let request = v1::WatchCutsRequest {
        incarnation: from.map(|p| p.incarnation.as_bytes().to_vec()).unwrap_or_default(),
        after: from.map_or(0, |p| p.head),
    };
    let silent = || format!("nothing was heard for {} seconds", SILENCE.as_secs());
    let opened = tokio::time::timeout(SILENCE, client.watch_cuts(request)).await;
    let mut stream = opened.map_err(|_| silent())?.map_err(|status| reason(&status))?.into_inner();
    let mut messages = Vec::new();
    loop {
        let next = tokio::time::timeout(SILENCE, stream.message()).await.map_err(|_| silent())?;
        let wire = next.map_err(|status| reason(&status))?.ok_or("the feed ended")?;
        let taken = message(&wire).and_then(|message| follower.take(message)).map_err(|e| e.to_string())?;
        // Bounded by what the follower takes without a heartbeat.
        if tap.is_some() {
            if wire.snapshot {
                messages.clear();
            }
            messages.push(wire);
        }
        if let Some(known) = taken {
            live.publish(Arc::clone(&known));
            if let Some(tap) = &mut tap {
                tap(Tick { messages: std::mem::take(&mut messages), known });
            }
            told.send_if_modified(|link| std::mem::replace(link, Link::Open) != Link::Open);
        }
    }
}

fn reason(status: &Status) -> String {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => format!("we may not read it: {}", status.message()),
        _ => status.message().to_owned(),
    }
}

/// Between half of it and all of it, so that a thousand verifiers do not come back at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut random = [0u8; 1];
    // Without chance there is no jitter, and nothing else is lost.
    let _ = aws_lc_rs::rand::fill(&mut random);
    pause / 2 + (pause / 2) * u32::from(random[0]) / 255
}

/// Reads a message of the feed.
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
        signature: fixed(&wire.signature, "signature")?,
    })
}

fn fixed<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], FeedError> {
    bytes.try_into().map_err(|_| FeedError::Malformed(field))
}
