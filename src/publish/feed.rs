//! The feed: every cut to those who verify, by ticks of at most 20 ms, and a signed word every second that there is no other.
//!
//! One thread takes what the writer has applied, and makes one message of it for everybody. Messages stand in a ring of
//! bounded size; whoever is too slow for it gets a snapshot. A relay has the same ring, and forwards what another signed.

mod ring;
mod sync;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::time::{Duration, Instant};

use mayfly_agent::api::v1;
use mayfly_agent::revocation::Tick;
use mayfly_verify::feed::{CutDigest, Heartbeat, heartbeat_message};
use mayfly_verify::{Subject, TrustDomain};
use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message as _};
use tokio::sync::watch;
use uuid::Uuid;

use crate::authority::Authority;
use crate::clock::{Clock, SECOND};
use crate::denial::Fault;
use crate::ledger::{Ledger, Observer};
use crate::state::CutMade;
use ring::Ring;
use sync::{AtomicU64, Mutex, Receiver, SyncSender, channel};

/// Cuts of one tick go out together.
const TICK: Duration = Duration::from_millis(20);
/// A heartbeat comes at least so often.
const BEAT: Duration = Duration::from_secs(1);
/// Cuts in one message at most: 50 KiB.
const CHUNK: usize = 1000;
/// Commits whose cuts wait for the feed's thread at most.
const QUEUE: usize = 4096;

/// Where a subscriber stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

/// A `WatchCutsResponse` as bytes: encoded once, sent to many.
#[derive(Clone, Debug, Default)]
pub struct Encoded(pub Bytes);

impl prost::Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(&mut self, tag: u32, wire_type: WireType, buf: &mut impl Buf, ctx: DecodeContext) -> Result<(), DecodeError> {
        // Only ever sent.
        skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What the feed keeps for its subscribers.
pub struct Feed {
    // Guards the messages of the last while; held to add one or to look a few up.
    ring: Mutex<Ring>,
    // Guards the last snapshot; held while one is made, so that a crowd makes one.
    snapshot: Mutex<Option<Snapshot>>,
    // Guards what is cut; the feed's thread holds it while it adds a tick's cuts, a snapshot while it copies them.
    set: Mutex<Set>,
    news: watch::Sender<u64>,
    cuts: watch::Sender<u64>,
}

struct Snapshot {
    chunks: Vec<Bytes>,
    heartbeat: Bytes,
    at: u64,
}

/// What is cut, as of the last message.
struct Set {
    cuts: HashMap<Subject, (u64, u64)>,
    // The earliest time at which one of them can hit nothing any more, in unix seconds.
    earliest: u64,
    digest: CutDigest,
}

impl Default for Set {
    fn default() -> Set {
        Set { cuts: HashMap::new(), earliest: u64::MAX, digest: CutDigest::default() }
    }
}

impl Set {
    fn add(&mut self, cut: &CutMade) {
        let slot = self.cuts.entry(cut.subject).or_insert((0, 0));
        let (before, until) = (slot.0.max(cut.before), slot.1.max(cut.keep_until));
        if slot.0 > 0 {
            self.digest.remove(cut.subject, slot.0);
        }
        *slot = (before, until);
        self.digest.add(cut.subject, before);
        self.earliest = self.earliest.min(until);
    }

    /// Takes away what can hit nothing any more at `now` (unix seconds).
    fn expire(&mut self, now: u64) {
        if now < self.earliest {
            return;
        }
        let digest = &mut self.digest;
        let mut earliest = u64::MAX;
        self.cuts.retain(|subject, (before, until)| {
            let keep = *until > now;
            if keep {
                earliest = earliest.min(*until);
            } else {
                digest.remove(*subject, *before);
            }
            keep
        });
        self.earliest = earliest;
    }
}

/// What the writer tells: the cuts of each commit, and how far it is.
pub struct Told {
    cuts: SyncSender<Vec<CutMade>>,
    head: Arc<AtomicU64>,
}

impl Observer for Told {
    fn committed(&mut self, head: u64, cuts: Vec<CutMade>) {
        if !cuts.is_empty() {
            // The feed is behind by the whole queue: the commits wait for it rather than lose a cut.
            if let Err(TrySendError::Full(cuts)) = self.cuts.try_send(cuts) {
                metrics::counter!("mayfly_feed_queue_full_total").increment(1);
                let _ = self.cuts.send(cuts);
            }
        }
        // ORDER: after the cuts. Who sees this head finds every cut up to it.
        self.head.store(head, Ordering::Release);
    }
}

/// What the feed's thread hears.
pub struct Heard {
    cuts: Receiver<Vec<CutMade>>,
    head: Arc<AtomicU64>,
}

/// The two ends between the writer and the feed.
pub fn line() -> (Told, Heard) {
    let (sender, receiver) = channel(QUEUE);
    let head = Arc::new(AtomicU64::new(0));
    (Told { cuts: sender, head: Arc::clone(&head) }, Heard { cuts: receiver, head })
}

/// Who signs what the feed says.
struct Speaker {
    trust_domain: TrustDomain,
    incarnation: Uuid,
    authority: Arc<Authority>,
}

impl Feed {
    /// Starts with everything that is cut; `heard` must have been told of every commit since the registry was opened.
    pub fn start(ledger: &Ledger, authority: &Arc<Authority>, clock: Clock, heard: Heard) -> Result<Arc<Feed>, Fault> {
        let mut set = Set::default();
        let (incarnation, head) = ledger.read(|state| {
            state.all_cuts().for_each(|cut| set.add(&cut));
            (state.incarnation, state.revision)
        });
        heard.head.fetch_max(head, Ordering::AcqRel);
        let speaker = Speaker { trust_domain: ledger.trust_domain().clone(), incarnation, authority: Arc::clone(authority) };
        let feed = Arc::new(Feed::of(set));
        feed.ring.lock().begin(incarnation);
        feed.say(&speaker, &heard, &clock, Vec::new())?;
        let its = Arc::clone(&feed);
        let thread = std::thread::Builder::new().name("mayfly-feed".into());
        thread.spawn(move || its.run(&speaker, &heard, &clock)).map_err(|e| Fault::new("feed", e))?;
        Ok(feed)
    }

    /// A relay's, which has heard nothing yet.
    pub fn relay() -> Arc<Feed> {
        Arc::new(Feed::of(Set::default()))
    }

    fn of(set: Set) -> Feed {
        let (news, cuts) = (watch::Sender::new(0), watch::Sender::new(0));
        Feed { ring: Mutex::new(Ring::default()), snapshot: Mutex::new(None), set: Mutex::new(set), news, cuts }
    }

    /// Hands on what was heard from another and verified: its own words, under its own signature.
    pub fn forward(&self, mut tick: Tick) {
        let (known, all) = (&tick.known, tick.messages.iter().any(|m| m.snapshot));
        let made = |cut: &v1::Cut| {
            let subject = Subject(cut.subject.as_slice().try_into().ok()?);
            Some(CutMade { subject, before: cut.before, keep_until: cut.keep_until, revision: cut.revision })
        };
        let cuts: Vec<CutMade> = tick.messages.iter().flat_map(|m| &m.cuts).filter_map(made).collect();
        let mut ring = self.ring.lock();
        {
            let mut set = self.set.lock();
            if all {
                *set = Set::default();
            }
            cuts.iter().for_each(|cut| set.add(cut));
            set.expire(known.as_of / SECOND);
        }
        if all {
            ring.begin(known.cuts.incarnation);
            // Everybody gets all of it as a snapshot of ours; what is said here is that there is no other.
            let heartbeat = tick.messages.pop().and_then(|m| m.heartbeat);
            tick.messages = vec![v1::WatchCutsResponse { snapshot: false, cuts: vec![], heartbeat }];
        }
        let encoded = tick.messages.iter().map(|m| Bytes::from(m.encode_to_vec())).collect();
        let at = ring.push(encoded, known.head, known.as_of, !all && cuts.is_empty());
        drop(ring);
        self.news.send_replace(at);
        self.cuts.send_if_modified(|last| {
            *last = at;
            !cuts.is_empty()
        });
    }

    /// Whether anything was heard: a relay has nothing to say before.
    pub fn has_spoken(&self) -> bool {
        self.ring.lock().as_of() > 0
    }

    /// Ends with the process: the thread holds nothing that another waits for.
    fn run(&self, speaker: &Speaker, heard: &Heard, clock: &Clock) {
        let mut last = Instant::now();
        loop {
            let first = match heard.cuts.recv_timeout(BEAT.saturating_sub(last.elapsed())) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // A cut that comes alone goes at once; in a storm they go by ticks.
            if let Some(rest) = TICK.checked_sub(last.elapsed()).filter(|_| !first.is_empty()) {
                std::thread::sleep(rest);
            }
            last = Instant::now();
            if let Err(fault) = self.say(speaker, heard, clock, first) {
                tracing::error!(cause = %fault, "the feed says nothing: verifiers will hold it for stale");
            }
        }
    }

    /// One message of everything that was heard, and the word that there is no other.
    fn say(&self, speaker: &Speaker, heard: &Heard, clock: &Clock, mut cuts: Vec<CutMade>) -> Result<(), Fault> {
        // ORDER: time, then head, then cuts: at that time nothing beyond that head was durable, and all up to it is here.
        let as_of = clock.now();
        let head = heard.head.load(Ordering::Acquire);
        cuts.extend(heard.cuts.try_iter().flatten());
        let mut ring = self.ring.lock();
        let head = head.max(cuts.last().map_or(0, |cut| cut.revision)).max(ring.head());
        let as_of = as_of.max(ring.as_of());
        let (count, digest) = {
            let mut set = self.set.lock();
            cuts.iter().for_each(|cut| set.add(cut));
            set.expire(as_of / SECOND);
            (u64::try_from(set.cuts.len()).unwrap_or(u64::MAX), set.digest.to_bytes())
        };
        let heartbeat = speaker.heartbeat(head, as_of, count, digest)?;
        let mut wire: Vec<v1::Cut> = cuts.iter().map(cut_message).collect();
        let some = !wire.is_empty();
        let mut messages = Vec::new();
        while wire.len() > CHUNK {
            let rest = wire.split_off(CHUNK);
            messages.push(v1::WatchCutsResponse { snapshot: false, cuts: wire, heartbeat: None });
            wire = rest;
        }
        messages.push(v1::WatchCutsResponse { snapshot: false, cuts: wire, heartbeat: Some(heartbeat) });
        let encoded = messages.iter().map(|m| Bytes::from(m.encode_to_vec())).collect();
        let at = ring.push(encoded, head, as_of, !some);
        drop(ring);
        self.news.send_replace(at);
        if some {
            metrics::counter!("mayfly_cuts_published_total").increment(u64::try_from(cuts.len()).unwrap_or(0));
            self.cuts.send_replace(at);
        }
        Ok(())
    }

    /// Tells when there is something new.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Tells when something new is cut.
    pub fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    /// Where somebody stands who took a heartbeat of this incarnation with this head; none: a snapshot comes first.
    pub fn resume(&self, incarnation: Uuid, head: u64) -> Option<Cursor> {
        let ring = self.ring.lock();
        if incarnation == ring.incarnation() { ring.after_head(head).map(Cursor) } else { None }
    }

    /// What comes after a cursor, and where that leads; without one, or for who is too slow, everything.
    pub fn next(&self, cursor: Option<Cursor>) -> (Vec<Bytes>, Cursor) {
        let known = cursor.and_then(|cursor| self.ring.lock().after(cursor.0));
        let (messages, at) = known.unwrap_or_else(|| {
            metrics::counter!("mayfly_feed_snapshots_total").increment(1);
            self.snapshot()
        });
        (messages, Cursor(at))
    }

    /// Everything, made once for all who ask for as long as the ring leads on from it.
    fn snapshot(&self) -> (Vec<Bytes>, u64) {
        let mut kept = self.snapshot.lock();
        if let Some(known) = kept.as_ref()
            && let Some((after, at)) = self.ring.lock().after(known.at)
        {
            // What was heard since ends with a heartbeat of its own.
            let beat = after.is_empty().then(|| known.heartbeat.clone());
            return (known.chunks.iter().cloned().chain(after).chain(beat).collect(), at);
        }
        // ORDER: the ring stands still while the set is copied, so that both are of one moment.
        let ring = self.ring.lock();
        let cuts: Vec<v1::Cut> = {
            let set = self.set.lock();
            let message = |(subject, (before, until)): (&Subject, &(u64, u64))| v1::Cut {
                subject: subject.0.to_vec(),
                before: *before,
                keep_until: *until,
                revision: ring.head(),
            };
            set.cuts.iter().map(message).collect()
        };
        let (last, at) = ring.last();
        drop(ring);
        let mut chunks: Vec<Bytes> = Vec::new();
        for (n, chunk) in cuts.chunks(CHUNK).enumerate() {
            let message = v1::WatchCutsResponse { snapshot: n == 0, cuts: chunk.to_vec(), heartbeat: None };
            chunks.push(message.encode_to_vec().into());
        }
        if chunks.is_empty() {
            chunks.push(v1::WatchCutsResponse { snapshot: true, cuts: vec![], heartbeat: None }.encode_to_vec().into());
        }
        // The heartbeat of that moment, without the cuts that came with it: they are among the rest.
        let heartbeat = last.and_then(|bytes| v1::WatchCutsResponse::decode(bytes).ok()).and_then(|m| m.heartbeat);
        let heartbeat: Bytes = v1::WatchCutsResponse { snapshot: false, cuts: vec![], heartbeat }.encode_to_vec().into();
        let messages = chunks.iter().cloned().chain([heartbeat.clone()]).collect();
        *kept = Some(Snapshot { chunks, heartbeat, at });
        (messages, at)
    }
}

impl Speaker {
    fn heartbeat(&self, head: u64, as_of: u64, count: u64, digest: [u8; 32]) -> Result<v1::Heartbeat, Fault> {
        let (trust_domain, incarnation) = (self.trust_domain.clone(), self.incarnation);
        let unsigned = Heartbeat { trust_domain, incarnation, head, as_of, count, digest, signature: [0; 64] };
        let signature = self.authority.sign_heartbeat(&heartbeat_message(&unsigned))?;
        Ok(v1::Heartbeat {
            trust_domain: self.trust_domain.to_string(),
            incarnation: self.incarnation.as_bytes().to_vec(),
            head,
            as_of,
            count,
            digest: digest.to_vec(),
            signature,
        })
    }
}

fn cut_message(cut: &CutMade) -> v1::Cut {
    v1::Cut { subject: cut.subject.0.to_vec(), before: cut.before, keep_until: cut.keep_until, revision: cut.revision }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_verify::Target;

    /// T76, T84: however the two threads run, whoever sees a head finds every cut up to it.
    #[test]
    fn t76_t84_who_sees_a_head_finds_every_cut_up_to_it() {
        const COMMITS: u64 = 300_000;
        let (mut told, heard) = line();
        let subject = Target::TrustDomain.subject();
        let writer = std::thread::spawn(move || {
            for revision in 1..=COMMITS {
                // Every third commit cuts.
                let cut = CutMade { subject, before: revision, keep_until: u64::MAX, revision };
                told.committed(revision, if revision % 3 == 0 { vec![cut] } else { vec![] });
            }
        });
        let (mut last, mut looks) = (0, 0u64);
        loop {
            let head = heard.head.load(Ordering::Acquire);
            for cut in heard.cuts.try_iter().flatten() {
                assert_eq!(cut.revision, last + 3, "each once, in order");
                last = cut.revision;
            }
            assert!(last >= head / 3 * 3, "at head {head} the last cut was {last}");
            looks += 1;
            if head == COMMITS {
                break;
            }
        }
        assert!(writer.join().is_ok() && looks > 1);
    }
}
