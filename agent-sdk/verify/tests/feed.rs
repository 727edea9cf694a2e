//! The verifier's end of the feed: it knows what the issuer knows, or it refuses.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "feed/issuer.rs"]
mod issuer;

use std::collections::HashMap;

use issuer::{Issuer, Model, START, subject};
use mayfly_verify::Target;
use mayfly_verify::feed::{FeedError, FeedKey, FeedMessage, Heartbeat, Known, Limits, heartbeat_message};
use mayfly_verify::{TrustDomain, sha256};
use proptest::prelude::*;

fn same(known: &Known, model: &Model) -> bool {
    known.cuts.iter().eq(model.iter().map(|(subject, (before, _))| (*subject, *before))) && known.cuts.len() == model.len()
}

#[test]
fn the_signed_bytes_are_those_of_the_contract() {
    let issuer = Issuer::new();
    let heartbeat = Heartbeat { head: 3, as_of: 4, count: 5, digest: sha256(b"x"), chain: None, ..issuer.heartbeat() };
    let mut expected = b"mayfly feed v1\0".to_vec();
    expected.extend([0, 0, 0, 0, 0, 0, 0, 2, b't', b'd']);
    expected.extend(1u128.to_be_bytes());
    for number in [3u8, 4, 5] {
        expected.extend([0, 0, 0, 0, 0, 0, 0, number]);
    }
    expected.extend(sha256(b"x"));
    assert_eq!(heartbeat_message(&heartbeat), expected);
    let chained = Heartbeat { chain: Some([9; 32]), ..heartbeat };
    expected[13] = b'2';
    expected.extend([9; 32]);
    assert_eq!(heartbeat_message(&chained), expected);
}

/// An issuer that is put back to an older copy of itself, and goes on.
#[test]
fn t200_an_issuer_that_shows_another_past_is_refused_for_good() {
    let begin = || {
        let mut issuer = Issuer::new();
        issuer.cut(subject(1), u64::MAX, START + 1000);
        let mut follower = issuer.follower(Limits::default());
        follower.take(issuer.snapshot()).unwrap();
        issuer.pass(1);
        issuer.cut(subject(2), u64::MAX, START + 1000);
        let known = follower.take(issuer.delta(1)).unwrap().unwrap();
        assert_eq!(known.heartbeat.as_ref().unwrap().chain, Some(issuer.chain));
        (issuer, follower)
    };
    let back = |issuer: &mut Issuer| {
        issuer.head = 1;
        issuer.model.remove(&subject(2));
        issuer.chain = [1; 32];
        issuer.pass(1);
    };
    // Its head went back, at a time that was never signed before.
    let (mut issuer, mut follower) = begin();
    back(&mut issuer);
    assert_eq!(follower.take(issuer.snapshot()).unwrap_err(), FeedError::Fork(1));
    // It has other records up to the same head.
    let (mut issuer, mut other) = begin();
    back(&mut issuer);
    issuer.cut(subject(3), u64::MAX, START + 1000);
    assert_eq!(other.take(issuer.snapshot()).unwrap_err(), FeedError::Fork(2));
    // For good: not when it has gone on past what is known, and not when it says what it said before.
    issuer.cut(subject(4), u64::MAX, START + 1000);
    issuer.pass(10);
    for follower in [&mut follower, &mut other] {
        assert_eq!(follower.connect().map(|p| p.head), None);
        assert_eq!(follower.take(issuer.snapshot()).unwrap_err().code(), "FEED_FORK");
        assert!(follower.forked().is_some());
    }
    // The issuer may say it itself.
    let (mut issuer, mut told) = begin();
    assert_eq!(told.refuse(), FeedError::Fork(2));
    issuer.pass(1);
    assert_eq!(told.take(issuer.snapshot()).unwrap_err(), FeedError::Fork(2));
    // An epoch that was left comes back: a copy from before a restore.
    let (mut issuer, mut restored) = begin();
    let left = issuer.incarnation;
    issuer.restore();
    issuer.head += 5;
    issuer.pass(1);
    restored.take(issuer.snapshot()).unwrap();
    (issuer.incarnation, issuer.head) = (left, 3);
    issuer.pass(1);
    assert_eq!(restored.take(issuer.snapshot()).unwrap_err().code(), "FEED_FORK");
    // A relay that repeats what was true is no fork, and what comes next is taken.
    let (mut issuer, mut replayed) = begin();
    let old = issuer.snapshot();
    issuer.pass(1);
    issuer.cut(subject(3), u64::MAX, START + 1000);
    replayed.take(issuer.snapshot()).unwrap();
    assert_eq!(replayed.take(old).unwrap_err().code(), "FEED_REPLAY");
    replayed.take(issuer.snapshot()).unwrap();
}

#[test]
fn t75_a_snapshot_then_deltas_then_a_resumed_connection() {
    let mut issuer = Issuer::new();
    let mut follower = issuer.follower(Limits::default());
    assert_eq!(follower.connect(), None, "nothing is known: everything is needed");
    issuer.cut(subject(1), u64::MAX, START + 10);
    let known = follower.take(issuer.snapshot()).unwrap().unwrap();
    assert!(same(&known, &issuer.model));

    // In parts: nothing counts before its heartbeat.
    issuer.cut(subject(2), 7, START + 100);
    let whole = issuer.delta(1);
    let without = FeedMessage { heartbeat: None, ..whole.clone() };
    assert!(follower.take(without).unwrap().is_none());
    // The connection breaks here: what had no heartbeat is void, and comes again.
    let position = follower.connect().unwrap();
    assert_eq!((position.incarnation, position.head), (issuer.incarnation, 1));
    let known = follower.take(whole).unwrap().unwrap();
    assert!(same(&known, &issuer.model) && known.head == 2);

    // What ends by time alone is in no message.
    issuer.pass(10);
    let known = follower.take(issuer.delta(2)).unwrap().unwrap();
    assert!(same(&known, &issuer.model) && known.cuts.len() == 1);

    // T82: a later cut of the same subject; both orders end the same.
    issuer.cut(subject(2), 9, START + 50);
    let known = follower.take(issuer.delta(2)).unwrap().unwrap();
    assert_eq!(known.cuts.before(subject(2)), Some(9));
    issuer.pass(50);
    let known = follower.take(issuer.delta(3)).unwrap().unwrap();
    assert_eq!(known.cuts.before(subject(2)), Some(9), "the later end stays");
}

#[test]
fn t70_t75_each_lie_is_refused_for_what_it_is() {
    let mut issuer = Issuer::new();
    issuer.cut(subject(1), 5, START + 1000);
    issuer.cut(subject(2), 5, START + 1000);
    let old = issuer.snapshot();
    issuer.pass(1);
    issuer.cut(subject(3), 5, START + 1000);
    let now = issuer.snapshot();
    type Lie = Box<dyn Fn(&Issuer, &mut FeedMessage)>;
    let beat = |m: &mut FeedMessage, change: &dyn Fn(&mut Heartbeat)| change(m.heartbeat.as_mut().unwrap());
    let cases: Vec<(&str, Lie, &str)> = vec![
        ("true", Box::new(|_, _| ()), "ok"),
        ("one left out", Box::new(|_, m| _ = m.cuts.pop()), "FEED_DIGEST"),
        ("one changed", Box::new(|_, m| m.cuts[0].before = 4), "FEED_DIGEST"),
        ("one of another subject", Box::new(|_, m| m.cuts[0].subject = subject(9)), "FEED_DIGEST"),
        ("one that ends too early", Box::new(|_, m| m.cuts[0].keep_until = START), "FEED_DIGEST"),
        ("one twice is once", Box::new(|_, m| m.cuts.push(m.cuts[0])), "ok"),
        ("another order", Box::new(|_, m| m.cuts.reverse()), "ok"),
        ("a later time", Box::new(move |_, m| beat(m, &|h| h.as_of += 1)), "FEED_SIGNATURE"),
        ("another head", Box::new(move |_, m| beat(m, &|h| h.head += 1)), "FEED_SIGNATURE"),
        ("a broken signature", Box::new(move |_, m| beat(m, &|h| h.signature[7] ^= 1)), "FEED_SIGNATURE"),
        ("no signature", Box::new(move |_, m| beat(m, &|h| h.signature = [0; 64])), "FEED_SIGNATURE"),
        (
            "somebody else's feed",
            Box::new(|_, m| m.heartbeat = Some(Issuer::new().sign(m.heartbeat.clone().unwrap()))),
            "FEED_SIGNATURE",
        ),
        (
            "another trust domain of the same key",
            Box::new(|i, m| {
                let trust_domain = TrustDomain::new("other").unwrap();
                m.heartbeat = Some(i.sign(Heartbeat { trust_domain, ..m.heartbeat.clone().unwrap() }));
            }),
            "FEED_TRUST_DOMAIN",
        ),
        ("no snapshot", Box::new(|_, m| m.snapshot = false), "FEED_SNAPSHOT_NEEDED"),
    ];
    for (what, lie, expected) in cases {
        let mut follower = issuer.follower(Limits::default());
        let mut message = now.clone();
        lie(&issuer, &mut message);
        let code = follower.take(message).map_or_else(|e| e.code(), |_| "ok");
        assert_eq!(code, expected, "{what}");
        if code != "ok" {
            assert_eq!(follower.connect(), None, "{what}: only a snapshot is believed then");
            assert_eq!(follower.take(issuer.delta(0)).unwrap_err(), FeedError::NoSnapshot, "{what}");
        }
        // What is true is taken after whatever lie.
        assert!(same(&follower.take(now.clone()).unwrap().unwrap(), &issuer.model), "{what}");
        // And an old truth never: this signature holds.
        assert_eq!(follower.take(old.clone()).unwrap_err().code(), "FEED_REPLAY", "{what}");
    }
}

#[test]
fn t75_a_new_incarnation_comes_with_a_snapshot_and_the_old_one_never_again() {
    let mut issuer = Issuer::new();
    issuer.cut(subject(1), 5, START + 1000);
    let mut follower = issuer.follower(Limits::default());
    follower.take(issuer.snapshot()).unwrap();
    let old = issuer.snapshot();
    issuer.restore();
    issuer.pass(1);
    issuer.cut(subject(2), 5, START + 1000);
    assert_eq!(follower.take(issuer.delta(0)).unwrap_err(), FeedError::Incarnation);
    assert!(same(&follower.take(issuer.snapshot()).unwrap().unwrap(), &issuer.model));
    assert!(matches!(follower.take(old), Err(FeedError::Time(..))));
    // A head that goes back under a later time is no replay.
    issuer.head -= 1;
    issuer.pass(1);
    assert!(matches!(follower.take(issuer.snapshot()), Err(FeedError::Fork(_))));
}

#[test]
fn t135_a_later_revision_with_an_earlier_time_is_a_repair_and_an_earlier_one_never() {
    let mut issuer = Issuer::new();
    issuer.cut(subject(1), 5, START + 10 * 86_400);
    let mut follower = issuer.follower(Limits::default());
    follower.take(issuer.snapshot()).unwrap();
    // Three days ahead, and back.
    let right = issuer.now;
    issuer.pass(3 * 86_400);
    issuer.cut(subject(2), 6, START + 10 * 86_400);
    let ahead = issuer.snapshot();
    follower.take(ahead.clone()).unwrap();
    issuer.now = right + 5;
    assert!(matches!(follower.take(issuer.snapshot()), Err(FeedError::Time(..))), "the same revision at an earlier time");
    issuer.head += 1;
    assert!(same(&follower.take(issuer.snapshot()).unwrap().unwrap(), &issuer.model));
    assert_eq!(follower.take(ahead).unwrap_err().code(), "FEED_REPLAY", "and what was said before is a replay");
}

#[test]
fn t66_what_a_feed_makes_a_verifier_hold_is_bounded() {
    let mut issuer = Issuer::new();
    (0..11).for_each(|n| issuer.cut(subject(n), 5, START + 1000));
    let code = |limits: Limits, m: &FeedMessage| issuer.follower(limits).take(m.clone()).map_or_else(|e| e.code(), |_| "ok");
    let all = issuer.snapshot();
    assert_eq!(code(Limits { cuts: 10, pending: 100 }, &all), "FEED_TOO_MANY");
    assert_eq!(code(Limits { cuts: 100, pending: 10 }, &all), "FEED_TOO_MANY");
    assert_eq!(code(Limits { cuts: 11, pending: 11 }, &all), "ok");
    // Nor by never sending a heartbeat.
    let mut follower = issuer.follower(Limits { cuts: 100, pending: 25 });
    let endless = FeedMessage { heartbeat: None, ..all };
    follower.take(endless.clone()).unwrap();
    let more = FeedMessage { snapshot: false, ..endless };
    follower.take(more.clone()).unwrap();
    assert_eq!(follower.take(more).unwrap_err(), FeedError::TooMany(25));
}

/// T101: the feed holds more cuts than the verifier. What was issued before the cuts that it forgot is refused, and what was issued
/// later is judged as ever; nothing revoked is accepted.
#[test]
fn t101_more_cuts_than_can_be_held_refuse_old_credentials_and_judge_new_ones() {
    let mut issuer = Issuer::new();
    let limits = Limits { cuts: 16, pending: 1000 };
    let mut follower = issuer.follower(limits);
    // One that can come back, which is never forgotten.
    issuer.cut(Target::TrustDomain.unsalted(), 1, u64::MAX);
    follower.take(issuer.snapshot()).unwrap();
    let mut forgotten = 0;
    for n in 1..200u64 {
        let head = issuer.head;
        issuer.cut(subject(n), u64::MAX, issuer.now + 20);
        if n % 3 == 0 {
            issuer.pass(1);
        }
        let known = follower.take(issuer.delta(head)).unwrap().unwrap();
        assert!(known.cuts.len() <= limits.cuts && known.cuts.before(Target::TrustDomain.unsalted()) == Some(1));
        assert!(known.forgotten < known.head, "what is issued now can be judged");
        for (subject, (_, keep_until)) in &issuer.model {
            assert!(known.cuts.before(*subject).is_some() || *keep_until > issuer.now, "only what has not ended is owed");
        }
        // Each forgotten cut was made at revision `forgotten` or before.
        let missing = (1..=n).filter(|n| issuer.model.contains_key(&subject(*n)) && known.cuts.before(subject(*n)).is_none());
        assert!(missing.clone().all(|n| n < known.forgotten + 1), "agent {:?} of {}", missing.max(), known.forgotten);
        forgotten = known.forgotten;
    }
    assert!(forgotten > 0);
    // A snapshot, in pieces, of more than can be held.
    let mut late = issuer.follower(limits);
    let mut all = issuer.snapshot();
    let heartbeat = all.heartbeat.take();
    for (n, cuts) in all.cuts.chunks(7).enumerate() {
        late.take(FeedMessage { snapshot: n == 0, cuts: cuts.to_vec(), heartbeat: None }).unwrap();
    }
    let known = late.take(FeedMessage { snapshot: false, cuts: Vec::new(), heartbeat }).unwrap().unwrap();
    assert_eq!(known.forgotten, issuer.head);
    // Deltas go on from there; when what was forgotten has ended, everything can be judged again.
    let (head, mut at) = (issuer.head, issuer.head);
    issuer.cut(subject(1000), u64::MAX, issuer.now + 100);
    assert!(late.take(issuer.delta(head)).unwrap().unwrap().forgotten < issuer.head);
    at = at.max(issuer.head);
    issuer.pass(21);
    let known = late.take(issuer.delta(at)).unwrap().unwrap();
    assert_eq!((known.forgotten, known.cuts.len()), (0, 2));
    let known = follower.take(issuer.delta(at - 1)).unwrap().unwrap();
    assert_eq!((known.forgotten, known.cuts.len()), (0, 2));
}

/// A cut that another one makes superfluous is taken off, whether or not it is held.
#[test]
fn a_cut_that_is_taken_off_is_forgotten() {
    let mut issuer = Issuer::new();
    let mut whole = issuer.follower(Limits::default());
    let mut small = issuer.follower(Limits { cuts: 4, pending: 1000 });
    for follower in [&mut whole, &mut small] {
        follower.take(issuer.snapshot()).unwrap();
    }
    for n in 1..=8 {
        issuer.cut(subject(n), u64::MAX, issuer.now + n);
    }
    for follower in [&mut whole, &mut small] {
        follower.take(issuer.delta(0)).unwrap();
    }
    let head = issuer.head;
    issuer.cut(subject(100), u64::MAX, issuer.now + 50);
    (1..=8).for_each(|n| issuer.take_off(subject(n)));
    for (follower, held) in [(&mut whole, 1), (&mut small, 1)] {
        let known = follower.take(issuer.delta(head)).unwrap().unwrap();
        assert_eq!((known.cuts.len(), known.cuts.before(subject(100))), (held, Some(u64::MAX)));
    }
}

#[test]
fn t23_the_key_of_a_feed_is_one_uncompressed_point() {
    let point = [vec![4], vec![1; 64]].concat();
    assert!(FeedKey::from_point(&point).is_err(), "not on the curve");
    assert!(FeedKey::from_point(&[]).is_err());
    assert!(FeedKey::from_point(&[3; 33]).is_err(), "compressed");
}

/// What happens to a feed between issuer and verifier.
#[derive(Clone, Debug)]
enum Step {
    Cut {
        who: u64,
        keep: u64,
        always: bool,
    },
    Pass(u64),
    Restore,
    /// The truth.
    Delta,
    Snapshot,
    /// In two parts, the second without or with what the first held.
    Parts(usize),
    Reconnect,
    /// Lies of a relay.
    Omit(usize),
    Replay(usize),
    Swap(usize),
    Stretch(usize, i64),
    Invent(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..12, 1u64..40, any::<bool>()).prop_map(|(who, keep, always)| Step::Cut { who, keep, always }),
        2 => (0u64..15).prop_map(Step::Pass),
        1 => Just(Step::Restore),
        6 => Just(Step::Delta),
        2 => Just(Step::Snapshot),
        2 => any::<usize>().prop_map(Step::Parts),
        1 => Just(Step::Reconnect),
        1 => any::<usize>().prop_map(Step::Omit),
        2 => any::<usize>().prop_map(Step::Replay),
        1 => any::<usize>().prop_map(Step::Swap),
        1 => (any::<usize>(), -20i64..20).prop_map(|(n, by)| Step::Stretch(n, by)),
        1 => (0u64..24).prop_map(Step::Invent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// T36, T75, T76, T82: whatever a relay does, what a verifier knows is what the issuer knew at the heartbeat it took, and it
    /// never goes back; and after whatever happened the truth is taken.
    #[test]
    fn t36_t75_t76_t82_a_verifier_knows_what_the_issuer_knew_or_refuses(steps in proptest::collection::vec(step(), 1..60)) {
        let mut issuer = Issuer::new();
        let mut follower = issuer.follower(Limits::default());
        // What was true at each heartbeat, and every message that was ever sent.
        let mut truth: HashMap<[u8; 64], Model> = HashMap::new();
        let mut sent: Vec<FeedMessage> = Vec::new();
        let mut last = (0u64, 0u64);
        for step in steps {
            // ORDER: from where the follower stands, as its next connection would ask.
            let honest = |issuer: &Issuer, at: Option<mayfly_verify::feed::Position>| match at {
                Some(p) if p.incarnation == issuer.incarnation => issuer.delta(p.head),
                _ => issuer.snapshot(),
            };
            let mut must_hold = false;
            let mut messages = Vec::new();
            match step {
                Step::Cut { who, keep, always } => {
                    let before = if always { u64::MAX } else { issuer.head + 1 };
                    // An agent's cut is forever, a user's moves on: never both for one subject.
                    issuer.cut(subject(if always { who } else { 100 + who }), before, issuer.now + keep);
                }
                Step::Pass(seconds) => issuer.pass(seconds),
                Step::Restore => { issuer.restore(); issuer.pass(1); }
                Step::Reconnect => { follower.connect(); }
                Step::Delta => { messages.push(honest(&issuer, follower.connect())); must_hold = true; }
                Step::Snapshot => { follower.connect(); messages.push(issuer.snapshot()); must_hold = true; }
                Step::Parts(n) => {
                    let whole = honest(&issuer, follower.connect());
                    let (first, second) = whole.cuts.split_at(n % (whole.cuts.len() + 1));
                    messages.push(FeedMessage { snapshot: whole.snapshot, cuts: first.to_vec(), heartbeat: None });
                    messages.push(FeedMessage { snapshot: false, cuts: second.to_vec(), heartbeat: whole.heartbeat });
                    must_hold = true;
                }
                Step::Omit(n) => {
                    let mut m = honest(&issuer, follower.connect());
                    if !m.cuts.is_empty() { m.cuts.remove(n % m.cuts.len()); }
                    messages.push(m);
                }
                Step::Replay(n) => if !sent.is_empty() { messages.push(sent[n % sent.len()].clone()); },
                Step::Swap(n) => {
                    // The heartbeat of now on the cuts of then.
                    if !sent.is_empty() {
                        let old = sent[n % sent.len()].clone();
                        messages.push(FeedMessage { heartbeat: Some(issuer.heartbeat()), ..old });
                    }
                }
                Step::Stretch(n, by) => {
                    let mut m = honest(&issuer, follower.connect());
                    if !m.cuts.is_empty() {
                        let n = n % m.cuts.len();
                        m.cuts[n].keep_until = m.cuts[n].keep_until.saturating_add_signed(by);
                    }
                    messages.push(m);
                }
                Step::Invent(who) => {
                    let mut m = honest(&issuer, follower.connect());
                    m.cuts.push(mayfly_verify::feed::FeedCut { subject: subject(who), before: 3, keep_until: issuer.now + 9, revision: 1 });
                    messages.push(m);
                }
            }
            truth.entry(issuer.heartbeat().signature).or_insert_with(|| issuer.model.clone());
            for m in messages {
                if let Some(h) = &m.heartbeat {
                    truth.insert(h.signature, issuer.model.clone());
                }
                let heartbeat = m.heartbeat.clone();
                let recorded = sent.iter().any(|s| s.heartbeat == heartbeat);
                let model = heartbeat.as_ref().and_then(|h| truth.get(&h.signature)).cloned();
                let _ = (recorded, model);
                match follower.take(m.clone()) {
                    Ok(Some(known)) => {
                        let h = heartbeat.unwrap();
                        let at = (known.as_of, known.head);
                        prop_assert!(at.0 >= last.0, "time went back");
                        last = at;
                        prop_assert_eq!((known.cuts.incarnation, known.head, known.as_of), (h.incarnation, h.head, h.as_of));
                        let mut digest = mayfly_verify::feed::CutDigest::default();
                        known.cuts.iter().for_each(|(s, b)| digest.add(s, b));
                        prop_assert_eq!((known.cuts.len() as u64, digest.to_bytes()), (h.count, h.digest));
                        if must_hold {
                            prop_assert!(same(&known, &issuer.model));
                        }
                    }
                    Ok(None) => {}
                    // A cut that a relay stretched may be held until the digest tells: then the next snapshot mends it.
                    Err(FeedError::Count(..) | FeedError::Digest) if must_hold && heartbeat.is_some() => {
                        follower.connect();
                        let known = follower.take(issuer.snapshot()).unwrap().unwrap();
                        prop_assert!(same(&known, &issuer.model));
                    }
                    Err(e) => prop_assert!(!must_hold, "the truth was refused: {}", e),
                }
                sent.push(m);
            }
        }
        follower.connect();
        let known = follower.take(issuer.snapshot()).unwrap().unwrap();
        prop_assert!(same(&known, &issuer.model));
    }
}
