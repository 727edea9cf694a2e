//! The size of the feed if a thousand agents a second end for longer than a credential lasts.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::time::Instant;

use mayfly_verify::Target;
use uuid::Uuid;

use super::set::Set;
use super::snapshot::Snapshot;
use super::*;

/// Seconds for which a cut of an end is kept: a certificate of 15 minutes, and two minutes by which clocks may differ.
const KEPT: u64 = 900 + 120;
const NOW: u64 = 1_800_000_000;

/// Ends `rate` agents in each of `seconds` seconds, in ticks like those of the feed. Returns the greatest number of cuts, and the
/// longest time that the work of one second took.
fn ends(set: &mut Set, rate: u64, seconds: u64) -> (u64, Duration) {
    let (mut most, mut longest) = (0, Duration::ZERO);
    for second in 0..seconds {
        let began = Instant::now();
        for n in 0..rate {
            let revision = second * rate + n + 1;
            let subject = Target::Agent(Uuid::from_u128(u128::from(revision))).unsalted();
            assert!(set.add(&mut CutMade { subject, before: u64::MAX, keep_until: NOW + second + KEPT, revision }));
            if n % (rate / 50).max(1) == 0 {
                set.expire(NOW + second);
            }
        }
        longest = longest.max(began.elapsed());
        most = most.max(set.len());
    }
    (most, longest)
}

#[test]
fn t151_the_feed_holds_no_more_than_what_ended_while_a_credential_lasts() {
    let mut set = Set::default();
    let (most, _) = ends(&mut set, 10, 3 * KEPT);
    assert!((10 * (KEPT - 1)..=10 * (KEPT + 1)).contains(&most), "{most}");
    set.expire(NOW + 5 * KEPT);
    assert_eq!((set.len(), set.digest()), (0, Set::default().digest()));
}

#[test]
fn t281_a_snapshot_that_is_followed_by_later_ticks_has_one_heartbeat_and_that_of_the_last() {
    let cut = |n: u128| CutMade {
        subject: Target::Agent(Uuid::from_u128(n)).unsalted(),
        before: u64::MAX,
        keep_until: u64::MAX,
        revision: 1,
    };
    let heartbeat = |head| v1::Heartbeat { head, ..Default::default() };
    let tick = |cuts: &[CutMade], head| -> Vec<Bytes> {
        messages(cuts, heartbeat(head), true).iter().map(|message| Bytes::from(message.encode_to_vec())).collect()
    };
    let mut set = Set::default();
    assert!(set.add(&mut cut(1)));
    let mut snapshot = Snapshot::of(&set.messages(1), tick(&[cut(1)], 1).pop(), 1);
    snapshot.extend(&[tick(&[cut(2)], 2), tick(&[], 3), tick(&[cut(3)], 4)].concat(), 4);
    let sent = snapshot.messages().into_iter().map(|bytes| v1::WatchCutsResponse::decode(bytes).unwrap());
    let sent: Vec<(bool, usize, Option<u64>, bool)> =
        sent.map(|m| (m.snapshot, m.cuts.len(), m.heartbeat.map(|heartbeat| heartbeat.head), m.confirm)).collect();
    assert_eq!(sent, [(true, 1, None, false), (false, 1, None, false), (false, 1, None, false), (false, 0, Some(4), false)]);
    assert_eq!((snapshot.made_at(), snapshot.at()), (1, 4));
}

#[test]
#[ignore = "long, and prints figures: cargo test --lib -- --ignored --nocapture t151"]
fn t151_at_a_thousand_ends_a_second() {
    let mut set = Set::default();
    let (most, longest) = ends(&mut set, 1000, KEPT + 60);
    let began = Instant::now();
    let cuts = set.messages(1);
    let snapshot = Snapshot::of(&cuts, None, 1);
    let bytes: usize = snapshot.messages().iter().map(Bytes::len).sum();
    eprintln!("{most} cuts, {bytes} bytes of snapshot made in {:?}; a second's work took {longest:?} at most", began.elapsed());
    assert!(most <= 1000 * (KEPT + 1) && bytes < 60 * usize::try_from(most).unwrap());
}
