//! T84: runs the real channel, feed and ring under random schedules. A subscriber has every cut up to its head, whether it begins,
//! resumes or begins again.
//!
//! The model switches threads before each access to shared data, as if memory were sequentially consistent. Only the writer is a
//! fake, and it uses the real [`Told`]. Signatures and the follower are real.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::LazyLock;

use mayfly_agent::revocation::message;
use mayfly_verify::feed::{FeedKey, Follower, Limits};
use mayfly_verify::{BindingOid, Target, TrustDomain};
use shuttle::thread;
use uuid::Uuid;

use super::sync::model;
use super::*;
use crate::keys::keystore::Keystore;
use crate::ledger::Observer;

const SCHEDULES: usize = 1000;
const MANY: usize = 1_000_000;
const NOW: u64 = 1_800_000_000 * SECOND;
/// The revisions of commits with a cut.
const CUTS: [u64; 2] = [2, 3];
const LAST: u64 = 4;

static KEYS: LazyLock<Arc<Authority>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let keystore = Keystore::open(&dir.path().join("keys")).unwrap();
    Arc::new(Authority::open(keystore, &td(), &BindingOid::default(), None, true, NOW / SECOND).unwrap())
});

fn td() -> TrustDomain {
    TrustDomain::new("td").unwrap()
}

fn subject(revision: u64) -> Subject {
    Target::Agent(Uuid::from_u128(u128::from(revision))).unsalted()
}

/// A subscriber of the feed.
struct Subscriber {
    feed: Arc<Feed>,
    follower: Follower,
    cursor: Option<Cursor>,
    known: u64,
}

impl Subscriber {
    fn new(feed: &Arc<Feed>) -> Subscriber {
        let key = FeedKey::from_point(&KEYS.feed_key()).unwrap();
        Subscriber { feed: Arc::clone(feed), follower: Follower::new(key, td(), Limits::default()), cursor: None, known: 0 }
    }

    fn take(&mut self) {
        let (messages, at) = self.feed.next(self.cursor);
        self.cursor = Some(at);
        for bytes in messages {
            let message = message(&v1::WatchCutsResponse::decode(bytes).unwrap()).unwrap();
            let taken = self.follower.take(message);
            assert!(taken.is_ok(), "the truth was refused: {taken:?}");
            let Ok(Some(known)) = taken else { continue };
            for revision in CUTS.into_iter().filter(|revision| *revision <= known.head) {
                assert!(known.cuts.before(subject(revision)).is_some(), "at head {} the cut {revision} is missing", known.head);
            }
            assert!(known.head >= self.known, "the head went back");
            self.known = known.head;
        }
    }

    /// The connection breaks, and the next one resumes from its position.
    fn reconnect(&mut self) {
        let position = self.follower.connect();
        self.cursor = position.and_then(|at| {
            let head = Head { incarnation: at.incarnation, revision: at.head, chain: at.chain };
            match self.feed.resume(head).unwrap() {
                Resumed::After(cursor) => Some(cursor),
                Resumed::Unknown(head) => Some(self.feed.since(head.revision)),
                Resumed::Snapshot => None,
            }
        });
    }
}

fn a_head_is_whole(commit: fn(&mut Told, Head, Vec<CutMade>)) {
    let (mut told, heard) = line();
    let incarnation = Uuid::from_u128(1);
    let now = || NOW;
    let speaker = Speaker { trust_domain: td(), incarnation, authority: Arc::clone(&KEYS) };
    let feed = Arc::new(Feed::of(Set::default(), heard.cut()));
    feed.ring.lock().begin(incarnation);
    feed.publish(&speaker, &heard, &now, None).unwrap();
    let writer = thread::spawn(move || {
        for revision in 1..=LAST {
            let cut = CutMade { subject: subject(revision), before: u64::MAX, keep_until: u64::MAX, revision };
            let head = Head { incarnation, revision, chain: Some([u8::try_from(revision).unwrap(); 32]) };
            commit(&mut told, head, if CUTS.contains(&revision) { vec![cut] } else { vec![] });
        }
    });
    let its = Arc::clone(&feed);
    let speaking = thread::spawn(move || {
        (0..3).for_each(|_| its.publish(&speaker, &heard, &now, None).unwrap());
        (speaker, heard)
    });
    let subscribers = [(); 2].map(|()| {
        let mut subscriber = Subscriber::new(&feed);
        thread::spawn(move || {
            subscriber.take();
            subscriber.take();
            subscriber.reconnect();
            subscriber.take();
            subscriber
        })
    });
    writer.join().unwrap();
    let (speaker, heard) = speaking.join().unwrap();
    feed.publish(&speaker, &heard, &now, None).unwrap();
    let late = Subscriber::new(&feed);
    for mut subscriber in subscribers.map(|s| s.join().unwrap()).into_iter().chain([late]) {
        subscriber.take();
        assert_eq!(subscriber.known, LAST, "something never came");
    }
}

#[test]
fn t76_t84_who_sees_a_head_finds_every_cut_up_to_it_under_any_schedule() {
    LazyLock::force(&KEYS);
    model(SCHEDULES, || a_head_is_whole(Told::committed));
}

#[test]
#[should_panic(expected = "is missing")]
fn t84_a_head_that_is_told_before_its_cuts_is_noticed() {
    LazyLock::force(&KEYS);
    model(SCHEDULES, || {
        a_head_is_whole(|told, head, cuts| {
            let at = At { revision: head.revision, chain: head.chain };
            *told.head.lock() = at;
            told.commits.send((at, cuts)).unwrap();
        });
    });
}

#[test]
#[ignore = "long: cargo test --release --lib -- --ignored t84"]
fn t84_a_million_schedules() {
    LazyLock::force(&KEYS);
    model(MANY, || a_head_is_whole(Told::committed));
}
