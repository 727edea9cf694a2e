//! The feed: it publishes every cut to verifiers in ticks of at most 20 ms, and a signed heartbeat at least every second.
//!
//! One thread takes the cuts of all commits and makes one message of them for every subscriber. The messages are kept in a ring
//! of bounded size; a subscriber that is too slow for the ring gets a snapshot. A relay has the same ring, and forwards the
//! messages that the issuer signed.

mod encoded;
mod line;
mod past;
mod ring;
mod set;
mod snapshot;
mod speaker;
mod subscribers;
mod sync;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use mayfly_agent::api::v1;
use mayfly_agent::revocation::Tick;
use mayfly_verify::Subject;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::sync::watch;

use crate::authority::Authority;
use crate::clock::{Clock, SECOND};
use crate::denial::{Denial, Fault, Kind};
pub use crate::ledger::Head;
use crate::ledger::Ledger;
use crate::process;
use crate::process::sparing::Sparing;
use crate::state::CutMade;
pub use encoded::Encoded;
use line::Commit;
pub use line::{Heard, Told, line};
pub use past::Past;
use ring::{At, Resumes, Ring};
use set::Set;
use snapshot::Snapshot;
use speaker::Speaker;
pub use subscribers::{Joined, Subscriber, Subscribers};
use sync::Mutex;

/// Cuts within this time are sent together.
const TICK: Duration = Duration::from_millis(20);
/// Longest time between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Most cuts in one message: 50 KiB.
const CHUNK: usize = 1000;

/// A subscriber's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(Place);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    // The subscriber has every tick up to this number.
    Tick(u64),
    // The subscriber knows every cut up to this revision, from ticks that are no longer in the ring.
    Revision(u64),
}

/// The position from which a subscriber continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// After the last tick that it received.
    After(Cursor),
    /// It needs a snapshot, because it has nothing of this epoch of the journal.
    Snapshot,
    /// The ring has no tick at this head of the same epoch. If the journal contains this head, the subscriber continues with
    /// [`Feed::since`].
    Unknown(Head),
}

/// The feed: messages for subscribers.
pub struct Feed {
    // Guards the most recent ticks. It is held to add a tick or to look some up.
    ring: Mutex<Ring>,
    // Guards the last snapshot. It is held while a snapshot is made, so that many subscribers at once cause one.
    snapshot: Mutex<Option<Snapshot>>,
    // Guards the cuts in force. The feed's thread holds it while it adds the cuts of a tick, a snapshot while it copies them.
    set: Mutex<Set>,
    news: watch::Sender<u64>,
    cuts: watch::Sender<u64>,
    // Revision of the last commit with a cut, which may not be published yet; 0 at a relay.
    cut: Arc<AtomicU64>,
    subscribers: Arc<Subscribers>,
}

impl Feed {
    /// Starts the feed's thread with every cut in force. `heard` must have observed every commit since the ledger was opened, and
    /// `past` the replay before that. Fails if the first heartbeat cannot be signed or the thread cannot start.
    pub fn start(
        ledger: &Ledger,
        authority: &Arc<Authority>,
        clock: Clock,
        heard: Heard,
        past: Past,
    ) -> Result<Arc<Feed>, Fault> {
        let head = ledger.head();
        let (set, incarnation) = ledger.read(|state| (past.completed(state.all_cuts()), state.incarnation));
        heard.begin(At { revision: head.revision, chain: head.chain });
        let speaker = Speaker { trust_domain: ledger.trust_domain().clone(), incarnation, authority: Arc::clone(authority) };
        let feed = Arc::new(Feed::of(set, heard.cut()));
        feed.ring.lock().begin(incarnation);
        // T212: a heartbeat states that a revocation could be recorded at its time, so its time is the last one at which this is
        // certain.
        let pulse = ledger.pulse().clone();
        let now = move || clock.now().saturating_sub(u64::try_from(pulse.held().as_micros()).unwrap_or(u64::MAX));
        feed.publish(&speaker, &heard, &now, None)?;
        let its = Arc::clone(&feed);
        process::thread("mayfly-feed", move || its.run(&speaker, &heard, &now)).map_err(|e| Fault::new("feed", e))?;
        Ok(feed)
    }

    /// The feed of a relay, which is empty until [`Feed::forward`] is called.
    pub fn relay() -> Arc<Feed> {
        Arc::new(Feed::of(Set::default(), Arc::default()))
    }

    fn of(set: Set, cut: Arc<AtomicU64>) -> Feed {
        Feed {
            ring: Mutex::new(Ring::default()),
            snapshot: Mutex::new(None),
            set: Mutex::new(set),
            news: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            cut,
            subscribers: Arc::default(),
        }
    }

    /// Forwards a verified tick of the issuer's feed, unchanged and under the issuer's signature. If it is a snapshot, every
    /// subscriber of this relay gets a snapshot.
    pub fn forward(&self, mut tick: Tick) {
        let known = &tick.known;
        let all = tick.messages.iter().any(|m| m.snapshot);
        let made = |cut: &v1::Cut| {
            let subject = Subject(cut.subject.as_slice().try_into().ok()?);
            Some(CutMade { subject, before: cut.before, keep_until: cut.keep_until, revision: cut.revision })
        };
        let mut cuts: Vec<CutMade> = tick.messages.iter().flat_map(|m| &m.cuts).filter_map(made).collect();
        let mut ring = self.ring.lock();
        {
            let mut set = self.set.lock();
            if all {
                *set = Set::after(known.head);
            }
            cuts.retain_mut(|cut| set.add(cut));
            set.expire(known.as_of / SECOND);
        }
        if all {
            ring.begin(known.cuts.incarnation);
            // Subscribers get the cuts in a snapshot of this relay, so only the heartbeat goes into the ring.
            let heartbeat = tick.messages.pop().and_then(|m| m.heartbeat);
            tick.messages = vec![v1::WatchCutsResponse { heartbeat, ..Default::default() }];
        }
        // The issuer asks this relay for a confirmation, and does not know the relay's subscribers.
        tick.messages.iter_mut().for_each(|message| message.confirm = false);
        let encoded = tick.messages.iter().map(|m| Bytes::from(m.encode_to_vec())).collect();
        let chain = known.heartbeat.as_ref().and_then(|heartbeat| heartbeat.chain);
        let at = ring.push(encoded, At { revision: known.head, chain }, known.as_of, !all && cuts.is_empty());
        drop(ring);
        self.news.send_replace(at);
        self.cuts.send_if_modified(|last| {
            *last = at;
            !cuts.is_empty()
        });
    }

    /// The time of the last heartbeat, in Unix microseconds; 0 before the first.
    pub fn as_of(&self) -> u64 {
        self.ring.lock().as_of()
    }

    /// Whether there is a heartbeat yet. Until then a relay has nothing to publish.
    pub fn has_heartbeat(&self) -> bool {
        self.ring.lock().as_of() > 0
    }

    /// Runs until the process ends, or until the writer stops.
    fn run(&self, speaker: &Speaker, heard: &Heard, now: &dyn Fn() -> u64) {
        let mut last = Instant::now();
        loop {
            let first = match heard.wait(BEAT.saturating_sub(last.elapsed())) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Waits until `TICK` has passed since the last message, so that a burst of cuts shares a message. After a quiet
            // time a cut is published at once.
            if let Some(rest) = TICK.checked_sub(last.elapsed()).filter(|_| first.is_some()) {
                std::thread::sleep(rest);
            }
            last = Instant::now();
            if let Err(fault) = self.publish(speaker, heard, now, first) {
                metrics::counter!("mayfly_heartbeat_failures_total", "what" => "feed").increment(1);
                static WARNING: Sparing = Sparing::new();
                if let Some(left_out) = WARNING.next(last) {
                    tracing::error!(cause = %fault, left_out, "the feed cannot sign a heartbeat: verifiers will consider it stale");
                }
            }
        }
    }

    /// Adds a tick: the cuts of `first` and all others that wait, with a heartbeat.
    fn publish(&self, speaker: &Speaker, heard: &Heard, now: &dyn Fn() -> u64, first: Option<Commit>) -> Result<(), Fault> {
        // ORDER: time, then head, then cuts. At `as_of` no commit beyond `head` had been answered, and every cut up to
        // `head` is in `cuts` or in the set.
        let as_of = now();
        let mut head = heard.head();
        let mut cuts = Vec::new();
        for (at, more) in first.into_iter().chain(heard.take()) {
            head = head.later(at);
            cuts.extend(more);
        }
        let mut ring = self.ring.lock();
        let head = ring.head().later(head);
        let as_of = as_of.max(ring.as_of());
        let (count, digest) = {
            let mut set = self.set.lock();
            cuts.retain_mut(|cut| set.add(cut));
            set.expire(as_of / SECOND);
            (set.len(), set.digest())
        };
        let heartbeat = speaker.heartbeat(head, as_of, count, digest)?;
        let encoded =
            messages(&cuts, heartbeat, self.subscribers.take_asked()).iter().map(|m| Bytes::from(m.encode_to_vec())).collect();
        let at = ring.push(encoded, head, as_of, cuts.is_empty());
        drop(ring);
        self.news.send_replace(at);
        if !cuts.is_empty() {
            metrics::counter!("mayfly_cuts_published_total").increment(u64::try_from(cuts.len()).unwrap_or(0));
            self.cuts.send_replace(at);
        }
        Ok(())
    }

    /// Who follows.
    pub fn subscribers(&self) -> &Arc<Subscribers> {
        &self.subscribers
    }

    /// The head of the last tick.
    pub fn head(&self) -> u64 {
        self.ring.lock().head().revision
    }

    /// Waits until every cut that was recorded before has been published. A subscriber that begins before that would get a heartbeat
    /// that is fresh, and older than a revocation that somebody has been told of. Returns whether it was so within a second.
    pub async fn caught_up(&self) -> bool {
        let wanted = self.cut.load(Ordering::Acquire);
        let mut news = self.news();
        let caught_up = async {
            // ORDER: the receiver is older than the look, so that no tick in between is missed.
            while self.head() < wanted {
                if news.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(BEAT, caught_up).await.unwrap_or(false)
    }

    /// Notifies of each tick.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Notifies of each tick with a cut.
    pub fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    /// The position from which a subscriber continues whose last heartbeat had this head. Denies it if the digest in that head
    /// differs from our journal.
    pub fn resume(&self, head: Head) -> Result<Resumed, Denial> {
        let ring = self.ring.lock();
        if head.incarnation != ring.incarnation() {
            return Ok(Resumed::Snapshot);
        }
        match ring.after_head(At { revision: head.revision, chain: head.chain }) {
            Resumes::After(tick) => {
                metrics::counter!("mayfly_feed_resumed_total", "from" => "ring").increment(1);
                Ok(Resumed::After(Cursor(Place::Tick(tick))))
            }
            Resumes::Unknown => Ok(Resumed::Unknown(head)),
            Resumes::Fork => Err(fork(head.revision)),
        }
    }

    /// The position of a subscriber that knows every cut up to a revision of this journal, although the ring has no tick there, as
    /// after a restart or a long time.
    pub fn since(&self, revision: u64) -> Cursor {
        Cursor(Place::Revision(revision))
    }

    /// The messages after a cursor, and the cursor after them. They are a snapshot if `cursor` is `None`, or if some messages after
    /// it are no longer known.
    pub fn next(&self, cursor: Option<Cursor>) -> (Vec<Bytes>, Cursor) {
        let known = cursor.and_then(|Cursor(place)| match place {
            Place::Tick(tick) => self.ring.lock().after(tick),
            Place::Revision(revision) => self.missed(revision),
        });
        let (messages, at) = known.unwrap_or_else(|| {
            metrics::counter!("mayfly_feed_snapshots_total").increment(1);
            self.snapshot()
        });
        (messages, Cursor(Place::Tick(at)))
    }

    /// The changes after a revision with the last heartbeat, and the number of its tick.
    fn missed(&self, revision: u64) -> Option<(Vec<Bytes>, u64)> {
        // ORDER: the ring is locked while the set is read, so that both are from the same moment.
        let ring = self.ring.lock();
        let cuts = self.set.lock().since(revision).filter(|_| revision <= ring.head().revision)?;
        let (last, at) = ring.last();
        drop(ring);
        let heartbeat = snapshot::heartbeat_of(last)?;
        metrics::counter!("mayfly_feed_resumed_total", "from" => "journal").increment(1);
        Some((messages(&cuts, heartbeat, false).iter().map(|m| Bytes::from(m.encode_to_vec())).collect(), at))
    }

    /// Every cut in force, and the number of the last tick. One snapshot serves all subscribers for as long as the ring reaches
    /// back to it.
    fn snapshot(&self) -> (Vec<Bytes>, u64) {
        let mut kept = self.snapshot.lock();
        if let Some(known) = kept.as_mut() {
            let ring = self.ring.lock();
            let later = ring.after(known.at()).filter(|_| ring.reaches(known.made_at()));
            drop(ring);
            if let Some((later, at)) = later {
                known.extend(&later, at);
                return (known.messages(), at);
            }
        }
        // ORDER: the ring is locked while the set is copied, so that both are from the same moment.
        let ring = self.ring.lock();
        let cuts = self.set.lock().messages(ring.head().revision);
        let (last, at) = ring.last();
        drop(ring);
        let made = Snapshot::of(&cuts, last, at);
        let messages = made.messages();
        *kept = Some(made);
        (messages, at)
    }
}

/// The denial of a subscriber whose journal differs from ours up to this revision (T200).
pub fn fork(revision: u64) -> Denial {
    let message = format!(
        "fork: what this journal says up to revision {revision} is not what the caller was told, or it ends before: the issuer was put back \
         to an older copy, or two of it run. Nothing that was issued since can be trusted until an operator has looked"
    );
    Denial::new(Kind::Precondition, "FEED_FORK", message)
}

/// The messages of one tick. The last one has the heartbeat, and asks subscribers to confirm it if `confirm` is set.
fn messages(cuts: &[CutMade], heartbeat: v1::Heartbeat, confirm: bool) -> Vec<v1::WatchCutsResponse> {
    let message = |cut: &CutMade| v1::Cut {
        subject: cut.subject.0.to_vec(),
        before: cut.before,
        keep_until: cut.keep_until,
        revision: cut.revision,
    };
    let mut messages: Vec<v1::WatchCutsResponse> = Vec::new();
    for chunk in cuts.chunks(CHUNK) {
        let cuts = chunk.iter().map(message).collect();
        messages.push(v1::WatchCutsResponse { cuts, ..Default::default() });
    }
    if messages.is_empty() {
        messages.push(v1::WatchCutsResponse::default());
    }
    if let Some(last) = messages.last_mut() {
        (last.heartbeat, last.confirm) = (Some(heartbeat), confirm);
    }
    messages
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
